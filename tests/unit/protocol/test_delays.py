import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol import delays
from dispatch.protocol.copies import delayed_copy, next_copy, redriven_copy
from dispatch.protocol.message import DELAY_BITS, Message
from dispatch.protocol.retry import Failure, FailureKind, Retry, Rung

MESSAGE = Message(b"{}", {"id": "i", "task": "echo", "x-seq": 0}, routing_key="robot.task.dispatch.echo")

LONGEST = delays.longest(delays.MAX_LEVELS)


def waited(headers, level):
    """What the levels do with a copy that enters at one: seconds until it is through."""
    total = 0
    for at in range(level, -1, -1):
        total += 2**at * {"0": 0, "1": 1}[headers[f"delay-{at}"]]
    return total


@given(st.integers(1, LONGEST))
def test_a_copy_waits_as_long_as_it_was_sent_for(seconds):
    copy = delayed_copy(MESSAGE, seconds)

    assert copy.exchange == f"robot.delay.{delays.entry(seconds)}"
    assert copy.queue == f"robot.delay.q.{delays.entry(seconds)}"
    assert waited(copy.message.headers, delays.entry(seconds)) == seconds


@given(st.integers(1, LONGEST), st.integers(1, LONGEST))
def test_no_bit_of_an_earlier_delay_is_left(first, second):
    again = delayed_copy(delayed_copy(MESSAGE, first).message, second)

    assert again == delayed_copy(MESSAGE, second)


@given(st.integers(1, LONGEST))
def test_later_copies_have_no_delay(seconds):
    delayed = delayed_copy(MESSAGE, seconds).message
    retried = next_copy(delayed, Failure(FailureKind.RETRYABLE, "x", "y"), Retry(Rung("1m", 60)), 1)

    for copy in (retried, redriven_copy(delayed)):
        assert not set(copy.message.headers) & set(DELAY_BITS)


@given(st.integers(1, LONGEST))
def test_the_first_queue_is_one_that_holds_the_copy(seconds):
    assert delays.bits(seconds)[f"delay-{delays.entry(seconds)}"] == "1"


@pytest.mark.parametrize("seconds", [-1, 0, LONGEST + 1])
def test_a_delay_that_no_levels_have_is_an_error(seconds):
    with pytest.raises(ValueError, match="1 to 4194303 seconds"):
        delays.bits(seconds)


def test_a_key_that_does_not_reach_the_work_queue_could_never_leave_the_levels():
    astray = delayed_copy(Message(b"{}", {"id": "i", "task": "echo"}, routing_key="elsewhere"), 5)

    assert astray.routing_key == "robot.task.dispatch.echo"


@pytest.mark.parametrize("key", ["robot.task.dispatch.delay.1.0", "robot.task.dispatch." + "x" * 235])
def test_the_routing_key_stays_the_tasks_own_whatever_it_is(key):
    assert delayed_copy(Message(b"{}", {}, routing_key=key), LONGEST).routing_key == key


@given(st.floats(0, LONGEST, allow_nan=False))
def test_without_slack_a_delay_is_rounded_up_to_whole_seconds(seconds):
    whole = delays.whole_seconds(seconds)

    assert whole - 1 < seconds <= whole


@given(st.integers(0, 3_000), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_with_slack_a_delay_is_the_shortest_of_those_with_the_fewest_bits(seconds, slack):
    allowed = range(seconds, int(seconds * (1 + slack)) + 1)
    fewest = min(each.bit_count() for each in allowed)

    assert delays.whole_seconds(seconds, slack) == min(each for each in allowed if each.bit_count() == fewest)


@given(st.floats(0, LONGEST / 2, allow_nan=False), st.floats(0, 1))
def test_a_delay_is_never_shorter_and_no_longer_than_its_slack(seconds, slack):
    whole = delays.whole_seconds(seconds, slack)

    assert seconds <= whole <= max(seconds * (1 + slack), seconds + 1)


def test_a_minute_with_a_tenth_of_slack_is_one_hop():
    assert delays.whole_seconds(60, 0.1) == 64
    assert delays.whole_seconds(60).bit_count() == 4
