"""``/v1/tasks``: submit, get, list, follow."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.errors import InDoubt, PublishError, StoreError
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.contract import models
from dispatch.gateway.http import context, headers, jsonbody, long_poll, validation
from dispatch.gateway.http.context import json_response
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.submission import Accepted, Submission, Submitter
from dispatch.gateway.views import event_stream
from dispatch.protocol import ids
from dispatch.protocol.record import Record
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Seconds after which a stream slot may be free.
_STREAM_RETRY = 5


class TaskViews:
    """The operations on tasks.

    Args:
        tasks: the records.
        submitter: accepts tasks.
        types: the task types by name.
        idempotency: looks Idempotency-Keys up, to recognise repeated requests.
        guard: the limit of the queue depth.
        slots: limit of long polls.
        stream_slots: limit of event streams.
        result_ttl: seconds for which a record is retained after its end.
    """

    def __init__(
        self,
        *,
        tasks: TaskStore,
        submitter: Submitter,
        types: Mapping[str, TaskType],
        idempotency: IdempotencyKeys,
        guard: Guard,
        slots: long_poll.Slots,
        stream_slots: long_poll.Slots,
        result_ttl: float,
    ) -> None:
        self._tasks = tasks
        self._submitter = submitter
        self._types = types
        self._idempotency = idempotency
        self._guard = guard
        self._slots = slots
        self._streams = stream_slots
        self._result_ttl = result_ttl

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
            problems=(
                "invalid-idempotency-key", "idempotency-key-in-progress", "idempotency-key-reused", "unknown-task-type",
                "queue-depth-exceeded", "broker-unavailable", "publish-unroutable", "publish-unconfirmed",
            ),
        )
    )  # fmt: skip
    def submit(self) -> Response:
        """Validate, admit and accept a task."""
        submission = self._read()
        self._admit(submission)
        accepted = self._accept(submission)
        record = accepted.record
        if not accepted.replayed:
            self._guard.accepted()
            metrics.ACCEPTED.inc(metrics.type_label(record.type))
        context.current().task_id = record.task_id
        body = context.task_json(record)
        more = {"Location": body["statusUrl"], "Retry-After": str(long_poll.retry_after(record) or 1)}
        if accepted.replayed:
            more["Idempotent-Replayed"] = "true"
        return json_response(body, 202, more)

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
            problems=("task-not-found", "task-expired"),
        )
    )  # fmt: skip
    def get(self, task_id: str) -> Response:
        """A task of the principal, now or at its next change."""
        record = self._own(task_id)
        known = flask.request.headers.get("If-None-Match")
        more = {}
        seconds = headers.preferred_wait(flask.request.headers.get("Prefer"))
        if seconds:
            record, applied = self._wait(record, known, seconds)
            more = {"Preference-Applied": f"wait={seconds}"} if applied else {}
        etag = long_poll.etag(record)
        more |= {"ETag": f'"{etag}"'}
        delay = long_poll.retry_after(record)
        if delay is not None:
            more["Retry-After"] = str(delay)
        if headers.etag_matches(known, etag):
            return Response(status=304, headers=more)
        return json_response(context.task_json(record), headers=more)

    @operation(
        Operation(
            "GET", "/v1/tasks", "listTasks", "Tasks", "List the principal's tasks, newest first",
            (ResponseSpec(200, "A page.", models.TaskListModel, ("Cache-Control",)),),
            scope=api_keys.TASKS_READ,
            description="A page may have fewer items than `limit` although `next` is not null: with a filter, or when results are "
            "large; a page ends after 1 MiB of them.",
            query=models.TaskQuery,
        )
    )  # fmt: skip
    def index(self) -> Response:
        """A page of the principal's tasks."""
        query = validation.read_query(models.TaskQuery)
        page = validation.page(
            lambda: self._tasks.list(
                principal=context.principal().id,
                status=query.status,
                state=query.state,
                type=query.type,
                limit=query.limit,
                cursor=query.cursor,
            )
        )
        return json_response({"items": [context.task_json(record) for record in page.items], "next": page.next})

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
    def events(self, task_id: str) -> Response:
        """The hops of a task of the principal."""
        record = self._own(task_id)
        media_type = flask.request.accept_mimetypes.best_match(["application/json", event_stream.MEDIA_TYPE])
        return (
            self._stream(record)
            if media_type == event_stream.MEDIA_TYPE
            else json_response(self._tasks.hops(record.task_id))
        )

    # --- the steps -------------------------------------------------------------------------------
    def _read(self) -> Submission:
        """Parse and validate the request; raises Problem."""
        document = validation.read_object()
        body = validation.parse(models.SubmitBody, document)
        task_type = self._types.get(body.type) or self._unknown(body.type)
        payload = validation.parse(task_type.payload, body.payload, "/payload")
        try:
            key = headers.idempotency_key(flask.request.headers.get("Idempotency-Key"))
        except headers.InvalidIdempotencyKey as exc:
            raise Problem("invalid-idempotency-key", str(exc)) from exc
        return Submission(
            principal=context.principal().id,
            type=task_type,
            payload=payload.model_dump(mode="json", by_alias=True, exclude_unset=True),  # no defaults for absent fields
            fingerprint=jsonbody.fingerprint("POST", {"type": body.type, "payload": body.payload}),
            idempotency_key=key,
            request_id=context.current().request_id,
            traceparent=context.current().traceparent,
        )

    def _unknown(self, name: str) -> TaskType:
        nearest = difflib.get_close_matches(name, self._types, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See /v1/task-types."
        error = FieldError("/type", f"There is no task type with that name. {hint}", "unknown_task_type")
        raise Problem("unknown-task-type", error.detail, errors=[error], nearest=nearest)

    def _admit(self, submission: Submission) -> None:
        # "It never runs" would be a lie about a repeat of an accepted task: it is answered from its record.
        if self._guard.full():
            repeat = submission.idempotency_key is not None and self._idempotency.known(
                submission.principal, submission.idempotency_key
            )
            if not repeat:
                raise self._guard.refusal()

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
        """Wait for a change that the client has not seen; without a free slot return the record unchanged."""
        changed_already = known is not None and not headers.etag_matches(known, long_poll.etag(record))
        if changed_already or record.state.terminal:
            return record, True
        if not self._slots.acquire():
            return record, False
        started = time.monotonic()
        try:
            changed = self._tasks.wait(record.task_id, record.revision, seconds, long_poll.cancellation())
        finally:
            self._slots.release()
            context.current().waited = time.monotonic() - started
        return changed or record, True

    def _stream(self, record: Record) -> Response:
        seen = event_stream.last_event(flask.request.headers.get("Last-Event-ID"))
        if record.state.terminal and seen and all(hop["seq"] <= seen for hop in self._tasks.hops(record.task_id)):
            return Response(status=204)
        if not self._streams.acquire():
            raise Problem("stream-capacity", retry_after=_STREAM_RETRY)
        events = event_stream.follow(self._tasks, record, seen, long_poll.cancellation())
        response = Response(events, mimetype=event_stream.MEDIA_TYPE)
        response.headers["X-Accel-Buffering"] = "no"  # nginx would buffer events
        response.call_on_close(self._streams.release)
        return response

    def _own(self, task_id: str) -> Record:
        """The principal's own task; a task of another principal is not found."""
        context.current().task_id = task_id if ids.is_task_id(task_id) else None
        record = self._tasks.get(task_id) if ids.is_task_id(task_id) else None
        if record is not None and record.principal == context.principal().id:
            return record
        issued_at = ids.issued_at(task_id)
        if record is None and issued_at is not None and issued_at < time.time() - self._result_ttl:
            raise Problem("task-expired")
        raise Problem("task-not-found")
