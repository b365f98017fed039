"""``/v1/tasks``: submit, get, follow."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import auth, context, headers, heavy, long_poll, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import event_stream, task_access
from dispatch.gateway.views.intake import Intake, Valid
from dispatch.protocol.record import Record
from dispatch.store.tasks import TaskStore
from dispatch.submission.submitter import Submission
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds after which a place for a stream may be free.
_STREAM_RETRY = 5

_FULL = {
    long_poll.WaitPlace.ROOM: "This process of the gateway serves its maximum number of long polls and event streams.",
    long_poll.WaitPlace.SHARE: "This principal has its share of the long polls and event streams that a process of the gateway serves.",
}


class TaskViews:
    """The operations on tasks.

    Args:
        tasks: the records.
        intake: takes tasks in.
        room: places of long polls and event streams.
        result_ttl: seconds for which a record is retained after its end.
    """

    def __init__(
        self,
        *,
        tasks: TaskStore,
        intake: Intake,
        room: long_poll.WaitingRoom,
        result_ttl: float,
    ) -> None:
        self._tasks = tasks
        self._intake = intake
        self._room = room
        self._result_ttl = result_ttl

    @operation(
        Operation(
            "POST", "/v1/tasks", "submitTask", "Tasks", "Submit a task",
            (
                ResponseSpec(
                    202, "Recorded, confirmed by the broker and routed: the task will reach SUCCESS or FAIL.",
                    response_models.TaskModel, ("Location", "Retry-After", "Idempotent-Replayed"),
                ),
            ),
            scope=api_keys.TASKS_WRITE,
            description="After any 4xx or 5xx but `publish-unconfirmed` the task never runs. "
            "An `Idempotency-Key` makes a repeated request safe.",
            body=request_models.SubmitBody,
            headers=("Idempotency-Key",),
            direct=True,
            problems=(
                "invalid-idempotency-key", "idempotency-key-in-progress", "idempotency-key-reused", "unknown-task-type",
                "queue-depth-exceeded", "gateway-busy", "broker-unavailable", "publish-unroutable", "publish-unconfirmed",
            ),
        )
    )  # fmt: skip
    def submit(self) -> Reply:
        """Validate, admit and accept a task."""
        accepted = self._intake.take(self._read())
        record = accepted.record
        context.current().task_id = record.task_id
        body = context.task_json(record)
        more = {"Location": body["statusUrl"], "Retry-After": str(long_poll.retry_after(record) or 1)}
        if accepted.replayed:
            more["Idempotent-Replayed"] = "true"
        return json_reply(body, 202, more)

    @operation(
        Operation(
            "GET", "/v1/tasks/{taskId}", "getTask", "Tasks", "Get a task",
            (
                ResponseSpec(
                    200, "Its current state.", response_models.TaskModel,
                    ("ETag", "Cache-Control", "Retry-After", "Preference-Applied"),
                ),
                ResponseSpec(304, "Unchanged.", None, ("ETag", "Cache-Control", "Retry-After", "Preference-Applied")),
            ),
            scope=api_keys.TASKS_READ,
            description="`Prefer: wait=N` waits up to 20 s for the next change. A response without `Preference-Applied` did "
            "not wait, because too many requests do: poll again after `Retry-After` seconds.",
            headers=("Prefer", "If-None-Match"),
            direct=True,
            problems=("task-not-found", "task-expired"),
        )
    )  # fmt: skip
    def get(self, task_id: str) -> Reply:
        """A task of the principal, now or at its next change."""
        request, record = context.current(), self._readable(task_id)
        known = request.header("HTTP_IF_NONE_MATCH")
        more = {}
        seconds = headers.preferred_wait(request.header("HTTP_PREFER"))
        if seconds:
            record, applied = self._wait(record, known, seconds)
            more = {"Preference-Applied": f"wait={seconds}"} if applied else {}
        etag = long_poll.etag(record)
        more |= {"ETag": f'"{etag}"'}
        delay = long_poll.retry_after(record)
        if delay is not None:
            more["Retry-After"] = str(delay)
        if headers.etag_matches(known, etag):
            return Reply(status=304, headers=more)
        return json_reply(task_access.shown(record), headers=more)

    @operation(
        Operation(
            "GET", "/v1/tasks/{taskId}/events", "listEvents", "Tasks", "List the hops of a task, oldest first",
            (
                ResponseSpec(
                    200, "Every hop so far; as a stream also future ones.", list[response_models.EventModel], ("Cache-Control",),
                    also=event_stream.MEDIA_TYPE,
                ),
                ResponseSpec(204, "The stream of an ended task to a client that has received every event: do not reconnect."),
            ),
            scope=api_keys.TASKS_READ,
            description="With `Accept: text/event-stream` a stream of server-sent events: `id` is the hop's `seq`, `event` "
            "its `kind`, `data` the hop. It resumes after `Last-Event-ID` and closes when the task has ended.",
            headers=("Last-Event-ID",),
            problems=("task-not-found", "task-expired", "stream-capacity"),
        )
    )  # fmt: skip
    def events(self, task_id: str) -> Response | Reply:
        """The hops of a task of the principal."""
        record = self._readable(task_id)
        media_type = flask.request.accept_mimetypes.best_match(["application/json", event_stream.MEDIA_TYPE])
        return (
            self._stream(record)
            if media_type == event_stream.MEDIA_TYPE
            else json_reply(self._tasks.hops(record.task_id))
        )

    # --- the steps -------------------------------------------------------------------------------
    def _read(self) -> Submission:
        """Parse and validate the request; raises Problem."""
        raw = validation.read_body()
        given = context.current().header("HTTP_IDEMPOTENCY_KEY")
        valid = heavy.run(
            len(raw), functools.partial(self._valid, raw, context.principal().scopes, keyed=given is not None)
        )
        return self._intake.submission(valid, given, context.current().charge)

    def _valid(self, raw: bytes, scopes: Collection[str], *, keyed: bool) -> Valid:
        """What a body asks for; raises Problem. Pure."""
        body = validation.parse(request_models.SubmitBody, validation.parse_object(raw), text=raw)
        return self._intake.valid(body, scopes, keyed=keyed)

    def _wait(self, record: Record, known: str | None, seconds: int) -> tuple[Record, bool]:
        """Wait for a change that the client has not seen; without a place to wait return the record unchanged."""
        changed_already = known is not None and not headers.etag_matches(known, long_poll.etag(record))
        if changed_already or record.state.terminal:
            return record, True
        who = context.principal().id
        if self._room.enter(who, long_poll.POLL) is not long_poll.WaitPlace.TAKEN:
            return record, False
        started = time.monotonic()
        try:
            changed = self._tasks.wait(record.task_id, record.revision, seconds, self._cancellation())
        finally:
            self._room.leave(who, long_poll.POLL)
            context.current().waited = time.monotonic() - started
        auth.still_authorised()
        return changed or record, True

    def _stream(self, record: Record) -> Response:
        seen = event_stream.last_event(flask.request.headers.get("Last-Event-ID"))
        if record.state.terminal and seen and all(hop["seq"] <= seen for hop in self._tasks.hops(record.task_id)):
            return Response(status=204)
        who = context.principal().id
        place = self._room.enter(who, long_poll.STREAM)
        if place is not long_poll.WaitPlace.TAKEN:
            raise Problem("stream-capacity", _FULL[place], retry_after=_STREAM_RETRY)
        events = event_stream.follow(self._tasks, record, seen, self._cancellation())
        response = Response(events, mimetype=event_stream.MEDIA_TYPE)
        response.headers["X-Accel-Buffering"] = "no"  # nginx would buffer events
        response.call_on_close(functools.partial(self._room.leave, who, long_poll.STREAM))
        return response

    def _cancellation(self) -> Callable[[], bool]:
        """Whether the response is no longer needed, or its client may no longer have it."""
        unneeded, lapsed = long_poll.cancellation(), auth.lapse()
        return lambda: unneeded() or lapsed()

    def _readable(self, task_id: str) -> Record:
        """A task that the principal may read."""
        read = functools.partial(self._tasks.get, rider=context.current().charge)
        return task_access.find(read, task_id, self._result_ttl)
