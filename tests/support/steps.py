"""Task types that wait between their steps: ``celery -A support.steps worker``.

Only a worker imports this: its types are in no other process's registry.
"""

import time
from pathlib import Path

import celery_app
from dispatch.errors import PermanentError, RetryableError
from dispatch.tasktypes import Payload, Wait, task


class Steps(Payload):
    """How often the handler waits, and how it fails."""

    steps: int = 1
    seconds: float = 1.0
    fails: int = 0  #: attempts at the begin of each step
    error: str = "not yet"
    gate: str = ""  #: a file without which every step after the first one fails for good
    pad: str = ""  #: goes into the state
    until: tuple[str, ...] = ()


class Trail(Payload):
    """The attempts that each step took."""

    attempts: tuple[int, ...] = ()
    pad: str = ""


@task("wait.steps", payload=Steps, state=Trail)
def _steps(order, ctx):
    trail = ctx.state or Trail(pad=order.pad)
    if ctx.attempt <= order.fails:
        raise RetryableError(order.error, type="not-yet")
    if order.gate and ctx.step and not Path(order.gate).exists():
        raise PermanentError("the gate is closed", type="closed")
    attempts = (*trail.attempts, ctx.attempt)
    if ctx.step < order.steps:
        ctx.progress(100 * ctx.step // order.steps, f"step {ctx.step}")
        return Wait(order.seconds, state=Trail(attempts=attempts, pad=trail.pad), until=order.until)
    return {"attempts": attempts, "pad": len(trail.pad)}


class Signals(Payload):
    """How often the handler waits for the signal ``go``, and how long each step takes."""

    steps: int = 1
    seconds: float = 1.0
    busy: float = 0.0


@task("wait.signals", payload=Signals)
def _signals(order, ctx):
    time.sleep(order.busy)
    if ctx.step < order.steps:
        ctx.progress(0, ctx.callback_url("go") or "")
        return Wait(order.seconds, until=("go",))
    return {"signals": [[signal.name, signal.payload] for signal in ctx.signals]}


def __getattr__(name):
    """``support.steps.app``: the worker's app, with these types beside its own."""
    return getattr(celery_app, name)
