"""The records of dead letters: what is written in which order, and which may have to leave the DLQ."""

import json

from dispatch.config.settings import load
from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.fingerprints import fingerprint
from dispatch.store.dead_letters import DeadLetterAnswer, DeadLetterRecords
from dispatch.store.handovers import DecisionAnswer
from support.cases import each
from support.unit_fakes import FakeRedis, task_message

SETTINGS = load({})
DEAD_LETTER = task_message(**{"x-last-error-type": "boom", "x-last-error": "it broke"})
COPY = redriven_copy(DEAD_LETTER)
COUNTED = ("use", ("robot:usage:ada",), "t-1", "dead", 0)
RECORD = ("robot:task:{t-1}", "robot:claim:{t-1}", "robot:hops:{t-1}", "robot:message:{t-1}")
FLAG = ("ZINCRBY", "robot:dead:stale", 1, "t-1")
NO_LONGER_LISTED = ("ZREM", "robot:dead", "t-1")


def records(**answers):
    redis = FakeRedis(**answers)
    return DeadLetterRecords(redis, SETTINGS), redis


def recorded(reason, dead_letter=DEAD_LETTER, answer="OK"):
    made, redis = records(record_dead=answer)
    return made.record(dead_letter, reason=reason, max_attempts=4), redis


@each(
    ("reason", "state", "retryable"),
    [("permanent", "DEAD_LETTERED", 0), ("retries-exhausted", "DEAD_LETTERED", 1), ("expired", "EXPIRED", 1)],
)
def test_a_death_is_listed_first_and_recorded_with_its_reason(reason, state, retryable):
    answer, redis = recorded(reason)
    listed, script = redis.trips[0]

    assert answer is DeadLetterAnswer.OK
    assert (listed[:3], listed[4]) == (("ZADD", "robot:dead", "NX"), "t-1")
    assert script[:11] == (
        "record_dead", RECORD, 0, 3, state, reason, "boom", "it broke", retryable, fingerprint("it broke"), "robot.task.dlq",
    )  # fmt: skip
    assert json.loads(script[11]) == {"kind": "dead-lettered", "reason": reason}


def test_what_the_broker_gave_up_has_the_reason_as_its_error():
    _, redis = recorded("delivery-limit", task_message())

    assert redis.trips[0][1][6:8] == ("delivery-limit", "dead-lettered by the broker: delivery-limit")


@each(
    ("answer", "then"),
    [
        ("OK", [COUNTED, ("ZREM", "robot:waiting", "t-1")]),
        ("DONE", [("ZREM", "robot:waiting", "t-1")]),
        ("AGAIN", [FLAG]),
        ("STALE", [FLAG]),
        ("OLD", [FLAG]),
        ("BUSY", []),
    ],
)
def test_a_dead_letter_that_may_be_stale_is_flagged(answer, then):
    given, redis = recorded("permanent", answer=answer)

    assert given == answer
    assert redis.commands[2:] == then


def test_a_rebuilt_record_is_listed_once_more():
    _, redis = recorded("permanent", answer=["MISSING", "OK"])
    *_, listed = redis.trips[1]

    assert (listed[:2], listed[3]) == (("ZADD", "robot:dead"), "t-1")


def redrive(**answers):
    made, redis = records(**answers)
    return made.redrive(DEAD_LETTER, COPY, by="op", max_attempts=4), redis


def test_a_redrive_is_recorded_after_its_reminder_and_flag():
    decided, redis = redrive(redrive=[["OK", COPY.to_json()]])
    reminder, flag, script = redis.trips[0]

    assert (decided.answer, decided.copy) == (DecisionAnswer.OK, COPY)
    assert (reminder[:2], flag) == (("ZADD", "robot:due"), FLAG)
    assert script[:5] == ("redrive", RECORD, 0, 3, COPY.to_json())
    assert json.loads(script[5])["by"] == "op"
    assert redis.trips[1] == (("use", ("robot:usage:ada",), "t-1", "open", 0), NO_LONGER_LISTED)


def test_a_redrive_that_was_decided_before_leaves_the_list_as_it_is():
    decided, redis = redrive(redrive=[["ROUTE", COPY.to_json()]])

    assert decided.answer is DecisionAnswer.ROUTE
    assert len(redis.trips) == 1


@each("first", [["MISSING"], ["REFUSED", "RUNNING"]])
def test_a_death_that_is_not_recorded_yet_is_recorded_before_its_redrive(first):
    decided, redis = redrive(redrive=[first, ["OK", COPY.to_json()]])

    assert decided.answer is DecisionAnswer.OK
    assert [names[-1] for names in redis.names()] == ["redrive", "record_dead", "ZREM", "redrive", "ZREM"]


def test_a_task_that_runs_is_not_redriven():
    decided, _ = redrive(redrive=[["REFUSED", "RUNNING"]], record_dead="BUSY")

    assert (decided.answer, decided.copy) == (DecisionAnswer.BUSY, None)


@each("first", [["MISSING"], ["REFUSED", "SUCCEEDED"]])
def test_a_task_that_is_further_is_not_redriven(first):
    decided, _ = redrive(redrive=[first], record_dead="OLD")

    assert (decided.answer, decided.copy) == (DecisionAnswer.REFUSED, None)


def test_a_finished_redrive_has_its_dead_letter_looked_for():
    made, redis = records()
    made.finish_redrive(COPY)

    assert redis.names() == [["hand_over", "ZADD", "ZINCRBY"]]


def test_an_undone_redrive_is_listed_again_first():
    made, redis = records()
    made.undo_redrive(COPY)
    listed, script = redis.trips[0]

    assert (listed[:3], listed[4]) == (("ZADD", "robot:dead", "NX"), "t-1")
    assert script == ("undo_redrive", RECORD, 1, 3)


@each(("answer", "discarded", "trips"), [("OK", True, 2), ("REFUSED", False, 1), ("MISSING", False, 1)])
def test_only_a_dead_letter_can_be_discarded(answer, discarded, trips):
    made, redis = records(discard=answer)

    assert made.discard("t-1", by="op") is discarded
    assert len(redis.trips) == trips


def test_a_discarded_one_leaves_the_list_and_is_looked_for_once_more():
    made, redis = records(HGET="ada")
    made.discard("t-1", by="op")

    assert redis.trips[1] == (FLAG, ("use", ("robot:usage:ada",), "t-1", "", 0), NO_LONGER_LISTED)


@each("answer", [["t-1", "2", "t-2", "1"], [["t-1", 2.0], ["t-2", 1.0]]], ids=["RESP2", "RESP3"])
def test_flags_are_counted(answer):
    made, redis = records()
    redis.answers["ZRANGE"] = [answer]

    assert made.flagged() == {"t-1": 2, "t-2": 1}


def test_a_flag_goes_with_the_count_that_was_read():
    made, redis = records()
    made.unflag({})
    made.unflag({"t-1": 2, "t-2": 1})

    assert redis.commands == [("unflag_stale", ("robot:dead:stale",), "t-1", 2, "t-2", 1)]


def test_a_marker_that_is_not_there_is_empty():
    made, redis = records(GET=None)

    assert made.recorded_marker() == ""
    assert redis.commands == [("GET", "robot:dead:known")]
