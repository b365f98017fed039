"""Delays: a number of seconds is a path through the delay levels, one for each of its bits. Pure.

Level n is a queue whose messages wait 2^n seconds, behind a headers exchange. A copy enters at the exchange of its delay's
highest bit. An exchange passes it to its level's queue where that bit is set, otherwise to the exchange below; a queue
dead-letters to the exchange below; level 0 leads to the task exchange. So what is sent for some number of seconds waits
that long, whatever waits beside it: messages of one level expire in the order in which they came.

The bits are headers, each of them ``0`` or ``1``: the routing key stays the task's own, so that it is the operators' to bind by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.message import DELAY_BITS

#: Delay levels at most.
MAX_LEVELS = len(DELAY_BITS)


def longest(levels: int) -> int:
    """Seconds that the levels can delay a copy together."""
    return (1 << levels) - 1


def whole_seconds(seconds: float, slack: float = 0.0, most: int = longest(MAX_LEVELS)) -> int:
    """The delay that is asked for, as the levels can keep it: never shorter.

    Each bit that is set is a hop from queue to queue, so a delay that may be longer becomes the one with the fewest.

    Args:
        seconds: below 0 counts as 0.
        slack: the share of it by which it may be longer; 0 for a given time.
        most: seconds that the slack may not exceed.

    Returns:
        The shortest of those with the fewest bits set, from ``seconds`` to ``seconds * (1 + slack)``.
    """
    shortest = max(0, math.ceil(seconds))
    most = max(shortest, min(most, math.floor(seconds * (1 + slack))))
    # Of a number with the fewest bits its lowest one could not be left out: it is `shortest`, rounded up to that bit.
    rounded = {-(-shortest >> bit) << bit for bit in range(most.bit_length())}
    return min((each for each in rounded if each <= most), key=lambda each: (each.bit_count(), each), default=0)


def bits(seconds: int) -> dict[str, str]:
    """The headers of a delay, from its highest bit down.

    Args:
        seconds: at least 1.

    Raises:
        ValueError: there is no such delay.
    """
    if not 1 <= seconds <= longest(MAX_LEVELS):
        raise ValueError(f"a delay is 1 to {longest(MAX_LEVELS)} seconds, not {seconds}")
    return {DELAY_BITS[level]: str(seconds >> level & 1) for level in reversed(range(seconds.bit_length()))}


def seconds_of(headers: Mapping[str, Any]) -> int:
    """The delay that a copy's headers ask for; 0 without any."""
    return sum(1 << level for level, bit in enumerate(DELAY_BITS) if headers.get(bit) == "1")


def entry(seconds: int) -> int:
    """The level at which a delay of at least 1 second begins."""
    return seconds.bit_length() - 1
