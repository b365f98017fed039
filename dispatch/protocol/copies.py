"""The next copy of a task, from the copy before it. Pure."""

from __future__ import annotations

import time
from typing import Any

from dispatch.protocol import delays, names
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.fingerprints import fingerprint
from dispatch.protocol.message import (
    ATTEMPT,
    CHECKPOINT,
    CYCLE,
    DEAD_ID,
    DEAD_REASON,
    DEADLINE,
    DEADLINE_AT,
    ERROR_FINGERPRINT,
    FAILED_AT,
    LAST_ERROR,
    LAST_ERROR_TYPE,
    MAX_ERROR,
    QUEUED_AT,
    RETRY_QUEUE,
    SEQ,
    STEP,
    STEP_AT,
    WAITING_SINCE,
    Copy,
    Message,
)
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import HOLD_RUNG, LEASE_RUNG, Dead, Decision, Failure, FailureKind, Ladder, Retry
from dispatch.protocol.sealing import UNSEALED, Sealing


def next_copy(
    message: Message, failure: Failure, decision: Decision, failed_at: int, *, error_fingerprint: str | None = None
) -> Copy:
    """The copy that a decision asks for.

    Args:
        message: the copy whose attempt failed.
        failure: how.
        decision: what happens next.
        failed_at: epoch milliseconds.
        error_fingerprint: of the error, where its message is sealed; by default it is made from the message.

    Returns:
        The copy: body untouched, next seq, for `Retry` also the next attempt.
    """
    failed = {
        SEQ: message.seq + 1,
        LAST_ERROR_TYPE: failure.type,
        LAST_ERROR: failure.message[:MAX_ERROR],
        ERROR_FINGERPRINT: error_fingerprint or fingerprint(failure.message),
        FAILED_AT: failed_at,
        "retries": message.attempt - (failure.kind is FailureKind.OVERDUE),
    }
    key = names.routed_key(message.routing_key, message.type)
    if isinstance(decision, Dead):
        dead = message.with_headers(RETRY_QUEUE, **failed, **{DEAD_REASON: decision.reason.value})
        return Copy(dead, names.DEAD_EXCHANGE, key, names.DEAD_QUEUE)
    attempt = message.attempt + isinstance(decision, Retry)
    rung = decision.rung.name
    queued = failed_at + int(decision.rung.seconds * 1_000)
    changes = {**failed, ATTEMPT: attempt, RETRY_QUEUE: rung, QUEUED_AT: queued}
    waiting = message.with_headers(DEAD_REASON, **changes)
    return Copy(waiting, names.RETRY_EXCHANGE, key, names.rung_queue(rung))


def parked_copy(message: Message) -> Copy:
    """The same copy for the lease queue: no attempt and no seq is used up."""
    key = names.routed_key(message.routing_key, message.type)
    return Copy(message.with_headers(**{RETRY_QUEUE: LEASE_RUNG}), names.RETRY_EXCHANGE, key, names.LEASE_QUEUE)


def held_copy(message: Message, ttl: float) -> Copy:
    """The next copy of one that may not run yet, for the hold queue: next seq, same attempt.

    Args:
        message: the copy.
        ttl: seconds after which it leaves the hold queue by itself.
    """
    headers = {SEQ: message.seq + 1, RETRY_QUEUE: HOLD_RUNG, QUEUED_AT: _now() + int(ttl * 1_000)}
    key = names.routed_key(message.routing_key, message.type)
    return Copy(message.with_headers(**headers), names.RETRY_EXCHANGE, key, names.HOLD_QUEUE)


def delayed_copy(message: Message, seconds: int) -> Copy:
    """The same copy for the delay levels; after the delay it is in the work queue.

    Args:
        message: the copy.
        seconds: at least 1, and as `dispatch.protocol.delays.whole_seconds` returns them.
    """
    level = delays.entry(seconds)
    # Whatever could not leave the levels would lie there for ever: its key must reach the work queue.
    key = names.routed_key(message.routing_key, message.type)
    delayed = message.with_headers(**delays.bits(seconds))
    return Copy(delayed, names.delay_exchange(level), key, names.delay_queue(level))


def step_copy(message: Message, checkpoint: str | None, seconds: int, at: int, *, attempt: int = 1) -> Copy:
    """The copy of the next step, after a wait: next seq, and the whole ladder before it, since a step has succeeded.

    Args:
        message: the copy whose step ended in the wait.
        checkpoint: what the next step finds, as its header has it; None: nothing.
        seconds: the wait, as `dispatch.protocol.delays.whole_seconds` returns it; 0: none.
        at: epoch milliseconds of its begin.
        attempt: that the step begins with; that of the message where failures before the wait still count.
    """
    changes: dict[str, Any] = {
        SEQ: message.seq + 1, STEP: message.step + 1, ATTEMPT: attempt, "retries": attempt - 1,
        WAITING_SINCE: at, STEP_AT: at + seconds * 1_000, QUEUED_AT: at + seconds * 1_000,
    }  # fmt: skip
    if checkpoint is not None:
        changes[CHECKPOINT] = checkpoint
    gone = (RETRY_QUEUE, DEAD_REASON, LAST_ERROR, LAST_ERROR_TYPE, ERROR_FINGERPRINT, FAILED_AT, CHECKPOINT)
    following = message.with_headers(*gone, **changes)
    if seconds:
        return delayed_copy(following, seconds)
    key = names.routed_key(message.routing_key, message.type)
    return Copy(following, names.TASK_EXCHANGE, key, names.WORK_QUEUE)


def wait_of(copy: Copy, ladder: Ladder) -> float:
    """Seconds that a copy waits on its rung or in the delay levels; 0 of any other."""
    rung = next((rung.seconds for rung in ladder.rungs if copy.queue == names.rung_queue(rung.name)), 0.0)
    return rung or float(delays.seconds_of(copy.message.headers))


def dead_copy(
    message: Message, reason: Reason, error: str, *, error_type: str | None = None, dead_id: str | None = None
) -> Copy:
    """The dead letter of a message that no handler can run: as it came, with the reason.

    Args:
        message: as it came.
        reason: why no handler can run it.
        error: what is wrong with it, for operators.
        error_type: the reason by default.
        dead_id: for a message without a usable task id.
    """
    headers: dict[str, Any] = {
        DEAD_REASON: reason.value,
        LAST_ERROR_TYPE: error_type or reason.value,
        LAST_ERROR: error[:MAX_ERROR],
        ERROR_FINGERPRINT: fingerprint(error),
        FAILED_AT: _now(),
        **({DEAD_ID: dead_id} if dead_id else {}),
    }
    key = message.routing_key or names.ROUTING_KEY
    return Copy(message.with_headers(RETRY_QUEUE, **headers), names.DEAD_EXCHANGE, key, names.DEAD_QUEUE)


def redriven_copy(dead_letter: Message) -> Copy:
    """The first copy of a dead letter's next cycle: same task id, same trace, next seq, first attempt, a deadline as long as the last."""
    now = _now()
    until = {DEADLINE_AT: now + dead_letter.number(DEADLINE)} if dead_letter.deadline_at else {}
    fresh = dead_letter.with_headers(
        RETRY_QUEUE,
        WAITING_SINCE,
        DEAD_REASON,
        LAST_ERROR,
        LAST_ERROR_TYPE,
        ERROR_FINGERPRINT,
        FAILED_AT,
        **{CYCLE: dead_letter.cycle + 1, SEQ: dead_letter.seq + 1, ATTEMPT: 1, "retries": 0, QUEUED_AT: now, **until},
    )
    key = names.routed_key(dead_letter.routing_key, dead_letter.type)
    return Copy(fresh, names.TASK_EXCHANGE, key, names.WORK_QUEUE)


def resent_copy(record: Record, sealing: Sealing = UNSEALED) -> Copy | None:
    """The copy that takes the place of the one on its way: next seq, same attempt, to the work queue.

    For a task that the broker lost, and for one whose wait ends before its time. Its headers are those of the copy that it
    replaces: a message alone must be enough to run the task.

    Args:
        record: whole.
        sealing: of the last error.

    Returns:
        The copy; None without the task's message. A decided copy that is not confirmed counts as one on its way.
    """
    if record.decision is not None:
        decided = Copy.from_json(record.decision).message
        again = decided.with_headers(**{SEQ: decided.seq + 1, QUEUED_AT: _now()})
    elif record.message is not None:
        gone = (RETRY_QUEUE, DEAD_REASON, WAITING_SINCE, CHECKPOINT)
        again = record.message.with_headers(*gone, **_headers_on_its_way(record, sealing))
    else:
        return None
    key = names.routed_key(again.routing_key, record.type)
    return Copy(again, names.TASK_EXCHANGE, key, names.WORK_QUEUE)


def _headers_on_its_way(record: Record, sealing: Sealing) -> dict[str, Any]:
    before = record.state is State.WAITING or (record.state is State.HELD and record.copy_attempt is not None)
    attempt = max(1, record.copy_attempt or 0, 0 if before else record.attempt)  # before: of the step before, perhaps
    headers: dict[str, Any] = {
        CYCLE: record.cycle, SEQ: record.seq + 1, ATTEMPT: attempt, "retries": attempt - 1, QUEUED_AT: _now(),
    }  # fmt: skip
    if record.deadline_at:  # this cycle's; the message is the first one's
        headers[DEADLINE_AT] = record.deadline_at
    headers |= step_headers(record)
    waits = record.state is State.RETRY_WAIT
    if record.error is not None and (waits or attempt > 1):  # a redrive leaves the error of the cycle before there
        error = sealing.seal_error(record.error.message)
        headers |= {LAST_ERROR_TYPE: record.error.type, LAST_ERROR: error[:MAX_ERROR]}
        headers[ERROR_FINGERPRINT] = record.error_fingerprint or sealing.error_fingerprint(record.error.message)
    if waits and record.rung:
        headers |= {FAILED_AT: record.updated_at, RETRY_QUEUE: record.rung}
    return headers


def step_headers(record: Record) -> dict[str, Any]:
    """Where a task is between its waits, for a copy that is made from its record; nothing of a task that has not waited."""
    if not record.step:
        return {}
    checkpoint = {} if record.checkpoint is None else {CHECKPOINT: record.checkpoint}
    return {STEP: record.step, STEP_AT: _now(), **checkpoint}


def _now() -> int:
    return int(time.time() * 1_000)
