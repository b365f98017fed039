import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.concurrency import TypeLimits, keys_of
from dispatch.protocol.copies import held_copy, next_copy, redriven_copy, step_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import Message
from dispatch.protocol.rates import MAX_RATE, UNITS, Rate, RateLimit, counts, parse_rate
from dispatch.protocol.retry import Dead, Failure, FailureKind, Park, Retry, Rung

RUNG = Rung("1m", 60)


@given(st.integers(1, MAX_RATE), st.sampled_from(sorted(UNITS)))
def test_a_rate_reads_as_it_is_written(runs, unit):
    rate = parse_rate(f"{runs}/{unit}")

    assert rate == Rate(runs, UNITS[unit])
    assert str(rate) == f"{runs}/{unit}"


@pytest.mark.parametrize(
    "text",
    ["", "10", "0/s", "-1/s", "01/s", "1.5/s", "10/d", "10/S", "10 / s", " 10/s", "10/s\n", "\u0661/s", "10001/s", "99999999/s", 10, 0.5, True, ("1", "s"), b"1/s"],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_what_one_is(text):
    with pytest.raises(ValueError, match='a rate is "10/s", "600/m" or "1000/h", with a count of 1 to 10000, not'):
        parse_rate(text)


def test_a_types_rate_is_taken_after_its_keys():
    message = Message(b"", {"task": "echo", "x-concurrency-key": "k"})
    limits = {"echo": TypeLimits(1, 5, Rate(10, 1))}

    assert [key.name for key in keys_of(message, limits)] == ["k", "max_running:echo", "rate:echo"]
    assert keys_of(message, limits)[-1] == RateLimit("echo", Rate(10, 1))
    assert RateLimit("echo", Rate(10, 1)).held_by == "rate:echo"


def test_every_beginning_of_an_attempt_counts_and_no_step_after_a_wait():
    first = Message(b"", {"task": "echo", "x-accepted-at": 1_795_487_760_000})
    step = step_copy(first, None, 60, 1_795_487_770_000).message
    kept = step_copy(first, None, 0, 1_795_487_770_000, attempt=3).message
    failure = Failure(FailureKind.RETRYABLE, "some-error", "it failed")
    retry, parked, dead = (
        next_copy(step, failure, decision, 1_795_487_790_000).message
        for decision in (Retry(RUNG), Park(RUNG), Dead(Reason.PERMANENT))
    )
    following = step_copy(retry, None, 60, 1_795_487_800_000).message

    assert [
        counts(each) for each in (first, held_copy(first, 600).message, retry, parked, redriven_copy(dead).message)
    ] == [True] * 5
    assert [counts(each) for each in (step, kept, following)] == [False] * 3
