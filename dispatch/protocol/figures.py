"""The figures of a minute: how attempts ended, and how long they ran and waited, as counts in steps of time. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

#: Figures by the outcome of an attempt, as in the metric ``robot_task_attempts_total``.
OUTCOMES = {
    "succeeded": "succeeded", "retried": "failed", "dead": "dead", "worker-lost": "failed", "time-limit": "failed", "parked": "parked",
    "cancelled": "cancelled",
}  # fmt: skip

#: Durations: of a run, and in the work queue before it. Their figures are ``<name>:<upper bound in seconds>``, ``inf`` for the last.
RUN, WAIT = "run", "wait"


def named(what: str, buckets: Mapping[float, int]) -> dict[str, int]:
    """The figures of a duration.

    Args:
        what: `RUN` or `WAIT`.
        buckets: counts by upper bound, not cumulated.
    """
    return {f"{what}:{bound:g}": count for bound, count in buckets.items()}


def quantile(figures: Mapping[str, int], what: str, share: float) -> float | None:
    """About how long the faster ones took, seconds, by the steps of the counts; None where nothing ended.

    Args:
        figures: of a minute, or the sum of several.
        what: `RUN` or `WAIT`.
        share: of all, 0 to 1.
    """
    bounds = sorted(
        (float(name.removeprefix(f"{what}:")), count) for name, count in figures.items() if name.startswith(f"{what}:")
    )
    total = sum(count for _, count in bounds)
    if not total:
        return None
    wanted, passed, lower = share * total, 0, 0.0
    for bound, count in bounds:
        if count and passed + count >= wanted:
            # Beyond the last bound nothing is known but that it was longer.
            return lower if math.isinf(bound) else lower + (bound - lower) * (wanted - passed) / count
        passed += count
        lower = bound if not math.isinf(bound) else lower
    return lower


def summed(minutes: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The figures of several minutes together."""
    total: dict[str, int] = {}
    for minute in minutes:
        for name, count in minute.items():
            total[name] = total.get(name, 0) + count
    return total
