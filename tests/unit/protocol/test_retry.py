"""The retry decision and the ladder's notation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.retry import Dead, Failure, FailureKind, Ladder, Park, Retry, decide, misses, parse_ladder
from support.cases import each

LADDER = parse_ladder("1m=60,5m=300,30m=1800")
ONE, FIVE, THIRTY = LADDER.rungs
NOW, DEADLINE = 1_000.0, 2_000.0


def failed(kind=FailureKind.RETRYABLE, retry_after=None):
    return Failure(kind, "some-error", "it failed", retry_after)


def decided(failure, attempt=1, now=NOW):
    return decide(failure, attempt, LADDER, DEADLINE, now)


@each(("attempt", "rung"), [(1, ONE), (2, FIVE), (3, THIRTY)])
def test_a_failed_attempt_waits_on_the_next_rung(attempt, rung):
    assert decided(failed(), attempt) == Retry(rung)


def test_the_attempt_after_the_last_rung_is_the_last():
    assert decided(failed(), 4) == Dead(Reason.RETRIES_EXHAUSTED)


@each("attempt", [1, 2, 3, 4])
def test_a_permanent_error_is_dead_at_once(attempt):
    assert decided(failed(FailureKind.PERMANENT), attempt) == Dead(Reason.PERMANENT)


@each(("seconds", "rung"), [(1, ONE), (60, ONE), (61, FIVE), (301, THIRTY), (1800, THIRTY)])
def test_retry_after_picks_the_first_rung_that_is_long_enough(seconds, rung):
    assert decided(failed(retry_after=seconds)) == Retry(rung)


def test_a_retry_after_beyond_the_longest_rung_waits_there_and_uses_up_no_attempt():
    assert decided(failed(retry_after=1_801)) == Park(THIRTY)


@pytest.mark.parametrize("kind", [FailureKind.THROTTLED, FailureKind.OUTAGE])
@pytest.mark.parametrize("attempt", [1, 3, 4])
def test_throttling_and_outages_use_up_no_attempt_until_the_deadline(kind, attempt):
    before = decided(failed(kind), attempt)
    after = decided(failed(kind), attempt, now=DEADLINE)

    assert isinstance(before, Park)
    assert after == Dead(Reason.DEADLINE_EXCEEDED)


def test_a_type_without_rungs_dies_of_its_first_failure():
    assert decide(failed(), 1, Ladder(()), DEADLINE, NOW) == Dead(Reason.RETRIES_EXHAUSTED)


@given(
    st.sampled_from(FailureKind),
    st.one_of(st.none(), st.floats(0, 1e6)),
    st.integers(1, 9),
    st.floats(0, 4_000),
)
def test_no_decision_waits_shorter_than_asked_unless_no_rung_is_long_enough(kind, retry_after, attempt, now):
    decision = decided(failed(kind, retry_after), attempt, now)

    if isinstance(decision, Retry | Park) and retry_after is not None:
        assert decision.rung.seconds >= retry_after or decision.rung == THIRTY


@given(
    st.sampled_from(FailureKind),
    st.one_of(st.none(), st.floats(0, 1e6)),
    st.integers(1, 9),
    st.floats(0, 4_000),
    st.floats(0, 6_000),
)
def test_a_deadline_ends_what_would_begin_after_it_and_changes_nothing_else(kind, retry_after, attempt, now, expires):
    failure = failed(kind, retry_after)
    without = decided(failure, attempt, now)
    decision = decide(failure, attempt, LADDER, DEADLINE, now, expires=expires)
    late = isinstance(without, Retry | Park) and now + without.rung.seconds > expires

    assert decision == (Dead(Reason.DEADLINE_EXCEEDED) if late else without)
    assert decide(failure, attempt, LADDER, DEADLINE, now) == without


@each(("begins", "late"), [(99.9, False), (100.0, False), (100.1, True)])
def test_what_begins_at_its_deadline_is_in_time(begins, late):
    assert misses(begins, 100.0) is late
    assert not misses(begins, float("inf"))


def test_an_attempt_that_did_not_begin_in_time_is_dead_for_that_reason():
    assert decided(failed(FailureKind.OVERDUE)) == Dead(Reason.DEADLINE_EXCEEDED)


@each(
    ("text", "problem"),
    [
        ("", "at least one rung"),
        ("1m", "needs seconds"),
        ("1m=x", "needs seconds"),
        ("1m=0", "must wait between"),
        ("1m=nan", "must wait between"),
        ("1m=1,1m=2", "a name of its own"),
        ("b=2,a=1", "must rise"),
        ("lease=5", "not 'lease'"),
        ("hold=5", "or 'hold'"),
        ("A B=5", "lower-case"),
    ],
)
def test_a_ladder_that_is_not_usable_is_refused_with_a_reason(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse_ladder(text)


def test_spaces_in_a_ladder_do_not_matter():
    assert parse_ladder(" 1m = 60 , 5m=300,30m=1800 ") == LADDER
