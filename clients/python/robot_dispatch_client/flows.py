"""What a call takes: tries, pauses, polls, pages, reconnections. Without I/O, so that both clients run the same.

A flow is a generator: it yields what to do (`Send`, `Sleep`), is sent the response, and returns the result. An
`httpx.RequestError` is thrown into it where there is no response.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeVar

import httpx
import pydantic

from robot_dispatch_client import calls, errors, headers, sse
from robot_dispatch_client.calls import Call
from robot_dispatch_client.errors import ConnectionFailed, DispatchError, JobTimeout, RequestTimeout, WaitTimeout
from robot_dispatch_client.models import Event, Job, Page, Task
from robot_dispatch_client.retries import Repeat, RetryPolicy

T = TypeVar("T")

#: Seconds for which the API holds a poll at most (`Prefer: wait`).
LONGEST_HOLD = 20

#: Seconds between two polls at most, where the API does not hold them: a task may end before its next attempt is due.
_LONGEST_POLL = 60.0

#: Seconds between two looks at a job: at first, and at most.
_FIRST_LOOK, _LONGEST_LOOK = 0.25, 5.0

#: Seconds after which a stream without a sign of life is dead: the API sends a comment every 15.
STREAM_SILENCE = 45.0

#: Seconds until a stream is opened again, unless the API asks for another time.
_RECONNECT = 3.0

#: These fail before the request leaves.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

#: These fail again: the request itself is wrong.
_WRONG = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Send a request and give back its response, read."""

    method: str
    path: str
    params: Sequence[tuple[str, str]]
    content: bytes | None
    headers: Mapping[str, str]
    timeout: float


@dataclasses.dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


Flow = Generator[Send | Sleep, httpx.Response | None, T]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What all flows of a client share.

    Args:
        policy: how long a call is tried.
        timeout: seconds for one try, beside what the API holds it.
        context: headers of the caller's context, asked for at each call.
        clock: monotonic seconds.
    """

    policy: RetryPolicy
    timeout: float
    context: Callable[[], Mapping[str, str]]
    clock: Callable[[], float] = time.monotonic


def perform(call: Call[T], setting: Setting, within: float | None = None) -> Flow[T]:
    """One operation, tried until it succeeds, may not be repeated, or its time is over.

    Args:
        call: the operation.
        setting: the client's.
        within: seconds for all tries; the policy's by default.

    Raises:
        DispatchError: the last try's failure.
    """
    policy = (
        setting.policy
        if within is None
        else dataclasses.replace(setting.policy, total=min(within, setting.policy.total))
    )
    sent = _headers(call, setting)
    began = setting.clock()
    tries = 0
    while True:
        tries += 1
        left = max(1.0, policy.total - (setting.clock() - began)) if tries > 1 else setting.timeout
        timeout = min(setting.timeout, left) + call.hold
        try:
            response = yield Send(call.method, call.path, call.params, call.content, sent, timeout)
        except httpx.RequestError as exc:
            failure = no_response(exc)
        else:
            found = _failure_or(call, response)
            if not isinstance(found, DispatchError):
                return found
            failure = found
        failure.idempotency_key = call.key
        failure.request_id = failure.request_id or sent["X-Request-Id"]
        pause = policy.pause(failure, call.repeat, tries=tries, elapsed=setting.clock() - began)
        if pause is None:
            raise failure
        yield Sleep(pause)


def _failure_or(call: Call[T], response: httpx.Response | None) -> T | DispatchError:
    assert response is not None
    try:
        return failure_of(response) or call.parse(response)
    except errors.UnexpectedResponse as exc:
        return exc


def _headers(call: Call[T], setting: Setting) -> dict[str, str]:
    given = {**setting.context(), **call.headers}
    names = {name.lower(): name for name in given}
    wished = given.pop(names["x-request-id"]) if "x-request-id" in names else None
    # The same in each try: the log lines of all of them are found by it.
    given["X-Request-Id"] = headers.request_id(wished)
    if call.content is not None:
        given["Content-Type"] = "application/json"
    return given


def failure_of(response: httpx.Response) -> DispatchError | None:
    """The error that a response is; None for a success.

    Args:
        response: read.
    """
    if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
        return None
    if response.is_redirect:  # never followed: the API has none, and the API key is for no other host
        return calls.unexpected(response, "it is a redirect")
    return errors.of_problem(calls.problem(response))


def no_response(exc: httpx.RequestError) -> DispatchError:
    """The error for a request without a response that can be read.

    Args:
        exc: the HTTP library's; becomes the cause.
    """
    text = f"{type(exc).__name__}: {exc}"
    failure: DispatchError
    if isinstance(exc, _WRONG):
        failure = DispatchError(text)
    elif isinstance(exc, httpx.DecodingError):
        failure = errors.UnexpectedResponse(text)
    elif isinstance(exc, httpx.TimeoutException):
        failure = RequestTimeout(text, unsent=isinstance(exc, _UNSENT))
    else:
        failure = ConnectionFailed(text, unsent=isinstance(exc, _UNSENT))
    failure.__cause__ = exc
    return failure


def wait(task_id: str, timeout: float | None, setting: Setting) -> Flow[Task]:
    """Follow a task to its end by long polls.

    Args:
        task_id: the task.
        timeout: seconds; None: as long as it takes.
        setting: the client's.

    Raises:
        WaitTimeout: it has not ended in time.
    """
    until = None if timeout is None else setting.clock() + timeout
    task = yield from perform(calls.get(task_id), setting)
    while not task.done:
        left = _LONGEST_POLL if until is None else until - setting.clock()
        if left <= 0:
            raise WaitTimeout(task)
        polled = yield from _poll(task, left, until, setting)
        task = polled.task or task
        if not polled.held and not task.done:
            pause = min(polled.retry_after, _LONGEST_POLL)
            yield Sleep(pause if until is None else max(0.0, min(pause, until - setting.clock())))
    return task


def _poll(task: Task, left: float, until: float | None, setting: Setting) -> Flow[calls.Polled]:
    poll = calls.poll(task, min(LONGEST_HOLD, int(left)))
    try:
        return (yield from perform(poll, setting, None if until is None else left))
    except (ConnectionFailed, errors.Unavailable, errors.TooManyRequests) as exc:
        if until is None or left > setting.policy.total:
            raise
        raise WaitTimeout(task) from exc  # an outage that may last until the end of the wait


def wait_for_job(job_id: str, job: Job | None, timeout: float | None, setting: Setting) -> Flow[Job]:
    """Follow a job to its end.

    Args:
        job_id: the job.
        job: as it was last, if that is known.
        timeout: seconds; None: as long as it takes.
        setting: the client's.

    Raises:
        JobTimeout: it has not ended in time.
        JobNotFound: there is none.
    """
    read = calls.reading(Job)
    until = None if timeout is None else setting.clock() + timeout
    pause = _FIRST_LOOK
    while True:
        try:
            job = yield from perform(Call("GET", f"/v1/jobs/{calls.segment(job_id)}", read), setting)
        except errors.JobNotFound:
            if job is None or job.done is not None:
                raise
            return job.model_copy(update={"state": "done"})  # a bulk redrive, which is listed until it is done
        if job.ended:
            return job
        left = pause if until is None else until - setting.clock()
        if left <= 0:
            raise JobTimeout(job)
        yield Sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_LOOK)


def all_pages(page: Callable[[str | None], Call[Page[T]]], setting: Setting) -> Flow[list[T]]:
    """Read a list to its end.

    Args:
        page: the call for the page of a cursor.
        setting: the client's.
    """
    found: list[T] = []
    cursor = None
    while True:
        one = yield from perform(page(cursor), setting)
        found += one.items
        if one.next is None or one.next == cursor:
            return found
        cursor = one.next


class Following:
    """The state of a stream over its connections: where to resume, and when.

    Args:
        task_id: the task.
        after: `seq` of the last event that the caller has.
        setting: the client's.
    """

    def __init__(self, task_id: str, after: int, setting: Setting) -> None:
        self.path = f"/v1/tasks/{calls.segment(task_id)}/events"
        self.after = after
        self._setting = setting
        self._retry = _RECONNECT
        self._tries = 0
        self._failing_since: float | None = None
        self._fresh = False
        self._decoder = sse.Decoder()

    def request(self) -> Send:
        """The request of the next connection."""
        self._decoder = sse.Decoder()
        self._fresh = False
        given = {**self._setting.context(), "Accept": "text/event-stream", "Cache-Control": "no-cache"}
        given["X-Request-Id"] = headers.request_id(given.get("X-Request-Id"))
        if self.after:
            given["Last-Event-ID"] = str(self.after)
        return Send("GET", self.path, (), None, given, STREAM_SILENCE)

    def opened(self, response: httpx.Response) -> DispatchError | None:
        """What is wrong with a response; its body is read unless it is a stream."""
        failure = failure_of(response)
        if failure is None and not response.headers.get("content-type", "").startswith("text/event-stream"):
            return calls.unexpected(response, "it is no event stream")
        return failure

    def feed(self, piece: bytes) -> list[Event]:
        """The events of a piece that the caller does not have yet."""
        self._tries, self._failing_since = 0, None
        found = []
        for event in self._decoder.feed(piece):
            hop = _hop(event.data)
            if hop.seq > self.after:
                self.after, self._fresh = hop.seq, True
                found.append(hop)
        self._retry = self._decoder.retry if self._decoder.retry is not None else self._retry
        return found

    def pause(self, failure: DispatchError | None) -> float:
        """Seconds until the next connection.

        Args:
            failure: how the last one ended; None: the API closed it, at the task's end or at a restart.

        Raises:
            DispatchError: it can't go on, or has failed for too long.
        """
        if failure is None:  # whether the task has ended is the next answer: 204
            return 0.0 if self._fresh else self._retry
        self._tries += 1
        now = self._setting.clock()
        self._failing_since = now if self._failing_since is None else self._failing_since
        pause = self._setting.policy.pause(failure, Repeat.SAFE, tries=self._tries, elapsed=now - self._failing_since)
        if pause is None:
            raise failure
        return pause


def _hop(data: str) -> Event:
    try:
        return Event.model_validate_json(data)
    except pydantic.ValidationError:  # its text would quote the data
        raise errors.UnexpectedResponse("The stream has an event that is no hop") from None
