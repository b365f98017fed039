"""The client for programs without an event loop."""

from __future__ import annotations

import builtins
import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar, Unpack

import httpx

from robot_dispatch_client import batches, calls, connection, filters, flows, models
from robot_dispatch_client.batches import Verdict
from robot_dispatch_client.calls import Call
from robot_dispatch_client.errors import DispatchError
from robot_dispatch_client.filters import LetterFilters, TaskFilters
from robot_dispatch_client.flows import Flow, Following, Send, Sleep
from robot_dispatch_client.retries import RetryPolicy
from robot_dispatch_client.schedules import Schedules
from robot_dispatch_client.submissions import Options, PayloadLike, Submission

T = TypeVar("T")


class Client:
    """A client of the API. Thread-safe; close it, or use it as a context manager.

    Every verb raises `ApiError` where the API refuses, and `ConnectionFailed` where no response comes; what may be repeated has
    been by then, for as long as `retry` allows.

    Args:
        url: the API's address; `ROBOT_DISPATCH_URL` by default.
        api_key: `ROBOT_DISPATCH_API_KEY` by default.
        retry: how long a call is tried; a minute by default.
        timeout: seconds for one try.
        context: headers for each request, e.g. ``traceparent`` and ``X-Request-Id`` of the work at hand.
        verify: how the server's certificate is checked: as of `httpx.Client`.
        trust_env: use proxies and certificates of the environment.
        transport: instead of the network, e.g. that of `testing.FakeDispatch`.

    Raises:
        ValueError: there is no usable address, or the API key can't be one.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: float = 10.0,
        context: Callable[[], Mapping[str, str]] | None = None,
        verify: Any = True,
        trust_env: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._target = connection.Target(url, api_key)
        self.schedules = Schedules(self._call)
        self._setting = connection.setting(retry, timeout, context)
        self._http = httpx.Client(
            base_url=self._target.url, auth=self._target.auth, headers={"User-Agent": connection.USER_AGENT},
            verify=verify, trust_env=trust_env, transport=transport, follow_redirects=False,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._target)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    # --- submit and follow -------------------------------------------------------------------------
    def submit(self, type: str, payload: PayloadLike, **options: Unpack[Options]) -> models.Task:
        """Submit a task, once: it is repeated with the same idempotency key until the API has answered.

        Args:
            type: a task type.
            payload: for its handler: an object, or a pydantic model of one.
            options: see `Options`.

        Returns:
            The accepted task: it will reach SUCCESS or FAIL.

        Raises:
            ApiError: it was refused and never runs; after `PublishUnconfirmed`, and after `ConnectionFailed`, that is unknown,
                and another call with the error's `idempotency_key` is safe.
        """
        return self._call(calls.submit(Submission(type=type, payload=payload, **options)))

    def submit_many(self, submissions: Iterable[Submission]) -> builtins.list[Verdict]:
        """Submit many tasks in few requests.

        Args:
            submissions: each has its own idempotency key, so repeating a call with the same ones is safe.

        Returns:
            For each, in their order, its task or why it was refused.

        Raises:
            DispatchError: the first request failed as a whole.
        """
        return self._run(batches.submit_many(submissions, self._setting))

    def get(self, task_id: str) -> models.Task:
        """A task as it is now."""
        return self._call(calls.get(task_id))

    def wait(self, task: models.Task | str, timeout: float | None = None) -> models.Task:
        """Wait until a task has ended.

        Args:
            task: it, or its id.
            timeout: seconds; by default as long as it takes.

        Returns:
            The ended task, SUCCESS or FAIL: see `Task.raise_for_failure`.

        Raises:
            WaitTimeout: it has not ended in time; it goes on.
        """
        return self._run(flows.wait(_id(task), timeout, self._setting))

    def stream(self, task: models.Task | str, after: int = 0) -> Iterator[models.Event]:
        """Follow a task's hops as they happen, over reconnections, until it has ended.

        Args:
            task: it, or its id.
            after: `seq` of the last hop that is known.

        Yields:
            Each hop once.
        """
        following = Following(_id(task), after, self._setting)
        while True:
            failure: DispatchError | None = None
            try:
                with self._stream(following.request()) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    if not response.is_success:
                        response.read()
                    failure = following.opened(response)
                    for piece in response.iter_bytes() if failure is None else ():
                        yield from following.feed(piece)
            except httpx.RequestError as exc:
                failure = flows.no_response(exc)
            time.sleep(following.pause(failure))

    def events(self, task: models.Task | str) -> builtins.list[models.Event]:
        """A task's hops so far, oldest first."""
        return self._call(calls.events(_id(task)))

    def payload(self, task: models.Task | str) -> models.Payload:
        """What was submitted, without its secrets."""
        return self._call(calls.payload(_id(task)))

    def children(self, task: models.Task | str) -> Iterator[models.Task]:
        """The tasks that a task's handler submitted, newest first."""
        return self._pages(lambda cursor: calls.children(_id(task), cursor))

    # --- the operator's hand -----------------------------------------------------------------------
    def cancel(self, task: models.Task | str) -> models.Task:
        """Cancel a task: at once, or, where it runs, by asking it to stop (`cancel_requested`)."""
        return self._call(calls.cancel(_id(task)))

    def retry_now(self, task: models.Task | str) -> models.Task:
        """End a task's wait for its next attempt."""
        return self._call(calls.retry_now(_id(task)))

    def signal(
        self,
        task: models.Task | str,
        name: str,
        payload: PayloadLike | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> models.Task:
        """Signal a task that waits.

        Args:
            task: it, or its id.
            name: of the signal.
            payload: for its handler.
            idempotency_key: signals with the same key are one; generated by default.
        """
        return self._call(calls.signal(_id(task), name, payload, idempotency_key))

    def redrive(
        self, task: models.Task | str, payload: PayloadLike | None = None, *, fresh: bool = False
    ) -> models.Task:
        """Send a dead letter again, in its next cycle.

        Repeated only if it had no effect: after `ConnectionFailed`, read the task (`cycle`) before redriving it again.

        Args:
            task: it, or its id.
            payload: instead of the one that it has.
            fresh: a new effect at the other side.
        """
        return self._call(calls.redrive(_id(task), payload, fresh=fresh))

    def redrive_many(
        self, *, limit: int = 100, rate_per_second: float = 10.0, dry_run: bool = False, **which: Unpack[LetterFilters]
    ) -> models.BulkRedrive:
        """Have the workers redrive dead letters; repeated only if it had no effect.

        Args:
            limit: dead letters at most, oldest first.
            rate_per_second: dead letters a second at most.
            dry_run: only count them.
            which: see `LetterFilters`; all by default.
        """
        more = {"limit": limit, "ratePerSecond": rate_per_second, "dryRun": dry_run}
        return self._call(calls.redrive_many(filters.of_letters(which), more))

    def discard(self, task: models.Task | str) -> None:
        """Drop a dead letter; `TaskNotFound` if it is none (any more)."""
        self._call(calls.discard(_id(task)))

    def jobs(self) -> builtins.list[models.Job]:
        """The bulk operations that are not done."""
        return self._call(calls.jobs())

    def stop_job(self, job_id: str) -> models.Job:
        """Stop a bulk operation."""
        return self._call(calls.stop_job(job_id))

    def pauses(self) -> builtins.list[models.Pause]:
        """What is paused."""
        return self._call(calls.pauses())

    def pause(self, what: str, reason: str, until: dt.datetime | None = None) -> models.Pause:
        """Pause tasks.

        Args:
            what: ``all``, ``type:…``, ``principal:…`` or ``key:…``.
            reason: for other operators.
            until: it ends by itself at this time; with a time zone.
        """
        return self._call(calls.pause(what, reason, until))

    def resume(self, what: str) -> None:
        """End a pause."""
        self._call(calls.resume(what))

    def audit(self, *, verb: str | None = None, principal: str | None = None) -> Iterator[models.AuditEntry]:
        """What operators did, newest first, page by page; `verb` is an operationId, e.g. ``redriveDeadLetter``."""
        return self._pages(lambda cursor: calls.audit({"verb": verb, "principal": principal}, cursor))

    # --- look --------------------------------------------------------------------------------------
    def dead_letters(
        self, *, page_size: int | None = None, **which: Unpack[LetterFilters]
    ) -> Iterator[models.DeadLetter]:
        """Dead letters, newest first, page by page."""
        given = {**filters.of_letters(which), "limit": page_size}
        return self._pages(lambda cursor: calls.dead_letters(given, cursor))

    def dead_letter(self, task: models.Task | str) -> models.DeadLetter:
        """A dead letter with its payload."""
        return self._call(calls.dead_letter(_id(task)))

    def dead_letter_groups(self, **which: Unpack[LetterFilters]) -> builtins.list[models.DeadLetterGroup]:
        """Dead letters by what they died of, the largest group first."""
        return self._call(calls.dead_letter_groups(filters.of_letters(which)))

    def task_types(self) -> builtins.list[models.TaskType]:
        """What can be submitted."""
        return self._call(calls.task_types())

    def task_type(self, name: str) -> models.TaskType:
        """One task type, with the schema of its payload."""
        return self._call(calls.task_type(name))

    def queues(self) -> builtins.list[models.Queue]:
        """The queues of the broker."""
        return self._call(calls.queues())

    def queue(self, name: str) -> models.Queue:
        """One queue."""
        return self._call(calls.queue(name))

    def workers(self) -> builtins.list[models.Worker]:
        """The workers with a recent heartbeat."""
        return self._call(calls.workers())

    def stats(self, principal: str | None = None) -> models.Stats:
        """How many tasks there are; with ``*`` of all principals (scope `tasks:read-all`)."""
        return self._call(calls.stats(principal))

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Any operation of the API, also one that this version does not know; its JSON."""
        return self._call(calls.anything(method, path, params, body, idempotency_key))

    def list(self, **which: Unpack[TaskFilters]) -> Iterator[models.Task]:
        """Find tasks, newest first, page by page.

        Args:
            which: see `TaskFilters`; all of yours by default.
        """
        given = filters.of_tasks(which)
        return self._pages(lambda cursor: calls.list_tasks(given, cursor))

    # --- inside ------------------------------------------------------------------------------------
    def _call(self, call: Call[T]) -> T:
        return self._run(flows.perform(call, self._setting))

    def _run(self, flow: Flow[T]) -> T:
        answer: httpx.Response | None = None
        failure: httpx.RequestError | None = None
        while True:
            try:
                step = flow.send(answer) if failure is None else flow.throw(failure)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = failure = None
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
                continue
            try:
                answer = self._http.send(connection.request(self._http, step))
            except httpx.RequestError as exc:
                failure = exc

    def _stream(self, step: Send) -> _Stream:
        return _Stream(self._http, connection.request(self._http, step, stream=True))

    def _pages(self, page: Callable[[str | None], Call[models.Page[T]]]) -> Iterator[T]:
        cursor = None
        while True:
            found = self._call(page(cursor))
            yield from found.items
            if found.next is None or found.next == cursor:
                return
            cursor = found.next


class _Stream:
    """A response that is read piece by piece, and closed however its reader ends."""

    def __init__(self, http: httpx.Client, request: httpx.Request) -> None:
        self._http = http
        self._request = request

    def __enter__(self) -> httpx.Response:
        self._response = self._http.send(self._request, stream=True)
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()


def _id(task: models.Task | str) -> str:
    return task if isinstance(task, str) else task.task_id
