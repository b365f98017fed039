"""``echo``: a task for smoke tests and failure drills."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dispatch.errors import PermanentError, RetryableError
from dispatch.tasktypes import Context, Payload, task
from tasks.waiting import pause, stopped

#: Parts of a sleep; progress is reported after each.
_PARTS = 20


class Echo(Payload):
    """The message, and the failures to simulate."""

    message: str = Field(max_length=10_000, description="Returned in the result.", examples=["hello"])
    sleep_seconds: float = Field(
        0,
        ge=0,
        le=3_600,
        allow_inf_nan=False,
        description="Duration of an attempt; above the time limit the attempt is killed.",
    )
    fail_times: int = Field(0, ge=0, le=1_000, description="Number of attempts that fail at the start of each cycle.")
    permanent: bool = Field(False, description="Fail permanently: dead-lettered at once.")


@task("echo", payload=Echo)
def echo(order: Echo, ctx: Context) -> dict[str, Any]:
    """Return the message, after the configured sleep and failures.

    Args:
        order: the message and the drill.
        ctx: the running task.

    Returns:
        ``message`` and the ``attempt`` that succeeded.

    Raises:
        RetryableError: ``echo-failed``, in each of the first `fail_times` attempts.
        PermanentError: ``echo-refused`` when `permanent`; ``cancelled`` on cancellation.
    """
    _work(order.sleep_seconds, ctx)
    if order.permanent:
        raise PermanentError("configured to fail permanently", type="echo-refused")
    if ctx.attempt <= order.fail_times:
        msg = f"configured to fail: attempt {ctx.attempt} of {order.fail_times} failing ones"
        raise RetryableError(msg, type="echo-failed")
    return {"message": order.message, "attempt": ctx.attempt}


def _work(seconds: float, ctx: Context) -> None:
    if not seconds:
        return
    for part in range(1, _PARTS + 1):
        if not pause(ctx, seconds / _PARTS):
            raise stopped()
        ctx.progress(100 * part // _PARTS, f"slept {seconds * part / _PARTS:g} of {seconds:g} s")
