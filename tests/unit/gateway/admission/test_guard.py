from hypothesis import given
from hypothesis import strategies as st

from dispatch.gateway.admission import guard as admission
from dispatch.gateway.admission.guard import Guard, Reading, drain_rate, retry_after
from support.cases import each


@each(
    ("readings", "rate"),
    [
        ([], None),
        ([Reading(0, 5)], None),
        ([Reading(0, 5), Reading(0.5, 5)], None),
        ([Reading(0, 100), Reading(10, 60)], 4.0),
        ([Reading(0, 100, accepted=0), Reading(10, 100, accepted=50)], 5.0),
        ([Reading(0, 100, accepted=20), Reading(5, 999), Reading(10, 110, accepted=70)], 4.0),
        ([Reading(0, 100), Reading(10, 300)], 0.0),
    ],
    ids=["none", "one", "too close", "shrinking", "steady", "growing slower than accepted", "others fill it"],
)
def test_the_drain_rate_is_what_was_accepted_less_the_growth(readings, rate):
    assert rate == drain_rate(readings)


@each(
    ("excess", "rate", "seconds"),
    [
        (100, 10.0, 10),
        (101, 10.0, 11),
        (0, 10.0, 1),
        (-5, 10.0, 1),
        (1, 1_000.0, 1),
        (10_000, 1.0, 300),
        (5, 0.0, 300),
        (5, None, 5),
    ],
)
def test_retry_after_is_the_excess_over_the_rate(excess, rate, seconds):
    assert seconds == retry_after(excess, rate)


@given(st.integers(-10, 10**9), st.none() | st.floats(0, 10**9))
def test_retry_after_is_always_within_its_bounds(excess, rate):
    assert 1 <= retry_after(excess, rate) <= 300


def test_only_a_fresh_reading_over_the_limit_shuts_the_guard():
    guard = Guard(100)
    assert not guard.full(now=0)

    guard.observe(100, at=0)
    assert not guard.full(now=0)

    guard.observe(101, at=1)
    assert guard.full(now=1)
    assert guard.full(now=6)
    assert not guard.full(now=6.1)


def test_what_this_process_accepted_counts_as_drained_when_the_depth_stays():
    guard = Guard(100)
    guard.observe(200, at=0)
    for _ in range(100):
        guard.accepted()
    guard.observe(200, at=10)

    assert guard.refusal(now=10).headers["Retry-After"] == "10"


def test_a_rate_measured_by_the_broker_is_preferred_while_it_is_fresh():
    guard = Guard(100)
    guard.observe(500, at=0)
    guard.measured(None, at=0)
    guard.measured(50.0, at=1)
    guard.observe(500, at=10)

    assert guard.refusal(now=10).headers["Retry-After"] == "8"
    guard.observe(500, at=17)
    assert guard.refusal(now=17).headers["Retry-After"] == "300"


def test_old_readings_are_forgotten():
    guard = Guard(100)
    guard.observe(100_000, at=0)
    for second in range(20, 31):
        guard.observe(200, at=second)

    assert guard.refusal(now=30).headers["Retry-After"] == "300"


def test_a_broker_that_refuses_while_nothing_is_known_gets_a_short_wait():
    assert str(admission.UNMEASURED) == Guard(100).refusal().headers["Retry-After"]


def test_the_guard_is_busy_from_half_the_limit_on():
    guard = Guard(100)
    assert not guard.busy

    guard.observe(50)
    assert not guard.busy
    guard.observe(51)
    assert guard.busy
