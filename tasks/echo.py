"""``echo``: the smoke and failure-drill task."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dispatch.errors import PermanentError, RetryableError
from dispatch.tasktypes import Context, Payload, task
from tasks.waiting import pause, stopped

#: Parts a sleep is cut into; each is one progress report.
_PARTS = 20


class Echo(Payload):
    """What to say, and how to fail on the way."""

    message: str = Field(max_length=10_000, description="Comes back in the result.")
    sleep_seconds: float = Field(
        0, ge=0, le=3_600, allow_inf_nan=False, description="Work this long; beyond the time limit it drills that."
    )
    fail_times: int = Field(0, ge=0, le=1_000, description="The first attempts of each cycle that fail.")
    permanent: bool = Field(False, description="Fail for good: to the dead-letter queue at once.")


@task("echo", payload=Echo)
def echo(order: Echo, ctx: Context) -> dict[str, Any]:
    """Return the message, after failing and sleeping as often and as long as told.

    Args:
        order: the message and the drill.
        ctx: the running task.

    Returns:
        ``message`` and the ``attempt`` that succeeded.

    Raises:
        RetryableError: ``echo-failed``, in each of the first `fail_times` attempts.
        PermanentError: ``echo-refused`` when `permanent`; ``cancelled`` when stopped on request.
    """
    _work(order.sleep_seconds, ctx)
    if order.permanent:
        raise PermanentError("asked to fail for good", type="echo-refused")
    if ctx.attempt <= order.fail_times:
        msg = f"asked to fail: attempt {ctx.attempt} of {order.fail_times} failing ones"
        raise RetryableError(msg, type="echo-failed")
    return {"message": order.message, "attempt": ctx.attempt}


def _work(seconds: float, ctx: Context) -> None:
    if not seconds:
        return
    for part in range(1, _PARTS + 1):
        if not pause(ctx, seconds / _PARTS):
            raise stopped()
        ctx.progress(100 * part // _PARTS, f"slept {seconds * part / _PARTS:g} of {seconds:g} s")
