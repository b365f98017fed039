"""Task types that do to a worker what the worst of handlers would: ``celery -A support.drills worker``.

Only a worker imports this: its types are in no other process's registry.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import celery_app
from dispatch.errors import RetryableError
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import task

MIB = 1_048_576


class Times(Payload):
    """What goes wrong in the first attempts, and never again."""

    times: int = 1_000


class Seconds(Payload):
    """How long what is left behind lives."""

    seconds: float


def _pages() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@task("drill.memory-error", payload=Times)
def memory_error(order, ctx):
    """Raise what Celery's own main process would die of."""
    if ctx.attempt <= order.times:
        raise MemoryError
    return {"attempt": ctx.attempt}


@task("drill.exhaust", payload=Times)
def exhaust(order, ctx):
    """Run into a limit of the address space; it stays, and the process goes on with what is left."""
    if ctx.attempt <= order.times:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (_pages() + 64 * MIB, hard))
        hoard = []
        while True:
            hoard.append(bytearray(MIB))
    return {"attempt": ctx.attempt}


@task("drill.die", payload=Times)
def die(order, ctx):
    """Die as the kernel's out-of-memory killer would have it."""
    if ctx.attempt <= order.times:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"attempt": ctx.attempt}


@task("drill.leave", payload=Times)
def leave(order, ctx):
    """Leave without a word."""
    if ctx.attempt <= order.times:
        os._exit(3)
    return {"attempt": ctx.attempt}


@task("drill.quit", payload=Times)
def quit_(order, ctx):
    """End the interpreter."""
    if ctx.attempt <= order.times:
        sys.exit(3)
    return {"attempt": ctx.attempt}


@task("drill.litter", payload=Seconds)
def litter(order, _ctx):
    """Leave a program and a forked copy of itself behind, which hold what they inherited."""
    program = subprocess.Popen(["sleep", str(order.seconds)], start_new_session=True)
    copy = os.fork()
    if not copy:
        time.sleep(order.seconds)
        os._exit(0)
    return {"pids": [program.pid, copy]}


@task("drill.fork", payload=Payload)
def fork(_order, _ctx):
    """Come back twice, in two processes."""
    return {"copy": os.fork() == 0}


@task("drill.rant", payload=Payload)
def rant(_order, _ctx):
    """Fail with very much to say."""
    raise RetryableError("x" * 32 * MIB, type="t" * MIB)


@task("drill.rave", payload=Payload)
def rave(_order, _ctx):
    """Fail with very much to say, in an exception of its own."""
    raise type("E" * MIB, (Exception,), {})("x" * 32 * MIB)


def __getattr__(name):
    """``support.drills.app``: the worker's app, with these types beside its own."""
    return getattr(celery_app, name)
