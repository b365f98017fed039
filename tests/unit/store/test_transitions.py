"""A transition is one round trip; of a record that Redis has lost, it is two: the second rebuilds it."""

import json

import pytest

from dispatch.store import transitions as module
from dispatch.store.transitions import FIRST_CHECK, Transitions, hop
from support.cases import each
from support.unit_fakes import FakeRedis, ManualClock, task_message

RECORD = ("robot:task:{t-1}", "robot:claim:{t-1}", "robot:hops:{t-1}", "robot:message:{t-1}")
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
BEFORE, AFTER, REBUILT = ("ZADD", "before"), ("ZREM", "after"), ("ZADD", "rebuilt")


def run(redis, message=None):
    return Transitions(redis).run(
        "claim", message or task_message(), "x", max_attempts=2, before=[BEFORE], after=[AFTER], after_rebuild=[REBUILT]
    )


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_transition_is_one_round_trip_with_what_goes_before_and_after():
    redis = FakeRedis(claim="RUN")
    answer = run(redis)

    assert answer == "RUN"
    assert redis.trips == [(BEFORE, ("claim", RECORD, "x", ""), AFTER)]


def test_a_lost_record_is_rebuilt_after_its_reminder_and_its_entries_in_the_indexes(clock):
    redis = FakeRedis(claim=["MISSING", "RUN"])
    answer = run(redis)
    reminder, shared, own, counted, transition, *listed, rebuilt = redis.trips[1]

    assert answer == "RUN"
    assert reminder == ("ZADD", "robot:due", "NX", clock.now + FIRST_CHECK, "t-1")
    assert [shared, own] == [
        ("ZADD", "robot:index", 1_700_000_000_000, "t-1"),
        ("ZADD", "robot:index:ada", 1_700_000_000_000, "t-1"),
    ]
    assert counted == ("use", ("robot:usage:ada",), "t-1", "open", len(transition[-1]))
    assert transition[:3] == ("claim", RECORD, "x")
    assert [command[:2] for command in listed] == [("ZADD", "robot:index"), ("ZADD", "robot:index:ada")]
    assert rebuilt == REBUILT


def test_the_second_entry_differs_from_the_first_by_less_than_a_millisecond():
    redis = FakeRedis(claim=["MISSING", "RUN"])
    run(redis)
    scores = [command[2] for command in redis.trips[1] if command[:2] == ("ZADD", "robot:index")]

    assert 0 <= scores[1] - scores[0] < 1


def test_the_seed_is_the_message_and_the_attempts_of_its_type():
    redis = FakeRedis(claim=["MISSING", "RUN"])
    run(redis)
    fields, _, message = redis.trips[1][4][-1].partition("\n")
    seed = json.loads(fields)

    assert {name: seed[name] for name in ("type", "principal", "cycle", "seq", "attempt", "maxAttempts", "state")} == {
        "type": "echo", "principal": "ada", "cycle": 0, "seq": 3, "attempt": 2, "maxAttempts": 2, "state": "QUEUED",
    }  # fmt: skip
    assert message == task_message().to_json()


def test_a_message_without_its_time_was_accepted_now(clock):
    redis = FakeRedis(claim=["MISSING", "RUN"])
    run(redis, task_message(**{"x-accepted-at": None, "x-principal": None}))
    scores = {command[1]: command[2] for command in redis.trips[1][1:3]}

    assert scores == {"robot:index": clock.now * 1_000, "robot:index:": clock.now * 1_000}


def test_a_record_that_is_there_is_not_rebuilt():
    redis = FakeRedis(claim=["MISSING!"])

    assert run(redis) == "MISSING!"
    assert len(redis.trips) == 1


@each(
    ("message", "fields", "expected"),
    [
        (None, {"by": "ada"}, {"kind": "k", "by": "ada"}),
        (None, {"by": None}, {"kind": "k"}),
        (task_message(), {}, {"kind": "k"}),
        (task_message(traceparent="junk-with-dashes"), {}, {"kind": "k"}),
        (task_message(traceparent=TRACE), {"attempt": 2}, {"kind": "k", "attempt": 2, "spanId": "b" * 16}),
    ],
)
def test_a_hop_carries_what_is_known(message, fields, expected):
    assert json.loads(hop("k", message, **fields)) == expected


def test_a_hop_is_an_object_that_the_script_can_continue():
    assert hop("k").startswith('{"kind"')
