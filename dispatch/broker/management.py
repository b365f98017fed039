"""A bounded client of RabbitMQ's management API: one vhost, one budget of seconds for all its calls.

::

    ManagementUnavailable        it did not answer in time
    ├── ManagementRefused        it knows neither the user nor its right to this
    └── VhostMissing             there is no such vhost, or this user may not see it
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from kombu.utils.url import parse_url

from dispatch.broker.model import Binding, BrokerMap, Exchange, Policy, Queue
from dispatch.config import network
from dispatch.config.groups import BrokerSettings
from dispatch.config.tls import Tls
from dispatch.errors import DispatchError, Trouble

_SERVER = "RabbitMQ's management API"

#: Seconds that one call may take.
CALL = 1.0

#: Seconds that all calls of one `Management` may take together.
BUDGET = 3.0


class ManagementUnavailable(DispatchError):
    """RabbitMQ's management API did not answer in time: check DISPATCH_MANAGEMENT_URL and the plugin."""


class ManagementRefused(ManagementUnavailable):
    """RabbitMQ's management API refused this user: check DISPATCH_MANAGEMENT_URL and the user's tags."""


class VhostMissing(ManagementUnavailable):
    """The vhost is not there: create it (`rabbitmqctl add_vhost`) or mend the broker URL."""


def vhost(settings: BrokerSettings) -> str:
    """The vhost that the broker URL names (the first one of several), decoded."""
    name: str | None = parse_url(settings.broker("admin").split(";")[0])["virtual_host"]
    return name or "/"


class _ManagementNode:
    """The management API of one node.

    Args:
        url: with user and password.
        trust: for ``https``.
    """

    def __init__(self, url: str, trust: Tls) -> None:
        parts = urlsplit(url)
        host = parts.hostname or "127.0.0.1"
        self.connection = (
            http.client.HTTPSConnection(host, parts.port, timeout=CALL, context=trust.context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=CALL)
        )
        self.path = parts.path.rstrip("/").removesuffix("/api") + "/api"
        user = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self.headers = {
            "Authorization": f"Basic {base64.b64encode(user.encode()).decode()}",
            "Content-Type": "application/json",
        }
        self.name = f"{parts.hostname}:{parts.port or ''}"


class Management:
    """A connection to the management API, for a ``with`` block.

    Args:
        settings: where it is (`management_url`), and the broker URL whose vhost is meant.
        budget: seconds for all calls together.
    """

    def __init__(self, settings: BrokerSettings, budget: float = BUDGET) -> None:
        urls = settings.management_url.get_secret_value().split(";")
        self._servers = [_ManagementNode(url, settings.broker_tls) for url in urls]
        self._deadline = time.monotonic() + budget
        self.vhost = vhost(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.connection.close()

    def get(self, *path: str) -> Any:
        """GET a path below ``/api``, e.g. ``get("queues", vhost)``; each part is quoted.

        Raises:
            ManagementUnavailable: no answer in time, refused, or no such vhost.
        """
        return self._call("GET", path, None)

    def put(self, *path: str, body: Mapping[str, Any]) -> None:
        """PUT JSON to a path below ``/api``; raises as `get` does."""
        self._call("PUT", path, body)

    def post(self, *path: str, body: Mapping[str, Any]) -> None:
        """POST JSON to a path below ``/api``; raises as `get` does."""
        self._call("POST", path, body)

    def version(self) -> str:
        """RabbitMQ's version, e.g. ``3.10.8``."""
        return str(self.get("overview")["rabbitmq_version"])

    def queue_stats(self) -> list[dict[str, Any]]:
        """The vhost's queues with their statistics, which are up to about ten seconds old."""
        answer: list[dict[str, Any]] = self.get("queues", self.vhost)
        return answer

    def queue_totals(self) -> dict[str, dict[str, Any]]:
        """Messages of each queue, by its name, as each node counts them: some five seconds old, and there from the start."""
        found = self._call("GET", ("queues", self.vhost), None, query="?disable_stats=true&enable_queue_totals=true")
        return {queue["name"]: queue for queue in found}

    def live(self, queues: list[dict[str, Any]] | None = None) -> BrokerMap:
        """The whole vhost as it is now.

        Args:
            queues: the answer of `queue_stats`, to save a call.
        """
        queues = self.queue_stats() if queues is None else queues
        return BrokerMap(
            exchanges=tuple(map(_exchange, self.get("exchanges", self.vhost))),
            queues=tuple(map(_queue, queues)),
            bindings=tuple(_bindings(self.get("bindings", self.vhost))),
            policies=self.policies(),
        )

    def policies(self) -> tuple[Policy, ...]:
        """The vhost's policies."""
        return tuple(map(_policy, self.get("policies", self.vhost)))

    def set_policy(self, policy: Policy) -> None:
        """Create or replace a policy; the user needs the tag ``policymaker`` or ``administrator``."""
        self.put("policies", self.vhost, policy.name, body=policy_body(policy))

    def _call(self, method: str, path: tuple[str, ...], body: Mapping[str, Any] | None, *, query: str = "") -> Any:
        """Call the first node of the cluster that answers; nodes that do not are not called again."""
        text = None if body is None else json.dumps(body)
        while True:
            server = self._servers[0]
            try:
                status, answer = self._exchange(server, method, path, text, query)
                parsed = _parsed(answer, lenient=status >= 300)
                break
            except (OSError, http.client.HTTPException, ValueError) as exc:
                if len(self._servers) > 1:
                    self._servers.pop(0).connection.close()
                    continue
                reason = network.failure(exc) or exc or type(exc).__name__
                failed = ManagementUnavailable(f"{_SERVER} at {server.name} did not answer: {reason}")
                failed.trouble = Trouble(_SERVER, str(reason), server.name)
                raise failed from exc
        if status < 300:
            return parsed
        raise self._error(server.name, status, parsed, path)

    def _exchange(
        self, server: _ManagementNode, method: str, path: tuple[str, ...], body: str | None, query: str
    ) -> tuple[int, bytes]:
        if server.connection.sock is None:
            self._limit(server)
            server.connection.connect()
        self._limit(server)
        url = "/".join([server.path, *(quote(part, safe="") for part in path)]) + query
        server.connection.request(method, url, body, server.headers)
        response = server.connection.getresponse()
        chunks = []
        while chunk := response.read1(65_536):
            chunks.append(chunk)
            self._limit(server)
        response.read()  # so that the connection can be used again
        return response.status, b"".join(chunks)

    def _limit(self, server: _ManagementNode) -> None:
        """Bound the next wait, and leave the other nodes their share of the time."""
        left = min(CALL, (self._deadline - time.monotonic()) / len(self._servers))
        if left <= 0:
            msg = "the time for it is used up"
            raise TimeoutError(msg)
        server.connection.timeout = left
        if server.connection.sock is not None:
            server.connection.sock.settimeout(left)

    def _error(self, where: str, status: int, answer: Any, path: tuple[str, ...]) -> ManagementUnavailable:
        reason = " ".join(str(answer.get("reason", answer) if isinstance(answer, dict) else answer).split())
        if status == 404 and len(path) == 2:
            if not (isinstance(answer, dict) and "error" in answer):
                return ManagementUnavailable(f"what answers at {where} is not RabbitMQ's management API: mend the URL.")
            return VhostMissing(f"RabbitMQ at {where} has no vhost {self.vhost!r}: create it, or mend the URL.")
        if status in (401, 403):
            return ManagementRefused(f"RabbitMQ's management API at {where} refused this user: {reason}")
        return ManagementUnavailable(f"RabbitMQ's management API at {where} answered {status}: {reason}")


def _parsed(answer: bytes, *, lenient: bool) -> Any:
    """The JSON of an answer; of an error, which a proxy may have written, its text if need be."""
    try:
        return json.loads(answer) if answer else None
    except ValueError:
        if lenient:
            return answer[:200].decode(errors="replace")
        raise


def policy_body(policy: Policy) -> dict[str, Any]:
    """A policy as the management API and ``definitions.json`` spell it, without name and vhost."""
    return {
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "definition": dict(policy.definition),
        "priority": policy.priority,
    }


def _exchange(found: Mapping[str, Any]) -> Exchange:
    names = ("name", "type", "durable", "auto_delete", "internal", "arguments")
    return Exchange(**{name: found[name] for name in names})


def _queue(found: Mapping[str, Any]) -> Queue:
    return Queue(found["name"], found["arguments"], found["durable"], found["auto_delete"])


def _bindings(found: list[dict[str, Any]]) -> Iterator[Binding]:
    for one in found:
        if one["source"]:  # the default exchange's bindings are the broker's own
            yield Binding(
                one["source"], one["destination"], one["routing_key"], one["arguments"], one["destination_type"]
            )


def _policy(found: Mapping[str, Any]) -> Policy:
    return Policy(found["name"], found["pattern"], found["definition"], found["priority"], found["apply-to"])
