"""``/v1/tasks``: submit, get, follow."""

from __future__ import annotations

import difflib
import functools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import flask
import orjson
from flask import Response

from dispatch.config import api_keys, type_scopes
from dispatch.errors import InDoubt, PublishError, StoreError
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.contract import models
from dispatch.gateway.http import auth, context, headers, heavy, jsonbody, long_poll, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import event_stream, later, task_access
from dispatch.protocol.record import Record, State
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.tasks import TaskStore
from dispatch.submission.submitter import Accepted, Submission, Submitter
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Seconds after which a place for a stream may be free.
_STREAM_RETRY = 5

_FULL = {
    long_poll.Place.ROOM: "This process of the gateway serves its maximum number of long polls and event streams.",
    long_poll.Place.SHARE: "This principal has its share of the long polls and event streams that a process of the gateway serves.",
}


class TaskViews:
    """The operations on tasks.

    Args:
        tasks: the records.
        submitter: accepts tasks.
        types: the task types by name.
        idempotency: looks Idempotency-Keys up, to recognise repeated requests.
        guard: the limit of the queue depth.
        room: places of long polls and event streams.
        allowance: whether a principal may submit a task.
        result_ttl: seconds for which a record is retained after its end.
        longest_delay: seconds for which a task can be delayed.
    """

    def __init__(
        self,
        *,
        tasks: TaskStore,
        submitter: Submitter,
        types: Mapping[str, TaskType],
        idempotency: IdempotencyKeys,
        guard: Guard,
        room: long_poll.WaitingRoom,
        allowance: Callable[[str], Allowance],
        result_ttl: float,
        longest_delay: int,
    ) -> None:
        self._tasks = tasks
        self._submitter = submitter
        self._types = types
        self._idempotency = idempotency
        self._guard = guard
        self._room = room
        self._allowance = allowance
        self._result_ttl = result_ttl
        self._longest_delay = longest_delay

    @operation(
        Operation(
            "POST", "/v1/tasks", "submitTask", "Tasks", "Submit a task",
            (
                ResponseSpec(
                    202, "Recorded, confirmed by the broker and routed: the task will reach SUCCESS or FAIL.",
                    models.TaskModel, ("Location", "Retry-After", "Idempotent-Replayed"),
                ),
            ),
            scope=api_keys.TASKS_WRITE,
            description="After any 4xx or 5xx but `publish-unconfirmed` the task never runs. "
            "An `Idempotency-Key` makes a repeated request safe.",
            body=models.SubmitBody,
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
        submission = self._read()
        self._admit(submission)
        accepted = self._accept(submission)
        record = accepted.record
        if not accepted.replayed:
            if record.state is not State.DELAYED:
                self._guard.accepted()
            metrics.ACCEPTED.inc(metrics.type_label(record.type))
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
                    200, "Its current state.", models.TaskModel,
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
                    200, "Every hop so far; as a stream also future ones.", list[models.EventModel], ("Cache-Control",),
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
        task_type, payload, options, fingerprint = heavy.run(
            len(raw), functools.partial(self._validate, raw, context.principal().scopes, keyed=given is not None)
        )
        try:
            key = headers.idempotency_key(given)
        except headers.InvalidIdempotencyKey as exc:
            raise Problem("invalid-idempotency-key", str(exc)) from exc
        return Submission(
            principal=context.principal().id,
            type=task_type,
            payload=payload,
            fingerprint=fingerprint,
            idempotency_key=key,
            request_id=context.current().request_id,
            traceparent=context.current().traceparent,
            rider=context.current().charge,
            wakes_at=later.wakes_at(options, time.time(), self._longest_delay) if options else 0,
            deadline=(options.deadline_seconds or 0) if options else 0,
            labels=options.labels if options else {},
        )

    def _validate(
        self, raw: bytes, scopes: Collection[str], *, keyed: bool
    ) -> tuple[TaskType, dict[str, Any], models.SubmitOptions | None, str]:
        """A body's task type, payload, options if any, and with an Idempotency-Key its fingerprint; raises Problem. Pure."""
        body = validation.parse(models.SubmitBody, validation.parse_object(raw), text=raw)
        task_type = self._types.get(body.type) or self._unknown(body.type)
        if not type_scopes.permits_type(scopes, api_keys.TASKS_WRITE, task_type.name):
            raise auth.insufficient(f"{api_keys.TASKS_WRITE}:{task_type.name}")
        payload = validation.parse(task_type.payload, body.payload, "/payload", text=orjson.dumps(body.payload))
        options = body.options if body.options.model_fields_set else None
        return (
            task_type,
            payload.model_dump(mode="json", by_alias=True, exclude_unset=True),  # no defaults for absent fields
            options,
            _fingerprint(body, options) if keyed else "",
        )

    def _unknown(self, name: str) -> TaskType:
        nearest = difflib.get_close_matches(name, self._types, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See /v1/task-types."
        error = FieldError("/type", f"There is no task type with that name. {hint}", "unknown_task_type")
        raise Problem("unknown-task-type", error.detail, errors=[error], nearest=nearest)

    def _admit(self, submission: Submission) -> None:
        allowance = self._allowance(submission.principal)
        context.current().allowance = allowance.headers
        refusal = self._guard.refusal() if self._guard.full() else allowance.refusal
        if submission.wakes_at and submission.wakes_at <= time.time() * 1_000:
            refusal = later.past()
        # "It never runs" would be a lie about a repeat of an accepted task: it is answered from its record, also when the time that
        # it was submitted for has come meanwhile.
        if refusal is not None and not self._repeats(submission):
            raise refusal

    def _repeats(self, submission: Submission) -> bool:
        key = submission.idempotency_key
        holder = None if key is None else self._idempotency.find(submission.principal, key)
        if (
            holder is None or not holder.confirmed
        ):  # unconfirmed: in progress, or cut off after it may have been published
            return holder is not None
        record = self._tasks.get(holder.task_id)
        return record is not None and record.state is not State.REJECTED  # otherwise this request makes a new task

    def _accept(self, submission: Submission) -> Accepted:
        try:
            return self._submitter.submit(submission)
        except (PublishError, StoreError):
            raise
        except Exception as exc:
            # A 500 would promise that the task never runs; after an unexpected error that is unknown.
            log.exception("unexpected error while submitting a task")
            raise InDoubt from exc

    def _wait(self, record: Record, known: str | None, seconds: int) -> tuple[Record, bool]:
        """Wait for a change that the client has not seen; without a place to wait return the record unchanged."""
        changed_already = known is not None and not headers.etag_matches(known, long_poll.etag(record))
        if changed_already or record.state.terminal:
            return record, True
        who = context.principal().id
        if self._room.enter(who, long_poll.POLL) is not long_poll.Place.TAKEN:
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
        if place is not long_poll.Place.TAKEN:
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


def _fingerprint(body: models.SubmitBody, options: models.SubmitOptions | None) -> str:
    """Without options as before there were any: a repeat that a newer gateway gets is the same request."""
    given = options.model_dump(mode="json", by_alias=True, exclude_defaults=True) if options else {}
    more = {"options": given} if given else {}
    return jsonbody.fingerprint("POST", {"type": body.type, "payload": body.payload, **more})
