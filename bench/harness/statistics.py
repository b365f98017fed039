"""Medians, ranges, percentiles and ratios: pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

#: Of one variant: each figure's values, one a round.
Figures = Mapping[str, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of a figure's rounds, and its range."""

    median: float
    low: float
    high: float
    count: int  #: rounds

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise the rounds.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("a figure without a round")
        return cls(statistics.median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of all values does not exceed.

    Args:
        values: in any order.
        share: above 0, at most 1: 0.99 is the p99.

    Raises:
        ValueError: no values, or no such share.
    """
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share in (0, 1]")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The ratio of two variants in each round, since turns next to each other have the same machine.

    Args:
        ours: a value a round.
        theirs: a value a round, of the same rounds in the same order.

    Raises:
        ValueError: no round is in both.
    """
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=False) if other])


def rising_until(steps: Sequence[tuple[float, bool]]) -> float:
    """The highest rate of a climb before the first step that was not sustained; 0 when the first one was not.

    Args:
        steps: (rate, sustained), in the order in which they were tried.
    """
    reached = 0.0
    for rate, sustained in steps:
        if not sustained:
            break
        reached = rate
    return reached
