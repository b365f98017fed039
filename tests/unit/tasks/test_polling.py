"""When a handler looks at its robot again."""

from hypothesis import given
from hypothesis import strategies as st

from support.cases import each
from tasks.polling import HORIZON, SLOWEST, next_look

ESTIMATES = st.none() | st.floats(0, 1e9)
FIRSTS = st.floats(0.01, 60)


@each(
    ("estimate", "looks", "expected"),
    [
        (None, 0, (2, 1)),
        (None, 1, (3, 2)),
        (None, 4, (10.125, 5)),
        (None, 5, (15, 6)),
        (None, 10**9, (15, 64)),
        (60, 0, (60, 0)),
        (60, 5, (60, 0)),
        (1, 0, (2, 1)),
        (7, 0, (7, 1)),
        (0, 3, (6.75, 4)),
        (86_400, 0, (HORIZON, 0)),
    ],
)
def test_the_estimate_decides_and_otherwise_the_time_grows(estimate, looks, expected):
    assert next_look(estimate, looks, 2) == expected


@given(ESTIMATES, st.integers(0, 10**6), FIRSTS)
def test_a_wait_is_never_nothing_and_never_for_ever(estimate, looks, first):
    seconds, again = next_look(estimate, looks, first)

    assert min(first, SLOWEST) <= seconds <= HORIZON
    assert 0 <= again <= 64


@given(st.floats(0, HORIZON), FIRSTS, st.integers(0, 100))
def test_no_look_is_before_the_estimated_end(estimate, first, looks):
    assert next_look(estimate, looks, first)[0] >= estimate


@given(st.lists(st.floats(0, SLOWEST, exclude_max=True) | st.none(), min_size=30, max_size=60), st.floats(0.1, 15))
def test_a_vendor_whose_estimates_are_never_kept_is_asked_less_and_less(estimates, first):
    looks, waits = 0, []
    for estimate in estimates:
        seconds, looks = next_look(estimate, looks, first)
        waits.append(seconds)

    assert waits[-1] == SLOWEST
