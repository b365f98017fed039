"""Pure decisions of sweeper and janitor, and the copies that follow from one another."""

import dataclasses

from dispatch.config.settings import load
from dispatch.errors import PermanentError, RetryableError, Throttled
from dispatch.maintenance.sweeper import CheckAt, Drop, Publish, Reject, Resend, next_step
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy, next_copy, parked_copy, redriven_copy, resent_copy
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason, is_stale, normalized, reason_of
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import AttemptFailed, Dead, Failure, FailureKind, Park, Retry, Rung
from dispatch.worker.outcomes import failure_of
from support.cases import each

SETTINGS = load({})
RUNG = Rung("5m", 300)
FAILURE = Failure(FailureKind.RETRYABLE, "upstream-timeout", "no answer")
MESSAGE = Message(
    b"[[{}],{},{}]",
    {"id": "t", "task": "robot.clean", "x-cycle": 0, "x-seq": 3, "x-attempt": 2, "x-death": [1], "traceparent": "tp"},
    routing_key="robot.task.dispatch.robot.clean",
)


def record(**changes):
    base = Record("t", "echo", "p", State.QUEUED, 0, 3, 1, 4, 7, 0, 0, message=MESSAGE)
    return dataclasses.replace(base, **changes)


def test_a_retry_is_the_next_seq_and_the_next_attempt_on_its_rung():
    copy = next_copy(MESSAGE, FAILURE, Retry(RUNG), 5)

    assert (copy.exchange, copy.queue) == (names.RETRY_EXCHANGE, "robot.retry.q.5m")
    assert copy.routing_key == MESSAGE.routing_key
    assert copy.message.body == MESSAGE.body
    assert copy.message.headers == {
        "id": "t", "task": "robot.clean", "x-cycle": 0, "x-seq": 4, "x-attempt": 3, "retries": 2, "retry-queue": "5m",
        "x-last-error-type": "upstream-timeout", "x-last-error": "no answer", "x-failed-at": 5, "x-queued-at": 300_005, "traceparent": "tp",
    }  # fmt: skip


def test_parking_on_a_rung_uses_up_no_attempt():
    copy = next_copy(MESSAGE, FAILURE, Park(RUNG), 5)

    assert (copy.message.seq, copy.message.attempt) == (4, 2)


def test_a_dead_copy_carries_its_reason():
    copy = next_copy(MESSAGE, FAILURE, Dead(Reason.PERMANENT), 5)

    assert (copy.exchange, copy.queue) == (names.DEAD_EXCHANGE, names.DEAD_QUEUE)
    assert copy.message.headers["x-dead-reason"] == "permanent"
    assert "retry-queue" not in copy.message.headers


def test_parking_behind_a_lease_changes_neither_seq_nor_attempt():
    copy = parked_copy(MESSAGE)

    assert (copy.message.seq, copy.message.attempt, copy.queue) == (3, 2, names.LEASE_QUEUE)


def test_a_redrive_is_the_next_cycle_of_the_same_task_and_trace():
    letter = next_copy(MESSAGE, FAILURE, Dead(Reason.PERMANENT), 5).message
    copy = redriven_copy(letter)

    assert copy.exchange == names.TASK_EXCHANGE
    assert (copy.message.task_id, copy.message.cycle, copy.message.seq, copy.message.attempt) == ("t", 1, 5, 1)
    assert copy.message.headers["traceparent"] == "tp"
    assert not any(name.startswith(("x-last", "x-dead", "x-failed")) for name in copy.message.headers)


def test_a_lost_retry_is_resent_with_the_attempt_that_it_authorised():
    copy = resent_copy(record(state=State.RETRY_WAIT, attempt=1, copy_attempt=2))

    assert copy is not None
    assert (copy.message.seq, copy.message.attempt) == (4, 2)


def test_a_poison_letter_gets_an_id_only_when_it_has_none():
    assert dead_copy(MESSAGE, Reason.MALFORMED, "x").message.task_id == "t"
    assert dead_copy(Message(b"", {}), Reason.MALFORMED, "x", dead_id="named").message.task_id == "named"


LEASE, GRACE = SETTINGS.lease, SETTINGS.unpublished_grace
SILENT = LEASE + SETTINGS.queue_ttl + SETTINGS.sweep_margin


@each(
    ("changes", "leased", "now", "step"),
    [
        ({"state": State.SUCCEEDED}, False, 0, Drop()),
        ({"state": State.DEAD_LETTERED}, False, 0, Drop()),
        ({"state": State.RUNNING}, True, 1e9, CheckAt(1e9 + LEASE)),
        ({"state": State.SCHEDULED, "published": False}, False, GRACE - 1, CheckAt(GRACE)),
        ({"state": State.SCHEDULED, "published": False}, False, GRACE, Reject()),
        ({"state": State.QUEUED}, False, SILENT - 1, CheckAt(SILENT)),
        ({"state": State.QUEUED}, False, SILENT, Resend()),
        ({"state": State.RUNNING}, False, SILENT, Resend()),
        ({"state": State.RETRY_WAIT, "next_attempt_at": 60_000}, False, SILENT, CheckAt(60 + SILENT)),
        ({"state": State.RETRY_WAIT, "next_attempt_at": 60_000}, False, 60 + SILENT, Resend()),
        ({"state": State.RUNNING, "decision": "{}"}, False, LEASE + GRACE - 1, CheckAt(LEASE + GRACE)),
        ({"state": State.RUNNING, "decision": "{}"}, False, LEASE + GRACE, Publish()),
        ({"state": State.SCHEDULED, "published": False, "decision": "{}"}, False, 1e9, Publish()),
    ],
)
def test_the_sweeper_acts_only_on_what_is_certain(changes, leased, now, step):
    assert next_step(record(**changes), leased=leased, now=now, settings=SETTINGS) == step


def test_the_sweeper_forgets_what_is_gone():
    assert next_step(None, leased=False, now=0, settings=SETTINGS) == Drop()


@each(
    ("kept", "stale"),
    [
        (None, False),
        (record(state=State.DEAD_LETTERED), False),
        (record(state=State.DEAD_LETTERED, discarded=True), True),
        (record(state=State.SUCCEEDED), True),
        (record(state=State.RUNNING), False),
        (record(state=State.QUEUED, cycle=1), True),
        (record(state=State.SCHEDULED, cycle=1, before_redrive=State.DEAD_LETTERED), False),
    ],
)
def test_a_letter_leaves_the_dlq_only_when_its_task_has_moved_on(kept, stale):
    assert is_stale(MESSAGE, kept) is stale


def test_a_filter_means_what_all_its_parts_mean():
    letter = MESSAGE.with_headers(**{"x-last-error-type": "upstream-timeout"})

    assert DeadLetterFilter().matches(letter)
    assert DeadLetterFilter("robot.clean", "upstream-timeout", "t").matches(letter)
    assert not DeadLetterFilter("echo").matches(letter)
    assert not DeadLetterFilter(error_type="other").matches(letter)
    assert not DeadLetterFilter(task_id="u").matches(letter)


@each(
    ("headers", "reason"),
    [
        ({"x-dead-reason": "permanent", "x-death": [{"reason": "expired"}]}, "permanent"),
        ({"x-death": [{"reason": "delivery_limit"}, {"reason": "expired"}]}, "delivery-limit"),
        ({"x-death": [{"reason": "expired"}]}, "expired"),
        ({"x-death": "junk"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_reason_of_a_death_is_the_last_one(headers, reason):
    assert reason_of(Message(b"", headers)) == reason


def test_an_unreadable_letter_becomes_readable():
    letter = normalized(Message(b"x", {"x-seq": 2**70, "x-cycle": "one"}))

    assert letter.task_id
    assert (letter.cycle, letter.seq) == (0, 0)


@each(
    ("error", "kind", "name"),
    [
        (PermanentError("no", type="bad-order"), FailureKind.PERMANENT, "bad-order"),
        (RetryableError("later", retry_after=3), FailureKind.RETRYABLE, "retryable"),
        (Throttled("busy"), FailureKind.THROTTLED, "throttled"),
        (ValueError("oops"), FailureKind.RETRYABLE, "ValueError"),
        (MemoryError(), FailureKind.RETRYABLE, "MemoryError"),
    ],
)
def test_an_error_says_what_the_router_must_do(error, kind, name):
    failure = failure_of(error)

    assert (failure.kind, failure.type) == (kind, name)
    assert AttemptFailed.of(failure).failure == failure


@each("error", [PermanentError("x" * 10**6, type="t" * 10**6), type("E" * 10**6, (Exception,), {})()])
def test_a_failure_fits_into_the_headers_of_its_next_copy(error):
    failure = failure_of(error)

    assert len(failure.type) + len(failure.message) < 2_500
