"""Dead letters: why one is dead, which are meant, and when one is stale."""

import dataclasses

from dispatch.protocol.dead_letters import DeadLetterFilter, is_stale, normalized, reason_of
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record, State
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
