"""When to look again at work that another system does. Pure.

::

    an estimate of the time left    look when it is over; `HORIZON` at most, since an order may end early
    none, or one that has proven    `first` seconds, half as much again with each look, up to `SLOWEST`
    too short
"""

from __future__ import annotations

#: Seconds between two looks at work without an estimate, after the first few.
SLOWEST = 15.0

#: Seconds: longest time without a look, whatever the estimate.
HORIZON = 300.0

#: Growth of the time between two looks.
_GROWTH = 1.5

#: Looks after which any `first` has grown to `SLOWEST`; no power beyond overflows.
_MAX_LOOKS = 64


def next_look(estimate: float | None, looks: int, first: float) -> tuple[float, int]:
    """How long to wait for the next look.

    Args:
        estimate: seconds left as the other system estimates them; None without an estimate.
        looks: what the previous call returned; 0 at the beginning.
        first: seconds before the first look without an estimate.

    Returns:
        Seconds to wait, and the looks in a row that were not based on a long estimate.
    """
    if estimate is not None and estimate >= SLOWEST:
        return min(estimate, HORIZON), 0
    grown = min(SLOWEST, first * _GROWTH ** min(looks, _MAX_LOOKS))
    # An estimate of nothing, again and again, is none: it grows as well.
    return max(grown, estimate or 0.0), min(looks + 1, _MAX_LOOKS)
