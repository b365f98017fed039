"""The API in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from robot_dispatch_client import webhooks
from robot_dispatch_client.aio import AsyncClient
from robot_dispatch_client.client import Client
from robot_dispatch_client.models import State
from robot_dispatch_client.retries import RetryPolicy
from robot_dispatch_client.testing.operator_views import hold, work_on_jobs
from robot_dispatch_client.testing.records import FakeJob, FakeTask
from robot_dispatch_client.testing.replies import Refusal
from robot_dispatch_client.testing.routes import answer, held_for

URL = "http://dispatch.invalid"

#: Seconds between two looks of a held poll of the async client.
_LOOK = 0.005


@dataclasses.dataclass(slots=True)
class _Fault:
    times: int
    refusal: Refusal | None  #: None: the connection breaks
    late: bool  #: after the request had its effect


class FakeDispatch(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The API in memory, as a transport of both clients. Thread-safe.

    Tasks stay QUEUED until `succeed` or `fail`, unless `on` sets how those of their type end.

    Args:
        types: the task types that exist; by default all names do.
        api_key: the only one that is accepted; by default none is needed.
    """

    def __init__(self, types: Iterable[str] | None = None, api_key: str | None = None) -> None:
        self.types = None if types is None else sorted(types)
        self.api_key = api_key
        self.tasks: dict[str, FakeTask] = {}  #: by id, in the order of their submission
        self.requests: list[httpx.Request] = []  #: all that came
        self.jobs: dict[str, FakeJob] = {}  #: by id; each is carried out at the request after its own
        self.pauses: dict[str, dict[str, Any]] = {}  #: by what is paused
        self.schedules: dict[str, dict[str, Any]] = {}  #: by name, as the API shows them
        self.audited: list[dict[str, Any]] = []  #: the audit log, oldest first
        self._outcomes: dict[str, Callable[[FakeTask], None]] = {}
        self._faults: list[_Fault] = []
        self._changed = threading.Condition()

    # --- clients -----------------------------------------------------------------------------------
    def client(self, **arguments: Any) -> Client:
        """A client of this API, which pauses little between its tries.

        Args:
            arguments: of `Client`.
        """
        return Client(URL, **self._arguments(arguments))

    def async_client(self, **arguments: Any) -> AsyncClient:
        """As `client`, for asyncio."""
        return AsyncClient(URL, **self._arguments(arguments))

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        usual = {
            "api_key": self.api_key or "",
            "retry": RetryPolicy(total=5, first=0.001, longest=0.01),
            "transport": self,
        }
        return {**usual, **given}

    # --- what happens to tasks ---------------------------------------------------------------------
    def on(
        self,
        type: str,
        *,
        result: Any = None,
        error: str = "",
        detail: str = "",
        run: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        """Tell how tasks of a type end; each does so at the first request after its submission.

        Args:
            type: their type.
            result: of their success.
            error: they fail with an error of this type instead.
            detail: of the error.
            run: called with the payload: returns the result, or raises, which is a failure.
        """

        def end(task: FakeTask) -> None:
            if error:
                self._fail(task, error, detail)
                return
            try:
                value = run(task.payload) if run else result
            except Exception as exc:  # noqa: BLE001 - whatever a handler raises is its failure
                self._fail(task, type_name(exc), str(exc))
            else:
                self._succeed(task, value)

        with self._changed:
            self._outcomes[type] = end

    def succeed(self, task_id: str, result: Any = None) -> None:
        """End a task with success."""
        with self._changed:
            self._succeed(self.tasks[task_id], result)
            self._changed.notify_all()

    def fail(self, task_id: str, error: str = "handler-failed", detail: str = "") -> None:
        """End a task as a dead letter."""
        with self._changed:
            self._fail(self.tasks[task_id], error, detail)
            self._changed.notify_all()

    def progress(self, task_id: str, percent: int, message: str = "") -> None:
        """Have a task run, with progress."""
        with self._changed:
            task = self.tasks[task_id]
            task.attempt = max(1, task.attempt)
            task.progress = {"percent": percent, "message": message}
            task.become(State.RUNNING, "progress", percent=percent, message=message)
            self._changed.notify_all()

    def wait_for_retry(self, task_id: str, error: str = "handler-failed", detail: str = "") -> None:
        """Have an attempt of a task fail, so that it waits for the next one, which begins by `retry_now` only."""
        with self._changed:
            task = self.tasks[task_id]
            self._start(task)
            task.note_error(error, detail, retryable=True)
            task.become(State.RETRY_WAIT, "delayed", queue="robot.retry.1m.q", seconds=60.0)
            self._changed.notify_all()

    def webhook(self, task_id: str, secret: str) -> tuple[dict[str, str], bytes]:
        """The webhook of a task's end as a receiver gets it: headers and body.

        Args:
            task_id: a task that has ended.
            secret: ``whsec_…``.
        """
        with self._changed:
            body = self.tasks[task_id].webhook_body().encode()
        return webhooks.sign(secret, task_id, body), body

    # --- faults ------------------------------------------------------------------------------------
    def refuse(self, slug: str, *, times: int = 1, retry_after: int | None = 0, **members: Any) -> None:
        """Refuse the next requests.

        Args:
            slug: the problem type, e.g. ``queue-depth-exceeded``.
            times: how many requests.
            retry_after: seconds of their Retry-After; None: without.
            members: further members of the problem.
        """
        with self._changed:
            self._faults.append(_Fault(times, Refusal(slug, retry_after=retry_after, members=members), late=False))

    def cut(self, *, times: int = 1, late: bool = True) -> None:
        """Break the connections of the next requests.

        Args:
            times: how many.
            late: after the request had its effect, so that only its response is lost.
        """
        with self._changed:
            self._faults.append(_Fault(times, None, late))

    # --- the transport -----------------------------------------------------------------------------
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the sync client."""
        request.read()
        with self._changed:
            until = time.monotonic() + held_for(self, request)
            while held_for(self, request) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._respond(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the async client."""
        await request.aread()
        until = time.monotonic() + held_for(self, request)
        while held_for(self, request) and time.monotonic() < until:  # noqa: ASYNC110 - threads change it, too
            await asyncio.sleep(_LOOK)
        with self._changed:
            return self._respond(request)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        fault = self._next_fault()
        if fault is not None and fault.refusal is not None:
            return fault.refusal.response(request)
        if fault is not None and not fault.late:
            raise httpx.ConnectError("the fake refuses the connection", request=request)
        if not request.url.path.endswith("/stop"):  # so that a test can stop one
            work_on_jobs(self)
        hold(self)
        self._end_those_decided()
        response = answer(self, request)
        self._changed.notify_all()
        if fault is not None:
            raise httpx.ReadError("the fake breaks the connection", request=request)
        return response

    def _next_fault(self) -> _Fault | None:
        self._faults = [fault for fault in self._faults if fault.times > 0]
        if not self._faults:
            return None
        self._faults[0].times -= 1
        return self._faults[0]

    def _end_those_decided(self) -> None:
        for task in self.tasks.values():
            if task.state == State.QUEUED and task.type in self._outcomes:
                self._outcomes[task.type](task)

    def _succeed(self, task: FakeTask, result: Any) -> None:
        self._start(task)
        task.result, task.error = result, None
        task.become(State.SUCCEEDED, "succeeded", attempt=task.attempt)

    def _fail(self, task: FakeTask, error: str, detail: str) -> None:
        self._start(task)
        task.note_error(error, detail, retryable=False)
        task.become(State.DEAD_LETTERED, "dead-lettered", reason="permanent")

    def _start(self, task: FakeTask) -> None:
        task.attempt += 1
        task.become(State.RUNNING, "started", attempt=task.attempt, worker="fake")


def type_name(exc: Exception) -> str:
    """The error type of an exception of a handler."""
    return getattr(exc, "type", None) or type(exc).__name__
