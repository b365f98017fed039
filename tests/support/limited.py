"""Task types with concurrency keys and limits: ``celery -A support.limited worker``.

Only a worker imports this: its types are in no other process's registry. Each run notes when it begins and ends.
"""

import os
import time

import celery_app
from dispatch.errors import Cancelled, RetryableError
from dispatch.tasktypes import Payload, Wait, task


class Noted(Payload):
    """Where runs are noted, and how long they take."""

    path: str
    robot: str = "r"
    seconds: float = 0.0
    waits: int = 0  #: steps that end in a wait of a second
    fails: int = 0  #: attempts
    asks: bool = False  #: whether it is cancelled, again and again


def _note(order, ctx, what):
    line = f"{time.monotonic_ns()} {what} {ctx.idempotency_key}\n"
    fd = os.open(order.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)


def _run(order, ctx):
    if ctx.step == 0:
        _note(order, ctx, "begin")
    until = time.monotonic() + order.seconds
    while order.asks and time.monotonic() < until:
        if ctx.cancelled():
            _note(order, ctx, "end")
            raise Cancelled
        time.sleep(0.1)
    time.sleep(max(0.0, until - time.monotonic()))
    if ctx.attempt <= order.fails:
        _note(order, ctx, "end")
        raise RetryableError("not yet", type="not-yet")
    if ctx.step < order.waits:
        return Wait(1)
    _note(order, ctx, "end")
    return {}


@task("limited.one", payload=Noted, concurrency_key=lambda order: order.robot)
def _one(order, ctx):
    return _run(order, ctx)


@task("limited.two", payload=Noted, concurrency_key=lambda order: order.robot, limit=2)
def _two(order, ctx):
    return _run(order, ctx)


@task("limited.crowd", payload=Noted, max_running=2)
def _crowd(order, ctx):
    return _run(order, ctx)


@task("limited.paced", payload=Noted, rate="5/s")
def _paced(order, ctx):
    return _run(order, ctx)


@task("limited.both", payload=Noted, concurrency_key=lambda order: order.robot, rate="5/s")
def _both(order, ctx):
    return _run(order, ctx)


@task("limited.hourly", payload=Noted, rate="2/h")
def _hourly(order, ctx):
    return _run(order, ctx)


def __getattr__(name):
    """``support.limited.app``: the worker's app, with these types beside its own."""
    return getattr(celery_app, name)
