"""``robot.clean``: a cleaning order, polled until the robot has ended it.

::

    order (Idempotency-Key) → poll (see `tasks.polling`) → SUCCEEDED         → result
                                 │                       → FAILED            → retry: a new order
                                 │                       → ABORTED/CANCELLED → dead letter
                                 └→ longer than `WATCH`  → wait on a rung, then poll again

A retry sends the same Idempotency-Key. While the robot works, and after it has succeeded, the vendor returns the same
command, so no robot cleans twice; only a command that failed or was stopped releases its Idempotency-Key, so that a
retry or a redrive creates a new one.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from dispatch.errors import PermanentError, RetryableError, TaskError, Throttled
from dispatch.tasktypes import Context, Payload, task
from tasks import polling
from tasks.vendor import FAILED, STOPPED, SUCCEEDED, Command, Vendor
from tasks.waiting import pause, stopped

#: Seconds: hard limit of an attempt.
TIME_LIMIT = 360.0

#: Seconds for which an attempt polls before it frees its process; a slow last poll still ends within `TIME_LIMIT`.
WATCH = 240.0

#: Consecutive polls that fail before the attempt fails.
MAX_FAILED_POLLS = 5

#: Attempts of a cancelled task to stop the robot.
STOP_ATTEMPTS = 3

#: Seconds: with a ``Retry-After`` above this, the attempt ends and frees its process.
MAX_POLL_DELAY = 30.0

Area = Annotated[str, Field(min_length=1, max_length=100)]


class CleanOrder(Payload):
    """A one-off cleaning order, on the map that the robot has loaded."""

    robot: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="The robot's serial number.", examples=["R-1"]
    )
    areas: list[Area] = Field(
        min_length=1, max_length=50, description="Areas of the robot's map, in order.", examples=[["lobby"]]
    )
    mode: Literal["vacuum", "sweep", "scrub"] = Field("vacuum", description="Cleaning mode.")
    passes: int = Field(1, ge=1, le=3, description="Passes over each area.")

    @pydantic.field_validator("areas")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each area may occur once; `passes` repeats it")
        return value


@task("robot.clean", payload=CleanOrder, time_limit=TIME_LIMIT)
def clean(order: CleanOrder, ctx: Context) -> dict[str, Any]:
    """Clean areas with a robot; succeeds when the robot has finished.

    Args:
        order: what to clean.
        ctx: the running task.

    Returns:
        ``robot``, the vendor's ``command`` and its ``state``.

    Raises:
        RetryableError: ``robot-failed``, ``order-lost``, or an error of the API (see `tasks.upstream`).
        Throttled: ``robot-working`` after `WATCH` seconds, or the API responds 429.
        PermanentError: ``robot-stopped``, ``cancelled``, or the API rejects the order.
    """
    until = time.monotonic() + WATCH
    body = order.model_dump(mode="json", by_alias=True, exclude={"robot"})
    with Vendor(ctx.settings, ctx.traceparent) as vendor:
        command = vendor.order(order.robot, body, ctx.idempotency_key)
        ctx.log.info("robot order accepted", command=command.name, command_state=command.state)
        command = _watch(vendor, command, ctx, until)
    return _result(order, command, ctx)


def _watch(vendor: Vendor, command: Command, ctx: Context, until: float) -> Command:
    """Poll a command until it has ended, tolerating some failed polls, and report progress."""
    looks, failed, reported, least = 0, 0, None, 0.0
    while not command.ended:
        if (progress := (int(command.percent), command.message or command.state.lower())) != reported:
            ctx.progress(*progress)
            reported = progress
        if time.monotonic() >= until:
            raise Throttled("the robot is still working: polling again later", type="robot-working")
        wait, looks = polling.next_look(command.remaining_seconds, looks, ctx.settings.robot_poll)
        if not pause(ctx, max(least, min(wait, until - time.monotonic()))):
            return _stop(vendor, command, ctx)
        try:
            command, failed, least = vendor.command(command.name), 0, 0.0
        except RetryableError as exc:
            failed, least = failed + 1, exc.retry_after or 0.0
            if failed == MAX_FAILED_POLLS or least > MAX_POLL_DELAY:
                raise
            ctx.log.warning("robot poll failed", error_type=exc.type, error=str(exc), failed_polls=failed)
    return command


def _stop(vendor: Vendor, command: Command, ctx: Context) -> Command:
    """Stop the robot on cancellation; a command that has succeeded meanwhile stays so."""
    for _ in range(STOP_ATTEMPTS):
        try:
            command = vendor.stop(command.name)
        except TaskError as exc:
            ctx.log.warning("stopping the robot failed", error_type=exc.type, error=str(exc))
            time.sleep(min(ctx.settings.robot_poll, 1))
        else:
            if command.state == SUCCEEDED:
                return command
            raise stopped()
    # The task ends here and does not retry: the error must state that the robot may still move.
    raise stopped("but the robot API did not accept the stop, so the robot may continue")


def _result(order: CleanOrder, command: Command, ctx: Context) -> dict[str, Any]:
    reason = f": {command.error.code} {command.error.message}".rstrip() if command.error else ""
    if command.state == FAILED:
        msg = f"robot {order.robot} failed{reason}"
        raise RetryableError(msg, type="robot-failed")
    if command.state in STOPPED:
        # A person stopped the robot: only a person may start it again (redrive).
        msg = f"robot {order.robot} was stopped ({command.state}){reason}"
        raise PermanentError(msg, type="robot-stopped")
    ctx.progress(100, "finished")
    return {"robot": order.robot, "command": command.name, "state": command.state}
