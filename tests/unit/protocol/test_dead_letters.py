"""Dead letters: why one is dead, which are meant, and when one is stale."""

import dataclasses

from dispatch.protocol.dead_letters import (
    DeadLetterFilter,
    Reason,
    error_text,
    fingerprint_of,
    is_hopeless,
    is_stale,
    normalized,
    reason_of,
)
from dispatch.protocol.fingerprints import fingerprint
from dispatch.protocol.message import Message
from dispatch.protocol.record import Brief, Record, State
from support.cases import each

MESSAGE = Message(
    b"[[{}],{},{}]",
    {"id": "t", "task": "robot.clean", "x-cycle": 0, "x-seq": 3, "x-attempt": 2, "x-death": [1], "traceparent": "tp"},
    routing_key="robot.task.dispatch.robot.clean",
)


def record(**changes):
    base = Record("t", "echo", "p", State.QUEUED, 0, 3, 1, 4, 7, 0, 0)
    return dataclasses.replace(base, **changes)


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
def test_a_dead_letter_leaves_the_dlq_only_when_its_task_has_moved_on(kept, stale):
    assert is_stale(MESSAGE, kept) is stale


def test_a_filter_means_what_all_its_parts_mean():
    dead_letter = MESSAGE.with_headers(**{"x-last-error-type": "upstream-timeout"})

    assert DeadLetterFilter().matches(dead_letter)
    assert DeadLetterFilter("robot.clean", "upstream-timeout", "t").matches(dead_letter)
    assert not DeadLetterFilter("echo").matches(dead_letter)
    assert not DeadLetterFilter(error_type="other").matches(dead_letter)
    assert not DeadLetterFilter(task_id="u").matches(dead_letter)


def test_a_filter_by_fingerprint_compares_the_headers_or_that_of_the_error():
    sealed = MESSAGE.with_headers(**{"x-last-error": "sealed:gAAAAA…", "x-error-fingerprint": "ab" * 8})
    plain = MESSAGE.with_headers(**{"x-last-error": "robot 7 is away"})
    forged = plain.with_headers(**{"x-error-fingerprint": "no fingerprint"})
    by_broker = MESSAGE.with_headers(**{"x-death": [{"reason": "expired"}]})
    large = MESSAGE.with_headers(**{"x-too-large": "5 MB", "x-error-fingerprint": "ab" * 8})
    larger = MESSAGE.with_headers(**{"x-too-large": "7 MB"})

    assert DeadLetterFilter(fingerprint="ab" * 8).matches(sealed)
    assert not DeadLetterFilter(fingerprint="ab" * 8).matches(plain)
    assert fingerprint_of(plain) == fingerprint_of(forged) == fingerprint("robot 12 is away")
    assert fingerprint_of(by_broker) == fingerprint(error_text(by_broker, "expired"))
    assert fingerprint_of(large) == fingerprint_of(larger) == fingerprint_of(normalized(large)) != "ab" * 8


@each(
    ("brief", "matches"),
    [
        (Brief("echo", State.DEAD_LETTERED, "boom", "ab" * 8), True),
        (Brief("echo", State.DEAD_LETTERED, "boom", "ab" * 8, discarded=True), False),
        (Brief("echo", State.RETRY_WAIT, "boom", "ab" * 8), False),
        (Brief("other", State.DEAD_LETTERED, "boom", "ab" * 8), False),
        (Brief("echo", State.EXPIRED, "bang", "ab" * 8), False),
        (Brief("echo", State.EXPIRED, "boom", None), False),
    ],
)
def test_a_record_matches_as_its_letter_does(brief, matches):
    assert DeadLetterFilter("echo", "boom", fingerprint="ab" * 8).matches_brief(brief) is matches


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


def test_an_unreadable_dead_letter_becomes_readable():
    dead_letter = normalized(Message(b"x", {"x-seq": 2**70, "x-cycle": "one"}))

    assert dead_letter.task_id
    assert (dead_letter.cycle, dead_letter.seq) == (0, 0)


@each(
    ("headers", "reason"),
    [
        ({"x-too-large": "5 MB", "x-dead-reason": "permanent"}, Reason.TOO_LARGE),
        ({"x-dead-reason": "unknown-type"}, Reason.UNKNOWN_TYPE),
        ({"x-dead-reason": "", "x-death": [{"reason": "maxlen"}]}, Reason.QUEUE_FULL),
        ({"x-dead-reason": 7, "x-death": [{"reason": "rejected"}]}, Reason.REJECTED),
        ({"x-last-death-reason": "delivery_limit", "x-death": [{"reason": "expired"}]}, Reason.DELIVERY_LIMIT),
        ({"x-last-death-reason": "expired"}, Reason.EXPIRED),
        ({"x-first-death-reason": "expired"}, "unknown"),
        ({"x-death": []}, "unknown"),
        ({"x-death": ["junk"]}, "unknown"),
        ({"x-death": [{}]}, "unknown"),
        ({"x-dead-reason": "made up by a client"}, "made up by a client"),
    ],
)
def test_a_reason_is_the_routers_or_else_the_brokers_last(headers, reason):
    assert reason_of(Message(b"", headers)) == reason


def test_a_dead_letter_that_would_die_again_is_hopeless():
    hopeless = {reason for reason in Reason if is_hopeless(reason)}

    assert hopeless == {
        Reason.PERMANENT, Reason.UNDECODABLE, Reason.MALFORMED, Reason.TOO_LARGE, Reason.UNKNOWN_TYPE,
        Reason.UNAUTHENTIC,
    }  # fmt: skip
    assert not is_hopeless("made up by a client")


def test_a_normalized_dead_letter_keeps_what_is_right():
    dead_letter = normalized(MESSAGE)

    assert dead_letter == MESSAGE


@each("value", [-1, 2**53, "1", None, True, 1.5])
def test_a_normalized_number_is_one_that_redis_can_count(value):
    dead_letter = normalized(MESSAGE.with_headers(**{"x-seq": value, "x-cycle": value}))

    assert (dead_letter.headers["x-seq"], dead_letter.headers["x-cycle"]) == (0, 0)


def test_a_normalized_dead_letter_without_a_usable_id_always_gets_the_same_one():
    one = normalized(Message(b"x", {"id": "a b"}))
    again = normalized(Message(b"x", {"id": "a b", "x-delivery-count": 3}))

    assert one.task_id
    assert one.task_id == again.task_id
    assert normalized(one) == one


def test_a_body_that_is_too_large_is_its_own_error():
    assert normalized(Message(b"x", {"x-too-large": "5 MB"})).text("x-last-error") == "the body has 5 MB"


@each(
    ("kept", "stale"),
    [
        (record(state=State.DEAD_LETTERED, seq=4), True),
        (record(state=State.DEAD_LETTERED, seq=2), False),
        (record(state=State.CANCELLED), True),
        (record(state=State.REJECTED), True),
        (record(state=State.EXPIRED), False),
        (record(state=State.SUCCEEDED, cycle=-1), False),
    ],
    ids=["an extra copy", "a later copy", "cancelled", "rejected", "expired", "an earlier cycle"],
)
def test_a_dead_letter_is_stale_only_beside_a_record_that_is_further(kept, stale):
    assert is_stale(MESSAGE, kept) is stale


def test_a_filter_takes_the_reason_where_there_is_no_error():
    dead_letter = Message(b"", {"x-death": [{"reason": "expired"}]})

    assert DeadLetterFilter(error_type="expired").matches(dead_letter)
    assert DeadLetterFilter(task_id=dead_letter.dead_letter_id).matches(dead_letter)
