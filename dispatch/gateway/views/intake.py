"""From a request's body to an accepted task: validate, admit, accept. The same for one task and for each of a batch."""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from dispatch.config import api_keys, type_scopes
from dispatch.config.groups import HandlerSettings
from dispatch.errors import InDoubt, Nacked, PublishError, StoreError
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import auth, context, headers, jsonbody, validation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.views import later, webhook_options
from dispatch.protocol import concurrency
from dispatch.protocol.record import State
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.scripts import Rider
from dispatch.store.tasks import TaskStore
from dispatch.submission.submitter import Accepted, Submission, Submitter
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger, metrics

log = logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Valid:
    """What a body asks for, validated."""

    type: TaskType
    payload: dict[str, Any]
    options: request_models.SubmitOptions | None
    fingerprint: str  #: empty without an Idempotency-Key


class Intake:
    """Takes tasks in. Thread-safe.

    Args:
        tasks: the records.
        submitter: accepts tasks.
        types: the task types by name.
        idempotency: looks Idempotency-Keys up, to recognise repeated requests.
        guard: the limit of the queue depth.
        allowance: whether a principal may submit a task.
        longest_delay: seconds for which a task can be delayed.
        settings: where webhooks may go.
    """

    def __init__(
        self,
        *,
        tasks: TaskStore,
        submitter: Submitter,
        types: Mapping[str, TaskType],
        idempotency: IdempotencyKeys,
        guard: Guard,
        allowance: Callable[[str], Allowance],
        longest_delay: int,
        settings: HandlerSettings,
    ) -> None:
        self._tasks = tasks
        self._submitter = submitter
        self._types = types
        self._idempotency = idempotency
        self._guard = guard
        self._longest_delay = longest_delay
        self._settings = settings
        self.allowance = allowance

    def valid(self, body: request_models.SubmitBody, scopes: Collection[str], *, keyed: bool) -> Valid:
        """Validate a body's type and payload. Pure.

        Args:
            body: as parsed.
            scopes: of the principal.
            keyed: it came with an Idempotency-Key.

        Raises:
            Problem: of the client's making.
        """
        task_type = self._types.get(body.type) or self._unknown(body.type)
        if not type_scopes.permits_type(scopes, api_keys.TASKS_WRITE, task_type.name):
            raise auth.insufficient(f"{api_keys.TASKS_WRITE}:{task_type.name}")
        payload = validation.parse(task_type.payload, body.payload, "/payload", text=orjson.dumps(body.payload))
        options = body.options if body.options.model_fields_set else None
        return Valid(
            task_type,
            payload.model_dump(mode="json", by_alias=True, exclude_unset=True),  # no defaults for absent fields
            options,
            _fingerprint(body, options) if keyed else "",
        )

    def submission(self, valid: Valid, key: str | None, rider: Rider | None) -> Submission:
        """The submission of the current request's principal; raises Problem.

        Args:
            valid: what is asked for.
            key: its Idempotency-Key, as it was sent.
            rider: goes along with the first command to Redis.
        """
        try:
            key = headers.idempotency_key(key)
        except headers.InvalidIdempotencyKey as exc:
            raise Problem("invalid-idempotency-key", str(exc)) from exc
        request, options = context.current(), valid.options
        return Submission(
            principal=context.principal().id,
            type=valid.type,
            payload=valid.payload,
            fingerprint=valid.fingerprint,
            idempotency_key=key,
            request_id=request.request_id,
            traceparent=request.traceparent,
            rider=rider,
            wakes_at=later.wakes_at(options, time.time(), self._longest_delay) if options else 0,
            deadline=(options.deadline_seconds or 0) if options else 0,
            concurrency_key=_clients_key(valid.type, options),
            labels=options.labels if options else {},
            webhook=webhook_options.webhook(options.webhook, self._settings) if options and options.webhook else None,
        )

    def take(self, submission: Submission) -> Accepted:
        """Admit and accept a task; counts it.

        Raises:
            Problem: it was refused.
            PublishError: as `Submitter.submit`.
            StoreError: the same.
        """
        self._admit(submission)
        accepted = self._accept(submission)
        record = accepted.record
        if not accepted.replayed:
            if record.state is not State.DELAYED:
                self._guard.of(record.type).accepted()
            metrics.ACCEPTED.inc(metrics.type_label(record.type))
        return accepted

    def _unknown(self, name: str) -> TaskType:
        nearest = difflib.get_close_matches(name, self._types, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See /v1/task-types."
        error = FieldError("/type", f"There is no task type with that name. {hint}", "unknown_task_type")
        raise Problem("unknown-task-type", error.detail, errors=[error], nearest=nearest)

    def _admit(self, submission: Submission) -> None:
        allowance = self.allowance(submission.principal)
        context.current().allowance = allowance.headers
        guard = self._guard.of(submission.type.name)
        refusal = guard.refusal() if guard.full() else allowance.refusal
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
        except Nacked as exc:  # its lane's queue is full
            raise self._guard.of(submission.type.name).refusal() from exc
        except (PublishError, StoreError):
            raise
        except Exception as exc:
            # A 500 would promise that the task never runs; after an unexpected error that is unknown.
            log.exception("unexpected error while submitting a task")
            raise InDoubt from exc


def _fingerprint(body: request_models.SubmitBody, options: request_models.SubmitOptions | None) -> str:
    """Without options as before there were any: a repeat that a newer gateway gets is the same request."""
    given = options.model_dump(mode="json", by_alias=True, exclude_defaults=True) if options else {}
    more = {"options": given} if given else {}
    return jsonbody.fingerprint("POST", {"type": body.type, "payload": body.payload, **more})


def _clients_key(task_type: TaskType, options: request_models.SubmitOptions | None) -> str:
    if options is None or options.concurrency_key is None:
        return ""
    if task_type.concurrency_key is not None:
        error = FieldError("/options/concurrencyKey", "The task type makes the key of its tasks.", "key_of_type")
        raise validation.invalid(error)
    return concurrency.clients_name(context.principal().id, options.concurrency_key)
