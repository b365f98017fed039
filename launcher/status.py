"""``make status``: a table of the processes, and the last log lines of those that died."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dispatch.cli.output import table
from launcher import envfile, files, procfs
from launcher.control import Stack
from launcher.layout import ProcessState

RUNNING, FAULTY, STOPPED = 0, 1, 3  #: exit statuses of LSB init scripts

_HEADS = ("PROCESS", "STATE", "PID", "SINCE", "RESTARTS", "ADDRESS")


def report(stack: Stack) -> tuple[list[str], int]:
    """Describe a stack.

    Args:
        stack: the stack.

    Returns:
        The lines to print, and the exit status: 0 all ready, 1 not all ready, 3 nothing runs.
    """
    if not stack.supervised():
        return _unsupervised(stack)
    state = stack.state()
    processes = state["processes"]
    lines = [*table(_HEADS, map(_row, processes), right={"PID", "SINCE", "RESTARTS"}).splitlines(), ""]
    for process in processes:
        lines += _failures(process)
    lines += [*state["notes"], f"supervisor pid {state['supervisor']}; addresses and pids: {stack.run.env}"]
    ready = all(process["state"] == ProcessState.READY for process in processes)
    return lines, RUNNING if ready else FAULTY


def _unsupervised(stack: Stack) -> tuple[list[str], int]:
    leftovers = procfs.owned(stack.run.path)
    if not leftovers:
        return [f"nothing is running in {stack.run.path}"], STOPPED
    lines = [f"the supervisor is dead; these processes remain (make up or make down stops them, {stack.run.path}):"]
    return [*lines, *(f"  pid {pid}: {procfs.command(pid)[:100]}" for pid in leftovers)], FAULTY


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    age = _duration(time.time() - process["since"])
    pid = str(process["pid"] or "-")
    return process["name"], process["state"], pid, age, str(process["restarts"]), process["address"]


def _failures(process: dict[str, Any]) -> Iterator[str]:
    if process["reason"] and process["state"] != ProcessState.READY:
        yield f"{process['name']} is not ready: {process['reason']}"
    if process["restarts"]:
        yield f"{process['name']} was restarted {process['restarts']} times; the process last {process['ending']}. Its log ({process['log']}):"
        yield from (f"  | {line}" for line in files.tail(Path(process["log"]), 5))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def addresses(stack: Stack) -> list[str]:
    """The addresses to print after ``up``.

    Args:
        stack: the stack.
    """
    values = envfile.read(stack.run.env)
    titles = {"DISPATCH_HTTP_URL": "gateway", "FLOWER_URL": "Flower"}
    lines = [f"{title:<10} {values[key]}" for key, title in titles.items() if key in values]
    return [*lines, f"{'all':<10} {stack.run.env}"]
