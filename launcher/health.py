"""Whether the servers of a running stack can be used now, and if not why: a process that runs may still not answer."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Collection, Mapping

import httpx

from dispatch.broker import connections, provision
from dispatch.config import settings as configuration
from dispatch.config.settings import PREFIX, Settings
from dispatch.errors import ConfigurationError
from launcher import redis
from launcher.processes import PROBE_TIMEOUT

#: Seconds for all checks together; one that takes longer is given up.
_WITHIN = 5.0


def troubles(values: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """What can't be used of a stack.

    Args:
        values: of its ``env`` file.
        names: what is looked at, of ``rabbitmq``, ``redis`` and ``gateway``.

    Returns:
        Why, by name.
    """
    try:
        settings = configuration.load({name: value for name, value in values.items() if name.startswith(PREFIX)})
    except ConfigurationError:  # of another release
        return {}
    checks: dict[str, Callable[[], str | None]] = {}
    if "DISPATCH_BROKER_URL" in values:
        checks["rabbitmq"] = lambda: _rabbitmq(settings)
    if "DISPATCH_REDIS_URL" in values:
        checks["redis"] = redis.ping_probe(settings.redis_url.get_secret_value(), settings.redis_tls)
    if (url := values.get("DISPATCH_HTTP_URL")) is not None:
        checks["gateway"] = lambda: _gateway(url)
    asked = {name: check for name, check in checks.items() if name in names}
    return {name: reason for name, reason in _all(asked).items() if reason is not None}


def _all(checks: Mapping[str, Callable[[], str | None]]) -> dict[str, str | None]:
    if not checks:
        return {}
    pool = concurrent.futures.ThreadPoolExecutor(len(checks))
    running = {name: pool.submit(check) for name, check in checks.items()}
    done, _ = concurrent.futures.wait(running.values(), _WITHIN)
    pool.shutdown(wait=False)
    return {name: each.result() if each in done else "no answer" for name, each in running.items()}


def _rabbitmq(settings: Settings) -> str | None:
    address = settings.address("worker")
    limits = {"read_timeout": PROBE_TIMEOUT, "write_timeout": PROBE_TIMEOUT}
    try:
        with connections.connection(address, connect_timeout=PROBE_TIMEOUT, transport_options=limits) as connection:
            provision.connect(connection, address)
    except provision.BrokerUnreachable as exc:
        return str(exc.trouble)
    return None


def _gateway(url: str) -> str | None:
    """What `/readyz` lacks; a gateway that wants a client certificate is not asked."""
    try:
        response = httpx.get(f"{url}/readyz", timeout=2 * PROBE_TIMEOUT, trust_env=False, verify=False)  # noqa: S501 - of this machine
    except httpx.TimeoutException:
        return f"{url} did not answer in time"
    except httpx.HTTPError as exc:
        wants_one = any(words in str(exc).lower() for words in ("certificate required", "handshake failure"))
        return None if wants_one else f"{url}: {exc}"
    return None if response.is_success else f"{url}/readyz: {_detail(response)}"


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)
