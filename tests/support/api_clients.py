"""Both clients of clients/python by one name: tests run on each of them as if it were the sync one."""

import asyncio
import dataclasses
import inspect
import types
from collections.abc import Callable
from typing import Any

import httpx

from robot_dispatch_client import AsyncClient, Client, RetryPolicy, aio, client

KINDS = ("sync", "async")

URL = "http://dispatch.test"
KEY = "rk_shop_s3cr3t-that-no-text-has"


class StoppedClock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass."""
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_in_loop(self, seconds: float) -> None:
        """Pass."""
        self.sleep(seconds)

    def rule(self, monkeypatch: Any) -> None:
        """Have both clients sleep by this clock."""
        monkeypatch.setattr(client, "time", types.SimpleNamespace(sleep=self.sleep))
        monkeypatch.setattr(aio, "asyncio", types.SimpleNamespace(sleep=self.sleep_in_loop))


class Blocking:
    """An async client whose verbs block."""

    def __init__(self, made: AsyncClient, runner: asyncio.Runner) -> None:
        self._made, self._runner = made, runner

    def __repr__(self) -> str:
        return repr(self._made)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        verb = getattr(self._made, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found = verb(*args, **kwargs)
            return self._each(found) if inspect.isasyncgen(found) else self._runner.run(found)

        return call

    def _each(self, found: Any) -> Any:
        try:
            while True:
                try:
                    yield self._runner.run(anext(found))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(found.aclose())

    def close(self) -> None:
        """Close both."""
        self._runner.run(self._made.aclose())
        self._runner.close()


def make(kind: str, url: str = URL, clock: StoppedClock | None = None, **arguments: Any) -> Any:
    """A client.

    Args:
        kind: one of `KINDS`.
        url: of the API.
        clock: its time.
        arguments: of `Client`.
    """
    arguments = {"api_key": KEY, "retry": RetryPolicy(), "trust_env": False, **arguments}
    made = (Client if kind == "sync" else AsyncClient)(url, **arguments)
    if clock is not None:
        made._setting = dataclasses.replace(made._setting, clock=clock)
    return made if kind == "sync" else Blocking(made, asyncio.Runner())


class Script(httpx.MockTransport):
    """Answers one after the other; the last one for ever. An exception is raised."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(self.answer)
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The next one."""
        self.requests.append(request)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        if callable(found):
            return found(request)
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)

    def sent(self, header: str) -> list[str | None]:
        """The values of a header, request by request."""
        return [request.headers.get(header) for request in self.requests]


def task(task_id: str = "019a0000-0000-7000-8000-000000000001", **members: Any) -> dict[str, Any]:
    """A task as the API shows it, in part."""
    return {"taskId": task_id, "type": "echo", "status": "PENDING", "state": "QUEUED", "revision": 1, **members}


def ended(**members: Any) -> dict[str, Any]:
    """A task that has succeeded."""
    return task(status="SUCCESS", state="SUCCEEDED", revision=3, **members)


def accepted(**members: Any) -> httpx.Response:
    """202."""
    return httpx.Response(202, json=task(**members))


def refused(status: int, slug: str, retry_after: float | None = None, **members: Any) -> httpx.Response:
    """A problem."""
    body = {
        "type": f"/problems/{slug}",
        "title": slug,
        "status": status,
        "detail": "why",
        "requestId": "rq-1",
        **members,
    }
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return httpx.Response(status, json=body, headers=headers)
