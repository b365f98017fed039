"""Task types that do to a worker what the worst of handlers would: ``celery -A support.drills worker``.

Only a worker imports this: its types are in no other process's registry.
"""

import builtins
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import celery.exceptions

import celery_app
from dispatch.errors import PermanentError, RetryableError
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import task

MIB = 1_048_576


class Times(Payload):
    """What goes wrong in the first attempts, and never again."""

    times: int = 1_000


class Stubborn(Payload):
    """How long an attempt takes that should not, whether it asks its context meanwhile, and in how many attempts."""

    seconds: float
    asks: bool = False
    times: int = 1


class Raised(Payload):
    """What the first attempt raises."""

    error: str


class Seconds(Payload):
    """How long what is left behind lives."""

    seconds: float


class Whim(Payload):
    """What a run of a type that is short as a rule does for once, in its first attempt."""

    seconds: float = 0.0
    dies: bool = False


class Family(Payload):
    """What a parent submits, and in how many attempts it fails afterwards."""

    children: int = 1
    fails: int = 0
    delay: float = 0.0
    permanent: bool = False


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


@task("drill.short", payload=Whim)
def short(order, ctx):
    """Short as a rule, so that several come in one write."""
    if order.dies and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(order.seconds)
    return {"attempt": ctx.attempt}


@task("drill.leave", payload=Times)
def leave(order, ctx):
    """End the process without an outcome."""
    if ctx.attempt <= order.times:
        os._exit(3)
    return {"attempt": ctx.attempt}


@task("drill.quit", payload=Times)
def quit_(order, ctx):
    """End the interpreter."""
    if ctx.attempt <= order.times:
        sys.exit(3)
    return {"attempt": ctx.attempt}


@task("drill.stubborn", payload=Stubborn, time_limit=1)
def stubborn(order, ctx):
    """Take longer than the limit, whatever is raised; what the context raises ends the wait, and nothing else does."""
    until = time.monotonic() + (order.seconds if ctx.attempt <= order.times else 0)
    while time.monotonic() < until:
        try:
            if order.asks:
                ctx.cancelled()
            time.sleep(0.05)
        except Exception:  # noqa: BLE001 - as handlers have it that poll
            continue
    return {"attempt": ctx.attempt}


@task("drill.raise", payload=Raised)
def raise_(order, ctx):
    """Raise anything in the first attempt."""
    if ctx.attempt == 1:
        raise {**vars(builtins), **vars(celery.exceptions)}[order.error]("on purpose")
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


@task("drill.linger", payload=Seconds)
def linger(order, _ctx):
    """Leave a thread behind that Python would wait for at its end."""
    threading.Thread(target=time.sleep, args=[order.seconds]).start()
    return {}


@task("drill.parent", payload=Family)
def parent(order, ctx):
    """Submit children, then fail."""
    found = [
        ctx.submit("echo", {"message": f"{number} of attempt {ctx.attempt}"}, key=f"child-{number}", delay=order.delay)
        for number in range(order.children)
    ]
    if ctx.attempt <= order.fails:
        raise (PermanentError if order.permanent else RetryableError)("on purpose")
    return {"children": found}


@task("drill.fork", payload=Payload)
def fork(_order, _ctx):
    """Come back twice, in two processes."""
    return {"copy": os.fork() == 0}


@task("drill.rant", payload=Payload)
def rant(_order, _ctx):
    """Fail with a very long message."""
    raise RetryableError("x" * 32 * MIB, type="t" * MIB)


@task("drill.rave", payload=Payload)
def rave(_order, _ctx):
    """Fail with a very long message, in an exception of its own."""
    raise type("E" * MIB, (Exception,), {})("x" * 32 * MIB)


def __getattr__(name):
    """``support.drills.app``: the worker's app, with these types beside its own."""
    return getattr(celery_app, name)
