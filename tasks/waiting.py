"""Wait inside a handler without being deaf to somebody who wants the task to stop."""

from __future__ import annotations

import time

from dispatch.errors import PermanentError
from dispatch.tasktypes import Context

#: Seconds between two looks at whether the task was cancelled; each look may ask Redis.
STEP = 0.5


def pause(ctx: Context, seconds: float) -> bool:
    """Sleep, and wake early when somebody asks for the task to stop.

    Args:
        ctx: the running task.
        seconds: how long to sleep.

    Returns:
        True after the whole sleep, False as soon as the task was cancelled.
    """
    until = time.monotonic() + seconds
    while not ctx.cancelled():
        left = until - time.monotonic()
        time.sleep(max(0.0, min(STEP, left)))
        if left <= STEP:
            return True
    return False


def stopped(note: str = "") -> PermanentError:
    """What a handler raises once it has stopped on request: the task ends as CANCELLED, not in the DLQ.

    Args:
        note: what else people should know.

    Returns:
        The error to raise, of type ``cancelled``.
    """
    return PermanentError(", ".join(filter(None, ("stopped on request", note))), type="cancelled")
