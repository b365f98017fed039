"""``robot.clean``: a cleaning order, in steps that hold no slot while the robot works.

::

    order (Idempotency-Key, callback URL) → wait → poll → still at work     → wait …
                                             │          → SUCCEEDED         → result
                                             │          → FAILED            → retry: a new order
                                             │          → ABORTED/CANCELLED → dead letter
                                             └ cancelled                    → stop at the vendor

The wait ends at the vendor's estimate (see `tasks.polling`) or with its callback, whichever comes first. A callback is a
reason to poll, no proof: the robot's end is what a poll returns.

A retry sends the same Idempotency-Key. While the robot works, and after it has succeeded, the vendor returns the same
command, so no robot cleans twice; only a command that failed or was stopped releases its Idempotency-Key, so that a
retry or a redrive creates a new one. Killed between the order and its record, the step runs again and sends that key again.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from dispatch.errors import PermanentError, RetryableError, TaskError
from dispatch.tasktypes import Context, Payload, Wait, task
from tasks import polling
from tasks.vendor import COMMAND, FAILED, STOPPED, SUCCEEDED, Command, Vendor
from tasks.waiting import stopped

#: Of the task type, on the wire.
NAME = "robot.clean"

#: Seconds after acceptance within which the last step must begin.
DEADLINE = 86_400

#: Seconds: hard limit of a step. The longest: two tokens and two requests, each within `tasks.vendor.RESPONSE_TIMEOUT`.
TIME_LIMIT = 120.0

#: Consecutive polls that fail before the attempt fails.
MAX_FAILED_POLLS = 5

#: Attempts of a cancelled task to stop the robot.
STOP_ATTEMPTS = 3

#: Seconds: a ``Retry-After`` of a poll counts up to this.
MAX_POLL_DELAY = 3_600.0

#: The signal that the vendor's callback becomes.
FINISHED = "finished"

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


class CleaningState(pydantic.BaseModel):
    """Where an order is between two polls. Unknown fields are ignored: they are of a newer version."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")

    command: str = Field(pattern=COMMAND)  #: its name at the vendor
    cycle: int = Field(ge=0)  #: the cycle and
    attempt: int = Field(ge=1)  #: the attempt that it was ordered in, or last looked at
    looks: int = Field(0, ge=0)  #: `tasks.polling.next_look`
    failed_polls: int = Field(0, ge=0)  #: in a row
    callback_url: str | None = Field(None, repr=False)  #: the order's; an order that is repeated has the same


@task(
    NAME,
    payload=CleanOrder,
    time_limit=TIME_LIMIT,
    deadline=DEADLINE,
    state=CleaningState,
    undoes=True,
    concurrency_key=lambda order: order.robot,
)
def clean(order: CleanOrder, ctx: Context) -> dict[str, Any] | Wait:
    """Clean areas with a robot; succeeds when the robot has finished.

    Args:
        order: what to clean.
        ctx: the running step; its state is a `CleaningState`.

    Returns:
        A wait for the robot; at its end ``robot``, the vendor's ``command`` and its ``state``.

    Raises:
        RetryableError: ``robot-failed``, ``order-lost``, or an error of the API (see `tasks.upstream`).
        Throttled: ``robot-busy``, or the API responds 429 to the order.
        PermanentError: ``robot-stopped``, ``cancelled``, or the API rejects the order.
    """
    state: CleaningState | None = ctx.state
    with Vendor(ctx.settings, ctx.traceparent) as vendor:
        if state is not None and ctx.cancelled():
            return _result(order, _stop(vendor, state.command, ctx), ctx)
        if state is None or (state.cycle, state.attempt) != (ctx.cycle, ctx.attempt):
            # The first step; or one after a failure or a redrive, before which the robot may have failed.
            url = state.callback_url if state else ctx.callback_url(FINISHED)
            command = _order(vendor, order, ctx, url)
            state = CleaningState(command=command.name, cycle=ctx.cycle, attempt=ctx.attempt, callback_url=url)
            if not command.ended and ctx.cancelled():
                command = _stop(vendor, command.name, ctx)
        else:
            try:
                command = vendor.command(state.command)
            except RetryableError as exc:
                return _look_later(state, exc, ctx)
    return _result(order, command, ctx) if command.ended else _wait(state, command, ctx)


def _order(vendor: Vendor, order: CleanOrder, ctx: Context, callback_url: str | None) -> Command:
    body = order.model_dump(mode="json", by_alias=True, exclude={"robot"})
    command = vendor.order(order.robot, body, ctx.idempotency_key, callback_url)
    ctx.log.info("robot order accepted", command=command.name, command_state=command.state)
    return command


def _wait(state: CleaningState, command: Command, ctx: Context) -> Wait:
    """Wait until the robot will probably have ended."""
    ctx.progress(int(command.percent), command.message or command.state.lower())
    seconds, looks = polling.next_look(command.remaining_seconds, state.looks, ctx.settings.robot_poll)
    return _until_finished(seconds, state.model_copy(update={"looks": looks, "failed_polls": 0}))


def _look_later(state: CleaningState, error: RetryableError, ctx: Context) -> Wait:
    """Wait after a failed poll; after some of them in a row the attempt has failed."""
    failed = state.failed_polls + 1
    if failed == MAX_FAILED_POLLS:
        raise error
    ctx.log.warning("robot poll failed", error_type=error.type, error=str(error), failed_polls=failed)
    seconds, looks = polling.next_look(None, state.looks, ctx.settings.robot_poll)
    seconds = max(seconds, min(error.retry_after or 0.0, MAX_POLL_DELAY))
    return _until_finished(seconds, state.model_copy(update={"looks": looks, "failed_polls": failed}))


def _until_finished(seconds: float, state: CleaningState) -> Wait:
    # The failures before this wait still count: a robot that fails each time must reach the end of the ladder.
    return Wait(seconds, state=state, until=(FINISHED,), same_attempt=True)


def _stop(vendor: Vendor, name: str, ctx: Context) -> Command:
    """Stop the robot on cancellation; a command that has succeeded meanwhile stays so."""
    for _ in range(STOP_ATTEMPTS):
        try:
            command = vendor.stop(name)
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
