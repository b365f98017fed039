import pytest

from bench.harness.statistics import Spread, paired_ratio, percentile, rising_until
from support.cases import each


def test_a_spread_has_median_range_and_rounds():
    assert Spread(median=2, low=1, high=9, count=3) == Spread.of([9, 1, 2])


def test_a_figure_without_a_round_has_no_spread():
    with pytest.raises(ValueError, match="without a round"):
        Spread.of([])


@each(
    ("values", "share", "expected"),
    [
        (list(range(1, 101)), 0.99, 99),
        (list(range(100, 0, -1)), 0.5, 50),
        ([7], 0.99, 7),
        ([1, 2, 3], 1, 3),
        ([1, 2, 3], 0.01, 1),
    ],
)
def test_a_percentile_is_the_nearest_rank(values, share, expected):
    assert expected == percentile(values, share)


@each(("values", "share"), [([], 0.5), ([1], 0), ([1], 1.1)])
def test_a_percentile_of_nothing_is_refused(values, share):
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_a_ratio_is_of_turns_of_the_same_round():
    # On a machine that becomes four times as slow.
    assert Spread(median=2, low=2, high=2, count=3) == paired_ratio([800, 400, 200], [400, 200, 100])


def test_a_round_in_which_the_other_did_nothing_has_no_ratio():
    assert Spread(median=3, low=3, high=3, count=1) == paired_ratio([1, 3], [0, 1])


@each(
    ("steps", "expected"),
    [
        ([(100, True), (200, True), (300, False)], 200),
        ([(100, False)], 0),
        ([(100, True), (200, False), (300, True)], 100),
        ([], 0),
    ],
)
def test_a_climb_ends_at_the_first_rate_that_is_not_sustained(steps, expected):
    assert expected == rising_until(steps)
