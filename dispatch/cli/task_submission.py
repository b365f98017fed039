"""A client of the gateway for the commands that submit, and for schedules."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import IO, Any

import click
import httpx

from dispatch.cli.tables import visible
from dispatch.config import api_keys
from dispatch.errors import DispatchError

#: Seconds for an answer beyond what is waited for; the gateway answers within five.
_TIMEOUT = 15.0

#: Seconds of one long poll, and those between two that were not waited for.
_POLL, _PAUSE = 20, 1.0

#: The variable in which a shell has its API key, as on the pages of the documentation.
_VARIABLE = "KEY"


class TaskNotAccepted(DispatchError):
    """The gateway has refused the task, or it is unknown whether it has accepted it; the message has the reason."""


class GatewayUnreachable(DispatchError):
    """The gateway does not answer, or something else than a gateway does: look at its address."""


def api_key(file: IO[str] | None) -> str | None:
    """The API key: of a file, or of the variable ``KEY``; None without.

    Args:
        file: whose first line is the key.

    Raises:
        click.BadParameter: the file has no API key.
    """
    if file is None:
        given = os.environ.get(_VARIABLE, "")
        return given if api_keys.key_id(given) else None  # any other program's variable may have that name
    given = file.readline().strip()
    if api_keys.key_id(given) is None:
        raise click.BadParameter("it has no API key, rk_<id>_<secret>, in its first line", param_hint="--key-file")
    return given


class GatewayClient:
    """Submits and waits over HTTP.

    Args:
        url: the gateway's.
        key: an API key; None where none is needed.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def submit(self, body: Mapping[str, Any], *, idempotency_key: str | None, request_id: str | None) -> dict[str, Any]:
        """Submit a task.

        Args:
            body: of the request.
            idempotency_key: a new one by default, so that the error of an unknown outcome can name it.
            request_id: the task's; the gateway's by default.

        Returns:
            The task.

        Raises:
            TaskNotAccepted: with the reason, and after an unknown outcome with the key to repeat it with.
            GatewayUnreachable: see the class.
        """
        key = idempotency_key or str(uuid.uuid4())
        headers = {"Idempotency-Key": key, **({"X-Request-Id": request_id} if request_id else {})}
        answer = self._ask("POST", f"{self._url}/v1/tasks", headers, body, key)
        task = _json(answer)
        if answer.status_code == httpx.codes.ACCEPTED and "taskId" in task:
            return task
        raise TaskNotAccepted(_reason(answer, task, key))

    def submit_many(self, items: Sequence[Mapping[str, Any]], *, again: str) -> list[dict[str, Any]]:
        """Submit a batch.

        Args:
            items: of the request, each with its Idempotency-Key.
            again: the option by which the command can be repeated.

        Returns:
            A verdict for each item.

        Raises:
            TaskNotAccepted: the whole batch was refused, with the reason.
            GatewayUnreachable: see the class.
        """
        try:
            answer = self._ask("POST", f"{self._url}/v1/tasks/batch", {}, {"items": items})
        except GatewayUnreachable as exc:
            raise GatewayUnreachable(f"{exc}; what was accepted is unknown: repeat it with {again}") from exc
        body = _json(answer)
        if answer.status_code == httpx.codes.MULTI_STATUS and len(body.get("items", ())) == len(items):
            return list(body["items"])
        raise TaskNotAccepted(f"{_reason(answer, body)}\n  repeat it with {again}")

    def wait(self, task: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Follow a task until its end, or until the time is over.

        Args:
            task: as submitted.
            seconds: to wait at most.

        Returns:
            The task as it is then.

        Raises:
            GatewayUnreachable: see the class.
        """
        seen, end = dict(task), time.monotonic() + seconds
        while seen["status"] in {"PENDING", "RUNNING"} and (left := end - time.monotonic()) > 0:
            headers = {"Prefer": f"wait={max(1, min(_POLL, int(left)))}", "If-None-Match": f'"{seen["revision"]}"'}
            answer = self._ask("GET", f"{self._url}{seen['statusUrl']}", headers)
            if answer.status_code == httpx.codes.OK:
                seen = _json(answer)
            elif answer.status_code != httpx.codes.NOT_MODIFIED:
                raise GatewayUnreachable(f"the task can't be followed: {_reason(answer, _json(answer))}")
            if "Preference-Applied" not in answer.headers:
                time.sleep(min(_PAUSE, max(0.0, end - time.monotonic())))
        return seen

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Carry another operation out, which is safe to repeat.

        Args:
            method: of the request.
            path: below the gateway's address.
            body: of the request.

        Returns:
            The answer's body; empty without one.

        Raises:
            TaskNotAccepted: with the reason.
            GatewayUnreachable: see the class.
        """
        answer = self._ask(method, f"{self._url}{path}", {}, body)
        if answer.is_success:
            return _json(answer)
        raise TaskNotAccepted(_reason(answer, _json(answer)))

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None, key: str = ""
    ) -> httpx.Response:
        again = f"; it is unknown whether the task was accepted: repeat it with --idempotency-key {key}" if key else ""
        try:
            # Not by a proxy of the environment: the address is the operator's own.
            with httpx.Client(timeout=_TIMEOUT + _POLL, trust_env=False) as client:
                return client.request(method, url, headers={**self._headers, **headers}, json=body)
        except httpx.ConnectError as exc:
            raise GatewayUnreachable(f"no gateway answers at {self._url}: {exc}") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise GatewayUnreachable(
                f"the gateway at {self._url} did not answer: {exc or type(exc).__name__}{again}"
            ) from exc


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def _reason(answer: httpx.Response, problem: Mapping[str, Any], key: str = "") -> str:
    slug = str(problem.get("type", "")).rpartition("/")[2] or f"HTTP {answer.status_code}"
    errors = problem.get("errors")
    lines = [
        f"{slug}: {problem.get('detail', 'the answer is none of a gateway')}",
        *(
            f"  {each.get('pointer') or '/'}: {each.get('detail')}"
            for each in (errors if isinstance(errors, list) else [])
        ),
        *([f"  repeat it with --idempotency-key {key}"] if slug == "publish-unconfirmed" else []),
    ]
    return "\n".join(map(visible, lines))
