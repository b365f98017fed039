"""``robot.clean``: a cleaning order, followed to the robot's own end.

::

    order (idempotency key) → look every `robot_poll` seconds → SUCCEEDED        → result
                                 │                            → FAILED           → retry: a new order
                                 │                            → ABORTED/CANCELLED → dead letter
                                 └→ longer than `WATCH`       → wait on a rung, then look on

A retry sends the same idempotency key. While the robot works, or when it has finished, the vendor answers
with the same command, so no robot cleans twice; only a command that failed or was stopped releases
its key, so that a retry or a redrive makes a fresh one.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from dispatch.errors import PermanentError, RetryableError, TaskError, Throttled
from dispatch.tasktypes import Context, Payload, task
from tasks.vendor import FAILED, STOPPED, SUCCEEDED, Command, Vendor
from tasks.waiting import pause, stopped

#: Seconds; the hard limit of one attempt.
TIME_LIMIT = 360.0

#: Seconds an attempt watches a robot before it frees its worker; a slow last look still ends within `TIME_LIMIT`.
WATCH = 240.0

#: Looks in a row that may fail before the attempt does.
BLIND_LOOKS = 5

#: Times a cancelled task tells the vendor to stop the robot.
STOP_TRIES = 3

#: Seconds: asked by ``Retry-After`` to wait longer than this between looks, the attempt gives up its worker.
PATIENCE = 30.0

Area = Annotated[str, Field(min_length=1, max_length=100)]


class CleanOrder(Payload):
    """What to clean: a one-off order, on whatever map the robot has loaded."""

    robot: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="The robot's serial number.")
    areas: list[Area] = Field(min_length=1, max_length=50, description="Areas of the robot's map, in this order.")
    mode: Literal["vacuum", "sweep", "scrub"] = Field("vacuum", description="How to clean.")
    passes: int = Field(1, ge=1, le=3, description="Times to go over each area.")

    @pydantic.field_validator("areas")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("name each area once; passes says how often to clean it")
        return value


@task("robot.clean", payload=CleanOrder, time_limit=TIME_LIMIT)
def clean(order: CleanOrder, ctx: Context) -> dict[str, Any]:
    """Have a robot clean some areas; succeeds when the robot has finished.

    Args:
        order: what to clean.
        ctx: the running task.

    Returns:
        ``robot``, the vendor's ``command`` and its ``state``.

    Raises:
        RetryableError: ``robot-failed``, ``order-lost``, or the API is in trouble (see `tasks.upstream`).
        Throttled: ``robot-working`` after `WATCH` seconds, or the API asks us to slow down.
        PermanentError: ``robot-stopped``, ``cancelled``, or the API refuses the order.
    """
    until = time.monotonic() + WATCH
    body = order.model_dump(mode="json", by_alias=True, exclude={"robot"})
    with Vendor(ctx.settings, ctx.traceparent) as vendor:
        command = vendor.order(order.robot, body, ctx.idempotency_key)
        ctx.log.info("ordered", command=command.name, command_state=command.state)
        command = _watch(vendor, command, ctx, until)
    return _result(order, command, ctx)


def _watch(vendor: Vendor, command: Command, ctx: Context, until: float) -> Command:
    """Follow a command to its end, through a few failed looks, reporting progress."""
    wait, blind, reported = ctx.settings.robot_poll, 0, None
    while command.state not in {SUCCEEDED, FAILED, *STOPPED}:
        if (progress := (int(command.percent), command.message or command.state.lower())) != reported:
            ctx.progress(*progress)
            reported = progress
        if time.monotonic() >= until:
            raise Throttled("the robot is still at work: looking again later", type="robot-working")
        if not pause(ctx, wait):
            return _stop(vendor, command, ctx)
        try:
            command, blind, wait = vendor.command(command.name), 0, ctx.settings.robot_poll
        except RetryableError as exc:
            blind, wait = blind + 1, max(ctx.settings.robot_poll, exc.retry_after or 0)
            if blind == BLIND_LOOKS or wait > PATIENCE:
                raise
            ctx.log.warning("look failed", error_type=exc.type, error=str(exc), look=blind)
    return command


def _stop(vendor: Vendor, command: Command, ctx: Context) -> Command:
    """Stop the robot on request; a robot that has finished meanwhile has finished."""
    for _ in range(STOP_TRIES):
        try:
            command = vendor.stop(command.name)
        except TaskError as exc:
            ctx.log.warning("stop failed", error_type=exc.type, error=str(exc))
            time.sleep(min(ctx.settings.robot_poll, 1))
        else:
            if command.state == SUCCEEDED:
                return command
            raise stopped()
    # The task does not come back to try again: say that the robot may not stand still.
    raise stopped("but the robot API could not be told, so the robot may go on")


def _result(order: CleanOrder, command: Command, ctx: Context) -> dict[str, Any]:
    why = f": {command.error.code} {command.error.message}".rstrip() if command.error else ""
    if command.state == FAILED:
        msg = f"robot {order.robot} gave up{why}"
        raise RetryableError(msg, type="robot-failed")
    if command.state in STOPPED:
        # A person wanted it to stand still: only a person may send it off again.
        msg = f"robot {order.robot} was stopped ({command.state}){why}"
        raise PermanentError(msg, type="robot-stopped")
    ctx.progress(100, "finished")
    return {"robot": order.robot, "command": command.name, "state": command.state}
