"""Submit a task: Idempotency-Key and record → publish, confirmed → mark → 202; or an error that is true.

Crash windows: see `dispatch.store.tasks`. What each failure leaves behind:

- before the publish was written, or returned: REJECTED, in no list, the key is free, the task never runs;
- nacked: the same, and a copy that got through all the same (an operator's binding leads to a second queue, which took it)
  finds CANCELLED at its claim;
- no verdict, or Redis gone after the publish began: unknown. The record stays unpublished; a worker's claim, a
  repeat of the key, or the sweeper decides.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from dispatch.broker.celery_producer import dispatch
from dispatch.broker.publisher import Publisher
from dispatch.crashpoints import reach
from dispatch.errors import InDoubt, NotSent, PublishError, StoreError, StoreFull, Unroutable
from dispatch.protocol import labels, names
from dispatch.protocol.copies import delayed_copy
from dispatch.protocol.delays import whole_seconds
from dispatch.protocol.ids import new_task_id, timestamp
from dispatch.protocol.message import (
    ACCEPTED_AT,
    ATTEMPT,
    CONCURRENCY_KEY,
    CYCLE,
    DEADLINE,
    DEADLINE_AT,
    LABELS,
    PARENT_ID,
    PRINCIPAL,
    QUEUED_AT,
    REQUEST_ID,
    SEQ,
    SHARD,
    TRACEPARENT,
    WAKES_AT,
    WEBHOOK,
    Message,
)
from dispatch.protocol.record import ErrorInfo, Record, State
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.protocol.shards import shard_of
from dispatch.protocol.webhooks import Webhook
from dispatch.store.idempotency import IdempotencyKeys, KeyHeld, KeyState, Reservation
from dispatch.store.scripts import Rider
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger, metrics

log = logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """A validated request for a task."""

    principal: str
    type: TaskType
    payload: dict[str, Any]  #: JSON-ready, as validated
    fingerprint: str  #: of the request; the same Idempotency-Key must come with the same one; empty without one
    idempotency_key: str | None
    request_id: str
    traceparent: str
    rider: Rider | None = None  #: goes along with the first command to Redis
    wakes_at: int = 0  #: epoch milliseconds before which it does not run; 0: at once
    deadline: int = 0  #: seconds, from its acceptance or `wakes_at` on, within which its last attempt must begin; 0: the type's, if it has one
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: see `dispatch.protocol.labels`
    concurrency_key: str = ""  #: name of the client's, where the type makes none
    task_id: str = ""  #: derived from what submits it, which may submit it again; empty: a new one
    parent_id: str = ""  #: the task that submits it: its handler, or its end
    webhook: Webhook | None = None  #: where its end is announced
    begun: Message | None = None  #: what an earlier submission with the same derived id recorded, and perhaps published


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """A task that will reach SUCCESS or FAIL."""

    record: Record
    replayed: bool  #: the Idempotency-Key had been used: this is the task of its first request


class Submitter:
    """The one way in. Thread-safe.

    Args:
        tasks: the records.
        idempotency: Idempotency-Keys.
        publisher: with confirms.
        celery_tasks: Celery's tasks by name, whose messages are published.
        ladders: of the task types.
        sealing: of the messages' bodies.
        later: with confirms, for delayed tasks: a broker without delay levels, or a user without the right to them, ends the
            connection, with whatever is in flight on it.
        shards: of the default lane.
    """

    def __init__(
        self,
        tasks: TaskStore,
        idempotency: IdempotencyKeys,
        publisher: Publisher,
        celery_tasks: Mapping[str, Any],
        ladders: Ladders,
        *,
        sealing: Sealing = UNSEALED,
        later: Publisher | None = None,
        shards: int = 1,
    ) -> None:
        self.shards = shards
        self._later = later or publisher
        self._tasks = tasks
        self._idempotency = idempotency
        self._publisher = publisher
        self._celery_tasks = celery_tasks
        self._ladders = ladders
        self._sealing = sealing

    def submit(self, submission: Submission) -> Accepted:
        """Accept a task.

        Args:
            submission: the request.

        Returns:
            The task's record.

        Raises:
            KeyReused: the key came with another request.
            KeyInProgress: the key's first request is still in flight.
            StoreUnavailable: nothing was published: it never runs.
            NotSent: the same.
            Nacked: the broker refused it: it never runs.
            Unroutable: the broker returned it: it never runs.
            InDoubt: unknown; has the attribute ``task_id``.
        """
        task_id, reservation = submission.task_id or new_task_id(), None
        if submission.idempotency_key is not None:
            if self._tasks.reserves:
                try:
                    return self._finish(_Attempt(self, submission, task_id, cut_off=False, reserves=True))
                except KeyHeld as held:
                    reservation = held.reservation
                except StoreFull:  # without memory, too, a repeat is answered
                    task_id = new_task_id()
            return self._repeated(submission, task_id, reservation)
        return self._finish(_Attempt(self, submission, task_id, cut_off=submission.begun is not None))

    def _repeated(self, submission: Submission, task_id: str, reservation: Reservation | None) -> Accepted:
        """A submission whose Idempotency-Key another one may have used."""
        key = submission.idempotency_key or ""
        if reservation is None:
            reservation = self._reserve(submission, key, task_id)
        reach("submit.key-reserved")
        task_id, begun = reservation.task_id, None
        if reservation.state is KeyState.REPLAY:
            record = self._tasks.get(task_id)
            if record is not None and record.state is not State.REJECTED:
                return Accepted(record, replayed=True)
            # The record has expired, so the key has too: this request is a new one.
            self._idempotency.release(submission.principal, key, task_id)
            return self.submit(submission)
        if reservation.state is KeyState.ADOPT:
            begun = self._tasks.get(task_id)
            if begun is not None and begun.wakes_at and begun.state is not State.WAITING:
                # Its delay began with the first request, whose copy may be in the delay levels.
                submission = dataclasses.replace(submission, wakes_at=begun.wakes_at)
        attempt = _Attempt(self, submission, task_id, cut_off=begun is not None)
        if begun is not None and begun.deadline_at:
            attempt.deadline_at = begun.deadline_at  # so did its deadline
        return self._finish(attempt)

    def _finish(self, attempt: _Attempt) -> Accepted:
        self._publish(attempt)
        record = self._tasks.get(attempt.task_id) if attempt.adopted else None
        return Accepted(record or self._accepted_record(attempt), replayed=attempt.adopted)

    def _reserve(self, submission: Submission, key: str, task_id: str) -> Reservation:
        delay = max(0.0, submission.wakes_at / 1_000 - time.time()) if submission.wakes_at else 0.0
        return self._idempotency.reserve(
            submission.principal, key, submission.fingerprint, task_id, submission.rider, delay=delay
        )

    def _publish(self, attempt: _Attempt) -> None:
        try:
            self._send(attempt)
        except InDoubt as exc:
            exc.task_id = attempt.task_id
            raise
        except PublishError as exc:
            self._refuse(attempt, exc)
        except StoreError as exc:
            if not attempt.written and not attempt.cut_off:
                raise
            # This publish, or that of an earlier request with the key, may stand: the client must not read that it failed.
            doubt = InDoubt("the task may have been published, but Redis did not answer")
            doubt.task_id = attempt.task_id
            raise doubt from exc

    def _send(self, attempt: _Attempt) -> None:
        if (begun := attempt.submission.begun) is not None:
            attempt.persist_and_publish(begun, names.TASK_EXCHANGE, begun.routing_key)
            return
        dispatch(
            self._celery_tasks[attempt.submission.type.name],
            attempt.submission.payload,
            task_id=attempt.task_id,
            headers=attempt.headers,
            send=attempt.persist_and_publish,
            sealing=self._sealing,
        )

    def _refuse(self, attempt: _Attempt, exc: PublishError) -> None:
        """Reject the record, unless a worker has claimed a copy all the same: then it was accepted."""
        assert attempt.message is not None  # noqa: S101 - a publish error comes after the message
        error = ErrorInfo(_slug(exc), str(exc), retryable=True)
        key = attempt.submission.idempotency_key
        # With a key, or a derived id, another submission may have gone on with the task id meanwhile, and its copy be stored.
        certain = isinstance(exc, NotSent | Unroutable) and not attempt.submission.task_id
        try:
            refused = self._tasks.refuse(
                attempt.message, error=error, idempotency_key=key, stored_nowhere=certain and key is None
            )
        except StoreError as gone:
            # Provably not stored, so it never runs; the sweeper writes that into the record.
            log.warning("record not rejected yet", task_id=attempt.task_id, reason=str(gone))
            raise exc from gone
        if refused:
            raise exc

    def _accepted_record(self, attempt: _Attempt) -> Record:
        """The task as it was accepted, without another round trip."""
        now = attempt.accepted_at
        submission = attempt.submission
        return Record(
            task_id=attempt.task_id,
            type=submission.type.name,
            principal=submission.principal,
            state=attempt.state,
            cycle=0,
            seq=0,
            attempt=0,
            max_attempts=self._ladders.of(submission.type.name).attempts,
            revision=2,
            created_at=now,
            updated_at=now,
            wakes_at=submission.wakes_at or None,
            deadline_at=attempt.deadline_at or None,
            queue=attempt.queue,
            request_id=submission.request_id,
            traceparent=submission.traceparent,
            labels=submission.labels,
            concurrency_key=attempt.message.text(CONCURRENCY_KEY) if attempt.message else None,
            parent_id=submission.parent_id or None,
            webhook=None if submission.webhook is None else submission.webhook.to_json(),
        )

    # --- used by the attempt -------------------------------------------------------------------------
    def accept(self, message: Message, submission: Submission, *, reserves: bool) -> State:
        """Record the task, and reserve its Idempotency-Key with it where that is still to be done."""
        rides = reserves or submission.idempotency_key is None
        return self._tasks.accept(
            message,
            max_attempts=self._ladders.of(submission.type.name).attempts,
            idempotency_key=submission.idempotency_key,
            rider=submission.rider if rides else None,
            fingerprint=submission.fingerprint if reserves else None,
        )

    def send(self, message: Message, exchange: str, routing_key: str, *, later: bool) -> float:
        """Publish it; seconds until the confirm."""
        took = (self._later if later else self._publisher).publish(message, exchange, routing_key)
        metrics.CONFIRM.observe(took)
        return took

    def mark(self, message: Message, submission: Submission, **details: Any) -> bool:
        """Record the confirm."""
        return self._tasks.mark_published(
            message,
            max_attempts=self._ladders.of(submission.type.name).attempts,
            idempotency_key=submission.idempotency_key,
            fingerprint=submission.fingerprint,
            **details,
        )


class _Attempt:
    """One submission on its way."""

    def __init__(
        self, submitter: Submitter, submission: Submission, task_id: str, *, cut_off: bool, reserves: bool = False
    ) -> None:
        self._submitter = submitter
        self._reserves = reserves  #: its Idempotency-Key, with its record
        self.cut_off = cut_off  #: an earlier request with this key got as far as the record: its copy may be under way
        self.submission = submission
        self.task_id = task_id
        self.message: Message | None = None
        self.written = False  #: the publish began
        self.adopted = False  #: the record was there, from a request that was cut off after its publish
        self.state, self.queue = State.QUEUED, names.WORK_QUEUE  #: where its copy is, once it is confirmed
        self.accepted_at = int(time.time() * 1_000)
        self.deadline = 1_000 * (submission.deadline or submission.type.deadline or 0)  # milliseconds
        self.deadline_at = self.deadline and max(self.accepted_at, submission.wakes_at) + self.deadline
        self.headers = {
            CYCLE: 0,
            SEQ: 0,
            ATTEMPT: 1,
            REQUEST_ID: submission.request_id,
            TRACEPARENT: submission.traceparent,
            PRINCIPAL: submission.principal,
            ACCEPTED_AT: self.accepted_at,
        }

    def persist_and_publish(self, message: Message, exchange: str, routing_key: str) -> None:
        """Called by `apply_async` with the finished message."""
        if more := self._own_headers():  # after the template, which fits messages without
            message = dataclasses.replace(message, headers={**message.headers, **more})
        self.message = message
        state = self._submitter.accept(message, self.submission, reserves=self._reserves)
        reach("submit.recorded")
        if state is State.REJECTED:
            # A repeated key came after the sweeper: its copies are fenced off for good.
            raise NotSent("an earlier attempt with this key was given up; send the request again")
        self.written = True
        if self.submission.wakes_at and (left := self._left()):
            copy = delayed_copy(message, left)
            self.state, self.queue = State.DELAYED, copy.queue
            message, exchange, routing_key = copy.message, copy.exchange, copy.routing_key
        if state is State.SCHEDULED:
            confirm = round(self._send(message, exchange, routing_key) * 1_000, 3)
        else:  # a repeated key, and a worker has the task already
            self.adopted, confirm = True, None
        reach("submit.published")
        marked = self._submitter.mark(
            message,
            self.submission,
            queue=self.queue,
            state=self.state,
            sent_before=self.adopted,
            exchange=exchange,
            routingKey=routing_key,
            confirmMs=confirm,
            until=timestamp(self.submission.wakes_at) if self.state is State.DELAYED else None,
        )
        reach("submit.marked")
        if not marked:
            raise NotSent("it took too long: the sweeper had given the task up, it will not run")

    def _own_headers(self) -> dict[str, Any]:
        """Headers that only some tasks have; what was recorded before has them already."""
        submission = self.submission
        if submission.begun is not None:
            return {}
        given: dict[str, Any] = {}
        if submission.wakes_at:
            given = {WAKES_AT: submission.wakes_at, QUEUED_AT: submission.wakes_at}
        if self.deadline:
            given |= {DEADLINE: self.deadline, DEADLINE_AT: self.deadline_at}
        if key := submission.type.key_of(submission.payload) or submission.concurrency_key:
            given[CONCURRENCY_KEY] = key
        if self._submitter.shards > 1:
            given[SHARD] = str(shard_of(key or self.task_id, self._submitter.shards))
        if submission.labels:
            given[LABELS] = labels.written(submission.labels)
        if submission.parent_id:
            given[PARENT_ID] = submission.parent_id
        if submission.webhook is not None:
            given[WEBHOOK] = submission.webhook.written()
        return given

    def _left(self) -> int:
        """Whole seconds of its delay that are left now: a repeated Idempotency-Key may come long after the first request."""
        return whole_seconds(self.submission.wakes_at / 1_000 - time.time())

    def _send(self, message: Message, exchange: str, routing_key: str) -> float:
        try:
            return self._submitter.send(message, exchange, routing_key, later=self.state is State.DELAYED)
        except PublishError as exc:
            if self.cut_off and not isinstance(exc, InDoubt):
                # This copy was not stored; whether the earlier one was is as unknown as before.
                raise InDoubt(str(exc)) from exc
            raise


def _slug(exc: PublishError) -> str:
    names = {"Nacked": "queue-depth-exceeded", "Unroutable": "publish-unroutable"}
    return names.get(type(exc).__name__, "broker-unavailable")
