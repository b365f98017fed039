"""What is recorded of a decision and of its confirmed copy."""

import json

from dispatch.protocol.copies import next_copy, parked_copy, redriven_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.fingerprints import fingerprint
from dispatch.protocol.retry import Dead, Failure, FailureKind, Park, Retry, Rung
from dispatch.store.claims import Ticket
from dispatch.store.handovers import Decided, DecisionAnswer, Handovers, decided
from support.cases import each
from support.unit_fakes import FakeRedis, task_message

FAILURE = Failure(FailureKind.RETRYABLE, "boom", "x" * 3_000)
TICKET = Ticket("owner", "fence", "w")
RUNG = Rung("5m", 300)


def copy_of(decision):
    return next_copy(task_message(), FAILURE, decision, 1)


def decide(decision):
    copy = copy_of(decision)
    redis = FakeRedis(decide=[["OK", copy.to_json()]])
    answer = Handovers(redis).decide(task_message(), TICKET, copy, FAILURE, decision, max_attempts=4)
    assert answer == Decided(DecisionAnswer.OK, copy)
    reminder, script = redis.commands
    assert reminder[:2] == ("ZADD", "robot:due")
    return script


@each(
    ("decision", "state", "kinds"),
    [
        (Retry(RUNG), ("RETRY_WAIT", "5m", 300_000, "robot.retry.q.5m"), ["failed", "delayed"]),
        (Park(RUNG), ("RETRY_WAIT", "5m", 300_000, "robot.retry.q.5m"), ["failed", "parked"]),
    ],
)
def test_a_copy_that_waits_is_recorded_with_its_rung(decision, state, kinds):
    _, _, fence, seq, copy, *rest = decide(decision)

    assert (fence, seq, copy) == ("fence", 3, copy_of(decision).to_json())
    assert tuple(rest[:4]) == state
    assert rest[4:8] == ["boom", "x" * 2_000, 1, ""]
    assert [json.loads(hop)["kind"] for hop in rest[8:10]] == kinds


def test_a_dead_copy_changes_the_state_only_when_it_is_confirmed():
    *_, state, rung, wait, queue, error, text, retryable, reason, failed, then, like, seed = decide(
        Dead(Reason.PERMANENT)
    )

    assert (state, rung, wait, queue) == ("", "", 0, "robot.task.dlq")
    assert (error, len(text), retryable, reason) == ("boom", 2_000, 1, "permanent")
    assert (json.loads(failed)["errorType"], then, seed) == ("boom", "", "")
    assert like == fingerprint("x" * 2_000)


def test_the_copy_of_a_decision_that_was_recorded_before_is_the_one_of_then():
    then = parked_copy(task_message(**{"x-seq": 9}))

    assert decided(["ROUTE", then.to_json()]) == Decided(DecisionAnswer.ROUTE, then)
    assert decided(["REFUSED"]) == Decided(DecisionAnswer.REFUSED, None)


def hand_over(copy, **options):
    redis = FakeRedis()
    Handovers(redis).hand_over(copy, **options)
    return redis.trips[0]


def test_a_confirmed_copy_names_the_seq_that_is_over():
    script, waiting = hand_over(copy_of(Retry(RUNG)), owner="owner", wait=300.0)

    assert script[2:] == (3, "owner", "", "", 0, "robot.retry.q.5m", 300_000, 3)
    assert waiting[:2] == ("ZADD", "robot:waiting")


def test_a_copy_in_the_work_queue_is_recorded_as_queued():
    script, _ = hand_over(redriven_copy(task_message()))

    assert script[6:] == (1, "robot.task.q", 0, 1)


def test_a_dead_letter_is_listed_before_its_record_is_final():
    listed, script, waits_no_longer = hand_over(copy_of(Dead(Reason.PERMANENT)), owner="owner")

    assert (listed[:2], listed[3]) == (("ZADD", "robot:dead"), "t-1")
    assert script[4] == "DEAD_LETTERED"
    assert json.loads(script[5]) == {"kind": "dead-lettered", "reason": "permanent"}
    assert waits_no_longer == ("ZREM", "robot:waiting", "t-1")
