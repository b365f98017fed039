"""``make status``: a table of the processes, and the last words of the ones that died."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher import envfile, files, procfs
from launcher.control import Stack
from launcher.layout import State

RUNNING, FAULTY, STOPPED = 0, 1, 3  #: exit statuses, as init scripts have them

_COLUMNS = "{name:<11}{state:<12}{pid:>8}  {age:>9}  {restarts:>8}  {address}"


def report(stack: Stack) -> tuple[list[str], int]:
    """Describe a stack.

    Args:
        stack: the stack.

    Returns:
        The lines for people, and the exit status: 0 all ready, 1 something isn't, 3 nothing runs.
    """
    if not stack.supervised():
        return _unsupervised(stack)
    state = stack.state()
    processes = state["processes"]
    head = _COLUMNS.format(
        name="PROCESS", state="STATE", pid="PID", age="SINCE", restarts="RESTARTS", address="ADDRESS"
    )
    lines = [head, *(_row(process) for process in processes), ""]
    for process in processes:
        lines += _trouble(process)
    lines += [*state["notes"], f"supervisor pid {state['supervisor']}; addresses and pids: {stack.run.env}"]
    ready = all(process["state"] == State.READY for process in processes)
    return lines, RUNNING if ready else FAULTY


def _unsupervised(stack: Stack) -> tuple[list[str], int]:
    left = procfs.owned(stack.run.path)
    if not left:
        return [f"nothing is running in {stack.run.path}"], STOPPED
    lines = [f"the supervisor is dead and left these behind (make up or make down clears them, {stack.run.path}):"]
    return [*lines, *(f"  pid {pid}: {procfs.command(pid)[:100]}" for pid in left)], FAULTY


def _row(process: dict[str, Any]) -> str:
    age = _duration(time.time() - process["since"])
    return _COLUMNS.format(**{**process, "pid": process["pid"] or "-", "age": age})


def _trouble(process: dict[str, Any]) -> Iterator[str]:
    if process["why"] and process["state"] != State.READY:
        yield f"{process['name']} is not ready: {process['why']}"
    if process["restarts"]:
        yield f"{process['name']} was restarted {process['restarts']} times; last it {process['ending']}. Its log ({process['log']}):"
        yield from (f"  | {line}" for line in files.tail(Path(process["log"]), 5))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def addresses(stack: Stack) -> list[str]:
    """Where people find what runs, after ``up``.

    Args:
        stack: the stack.
    """
    values = envfile.read(stack.run.env)
    shown = {"DISPATCH_HTTP_URL": "gateway", "FLOWER_URL": "Flower"}
    lines = [f"{title:<10} {values[key]}" for key, title in shown.items() if key in values]
    return [*lines, f"{'all of it':<10} {stack.run.env}"]
