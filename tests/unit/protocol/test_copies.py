"""The copies of a task that follow from one another."""

import dataclasses
import time

from dispatch.protocol import names
from dispatch.protocol.copies import (
    dead_copy,
    next_copy,
    parked_copy,
    redriven_copy,
    resent_copy,
    step_copy,
    wait_of,
)
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.fingerprints import fingerprint
from dispatch.protocol.message import MAX_ERROR, Message
from dispatch.protocol.record import ErrorInfo, Record, State
from dispatch.protocol.retry import Dead, Failure, FailureKind, Ladder, Park, Retry, Rung

RUNG = Rung("5m", 300)
LADDER = Ladder((RUNG,))
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
        "x-last-error-type": "upstream-timeout", "x-last-error": "no answer", "x-error-fingerprint": fingerprint("no answer"),
        "x-failed-at": 5, "x-queued-at": 300_005, "traceparent": "tp",
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
    dead_letter = next_copy(MESSAGE, FAILURE, Dead(Reason.PERMANENT), 5).message
    copy = redriven_copy(dead_letter)

    assert copy.exchange == names.TASK_EXCHANGE
    assert (copy.message.task_id, copy.message.cycle, copy.message.seq, copy.message.attempt) == ("t", 1, 5, 1)
    assert copy.message.headers["traceparent"] == "tp"
    assert not any(name.startswith(("x-last", "x-dead", "x-failed")) for name in copy.message.headers)


def test_a_lost_retry_is_resent_with_the_attempt_that_it_authorised():
    copy = resent_copy(record(state=State.RETRY_WAIT, attempt=1, copy_attempt=2))

    assert copy is not None
    assert (copy.message.seq, copy.message.attempt) == (4, 2)


def test_a_poison_dead_letter_gets_an_id_only_when_it_has_none():
    assert dead_copy(MESSAGE, Reason.MALFORMED, "x").message.task_id == "t"
    assert dead_copy(Message(b"", {}), Reason.MALFORMED, "x", dead_id="named").message.task_id == "named"


def test_a_hand_over_takes_the_brokers_own_headers_away():
    copies = [
        next_copy(MESSAGE, FAILURE, Retry(RUNG), 5),
        parked_copy(MESSAGE),
        redriven_copy(MESSAGE),
        dead_copy(MESSAGE, Reason.MALFORMED, "x"),
        resent_copy(record()),
    ]

    assert [copy.message.headers.get("x-death") for copy in copies] == [None] * 5
    assert {copy.message.body for copy in copies} == {MESSAGE.body}


def test_an_error_in_a_header_is_cut():
    long = Failure(FailureKind.RETRYABLE, "boom", "x" * 10_000)

    assert len(next_copy(MESSAGE, long, Retry(RUNG), 5).message.headers["x-last-error"]) == MAX_ERROR
    assert len(dead_copy(MESSAGE, Reason.MALFORMED, "x" * 10_000).message.headers["x-last-error"]) == MAX_ERROR


def test_a_message_without_a_routing_key_gets_the_one_of_its_type():
    bare = dataclasses.replace(MESSAGE, routing_key="")

    assert next_copy(bare, FAILURE, Retry(RUNG), 5).routing_key == MESSAGE.routing_key
    assert parked_copy(bare).routing_key == MESSAGE.routing_key
    assert redriven_copy(bare).routing_key == MESSAGE.routing_key
    assert dead_copy(bare, Reason.MALFORMED, "x").routing_key == names.ROUTING_KEY


def test_a_retry_after_a_redrive_has_no_reason_of_death_any_more():
    dead = next_copy(MESSAGE, FAILURE, Dead(Reason.PERMANENT), 5).message

    assert "x-dead-reason" not in next_copy(dead, FAILURE, Retry(RUNG), 6).message.headers


def test_a_poison_message_dies_of_its_reason_unless_it_has_an_error_of_its_own():
    by_reason = dead_copy(MESSAGE, Reason.MALFORMED, "x").message
    by_error = dead_copy(MESSAGE, Reason.MALFORMED, "x", error_type="bad-header").message

    assert (by_reason.headers["x-last-error-type"], by_error.headers["x-last-error-type"]) == (
        "malformed",
        "bad-header",
    )


def test_a_lost_task_is_resent_in_its_records_cycle_and_attempt():
    copy = resent_copy(record(state=State.RUNNING, cycle=2, seq=9, attempt=3, copy_attempt=1))

    assert (copy.message.cycle, copy.message.seq, copy.message.attempt) == (2, 10, 3)
    assert (copy.exchange, copy.message.headers["retries"]) == (names.TASK_EXCHANGE, 2)


def test_a_lost_task_that_never_ran_is_resent_for_its_first_attempt():
    assert resent_copy(record(attempt=0)).message.attempt == 1


def test_a_record_without_its_message_cannot_be_resent():
    assert resent_copy(record(message=None)) is None


DUE = {"x-deadline": 5_000, "x-deadline-at": 7_000}


def test_a_redrive_has_a_deadline_of_the_same_length():
    before = int(time.time() * 1_000)
    copy = redriven_copy(MESSAGE.with_headers(**DUE))

    assert before + 5_000 <= copy.message.deadline_at <= int(time.time() * 1_000) + 5_000
    assert copy.message.headers["x-deadline"] == 5_000
    assert "x-deadline-at" not in redriven_copy(MESSAGE).message.headers


def test_a_lost_task_is_resent_with_the_deadline_of_its_cycle():
    again = resent_copy(record(message=MESSAGE.with_headers(**DUE), deadline_at=99_000))

    assert again.message.deadline_at == 99_000
    assert "x-deadline-at" not in resent_copy(record()).message.headers


def test_an_attempt_that_did_not_begin_is_not_counted_as_a_retry():
    overdue = Failure(FailureKind.OVERDUE, "deadline-exceeded", "late")
    copy = next_copy(MESSAGE, overdue, Dead(Reason.DEADLINE_EXCEEDED), 5)

    assert copy.message.headers["retries"] == 1
    assert copy.message.headers["x-dead-reason"] == "deadline-exceeded"


def test_a_copy_that_ends_a_wait_has_the_headers_of_the_one_that_waits():
    waiting = next_copy(MESSAGE, FAILURE, Retry(RUNG), 5)
    error = ErrorInfo(FAILURE.type, FAILURE.message, retryable=True)
    copy = resent_copy(
        record(state=State.RETRY_WAIT, seq=4, attempt=2, copy_attempt=3, rung="5m", error=error, updated_at=5)
    )
    kept = {**copy.message.headers, "x-seq": 4, "x-queued-at": 300_005}

    assert (copy.exchange, copy.queue, copy.message.seq) == (names.TASK_EXCHANGE, names.WORK_QUEUE, 5)
    assert kept == waiting.message.headers


def test_a_copy_that_was_held_is_sent_for_the_attempt_that_waits_and_not_for_that_of_the_step_before():
    held = {"state": State.HELD, "seq": 4, "attempt": 3}

    assert resent_copy(record(**held, copy_attempt=1)).message.attempt == 1
    assert resent_copy(record(**held, copy_attempt=4)).message.attempt == 4
    assert resent_copy(record(**held)).message.attempt == 3


def test_a_copy_that_is_decided_and_not_confirmed_counts_as_one_on_its_way():
    waiting = next_copy(MESSAGE, FAILURE, Retry(RUNG), 5)
    copy = resent_copy(record(state=State.RETRY_WAIT, attempt=2, decided_seq=3, decision=waiting.to_json()))
    kept = {**copy.message.headers, "x-seq": 4, "x-queued-at": 300_005}

    assert (copy.exchange, copy.message.seq, copy.message.attempt) == (names.TASK_EXCHANGE, 5, 3)
    assert kept == waiting.message.headers


def test_the_error_of_the_cycle_before_is_no_header_of_the_next():
    copy = resent_copy(record(cycle=1, attempt=0, error=ErrorInfo("old", "old", retryable=True)))

    assert "x-last-error" not in copy.message.headers


def test_the_copy_of_the_next_step_has_the_whole_ladder_before_it_and_no_trace_of_failures():
    failed = MESSAGE.with_headers(**{
        "x-attempt": 3, "retries": 2, "retry-queue": "5m", "x-last-error": "no", "x-last-error-type": "boom",
        "x-failed-at": 5, "x-checkpoint": "{}", "x-step": 1,
    })  # fmt: skip
    copy = step_copy(failed, '{"a":1}', 6, 1_000)
    headers = copy.message.headers

    assert (copy.exchange, copy.queue) == ("robot.delay.2", "robot.delay.q.2")
    assert (copy.message.seq, copy.message.attempt, headers["retries"], copy.message.step) == (failed.seq + 1, 1, 0, 2)
    assert headers["x-checkpoint"] == '{"a":1}'
    assert (headers["x-waiting-since"], headers["x-step-at"], headers["x-queued-at"]) == (1_000, 7_000, 7_000)
    assert not {"retry-queue", "x-last-error", "x-last-error-type", "x-failed-at"} & set(headers)
    assert wait_of(copy, LADDER) == 6


def test_a_step_without_a_state_leaves_none_and_one_without_a_wait_goes_to_the_work_queue():
    copy = step_copy(MESSAGE.with_headers(**{"x-checkpoint": "{}", "x-step": 1}), None, 0, 1_000)

    assert (copy.exchange, copy.queue) == ("robot.task.topic", "robot.task.q")
    assert "x-checkpoint" not in copy.message.headers
    assert wait_of(copy, LADDER) == 0


def test_a_step_that_fails_keeps_its_checkpoint_on_every_way():
    step = MESSAGE.with_headers(**{"x-checkpoint": "{}", "x-step": 2})
    failed = next_copy(step, FAILURE, Retry(LADDER.rungs[0]), 5)
    dead = next_copy(step, FAILURE, Dead(Reason.RETRIES_EXHAUSTED), 5)
    copies = [failed, dead, parked_copy(step), dead_copy(step, Reason.EXPIRED, "late"), redriven_copy(dead.message)]

    assert [(copy.message.step, copy.message.text("x-checkpoint")) for copy in copies] == [(2, "{}")] * 5
    assert wait_of(failed, LADDER) == LADDER.rungs[0].seconds


def test_a_lost_step_is_resent_with_its_checkpoint():
    resent = resent_copy(record(state=State.WAITING, attempt=3, copy_attempt=1, step=2, checkpoint="{}")).message

    assert (resent.attempt, resent.step, resent.text("x-checkpoint")) == (1, 2, "{}")
