"""Cancellable waits for handlers."""

from __future__ import annotations

import time

from dispatch.errors import Cancelled
from dispatch.tasktypes import Context

#: Seconds between two checks for cancellation; each check may query Redis.
STEP = 0.5


def pause(ctx: Context, seconds: float) -> bool:
    """Sleep, and return early on cancellation.

    Args:
        ctx: the running task.
        seconds: duration.

    Returns:
        True after the whole sleep, False as soon as the task was cancelled.
    """
    until = time.monotonic() + seconds
    while not ctx.cancelled():
        remaining = until - time.monotonic()
        time.sleep(max(0.0, min(STEP, remaining)))
        if remaining <= STEP:
            return True
    return False


def stopped(note: str = "") -> Cancelled:
    """The error that a handler raises when `pause` was cut short: no attempt follows.

    Args:
        note: additional text for the error message.

    Returns:
        The error to raise, of type ``cancelled``.
    """
    return Cancelled(", ".join(filter(None, ("cancelled on request", note))))
