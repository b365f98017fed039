"""``make status``: a table of the processes, and the last log lines of those that died."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dispatch.cli.tables import table
from launcher import envfile, files, layout, procfs
from launcher.control import Stack
from launcher.layout import ProcessState

RUNNING, FAULTY, STOPPED = 0, 1, 3  #: exit statuses of LSB init scripts

#: The state of a process that was ready when it started, and can't be used now.
_UNUSABLE = "not ready"

#: The settings by which servers are named that the launcher may not have started.
_URLS = {"rabbitmq": "DISPATCH_BROKER_URL", "redis": "DISPATCH_REDIS_URL"}

#: The whole stack's state in JSON, by exit status.
_STATES = {RUNNING: "ready", FAULTY: "not-ready", STOPPED: "stopped"}

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
    state, others = _looked_at(stack)
    processes = state["processes"]
    lines = [*table(_HEADS, map(_row, processes), right={"PID", "SINCE", "RESTARTS"}).splitlines(), ""]
    for process in processes:
        lines += _failures(process)
    lines += [*others, *state["notes"], f"supervisor pid {state['supervisor']}; addresses and pids: {stack.run.env}"]
    return lines, _code(processes, others)


def as_json(stack: Stack) -> tuple[list[str], int]:
    """As `report`, for programs."""
    state, others = _looked_at(stack) if stack.supervised() else ({"processes": [], "notes": []}, [])
    code = _code(state["processes"], others) if stack.supervised() else _unsupervised(stack)[1]
    keys = ("name", "state", "pid", "since", "restarts", "address", "reason")
    processes = [
        {key: process[key] or None if key != "restarts" else process[key] for key in keys}
        for process in state["processes"]
    ]
    notes = [*others, *state["notes"]]
    shown = {"state": _STATES[code], "processes": processes, "notes": notes, "env": str(stack.run.env)}
    return [json.dumps(shown, indent=2)], code


def _looked_at(stack: Stack) -> tuple[dict[str, Any], list[str]]:
    """The state as the supervisor knows it, with what can't be used now; and why servers that are not of the stack can't be."""
    from launcher import health  # noqa: PLC0415 - its libraries, for this command alone

    state = stack.state()
    ready = {process["name"] for process in state["processes"] if process["state"] == ProcessState.READY}
    external = {name for name, url in _URLS.items() if url not in stack.own()}
    silent = health.troubles(envfile.read(stack.run.env), ready | external)
    for process in state["processes"]:
        if process["name"] in silent:
            process.update(state=_UNUSABLE, reason=silent[process["name"]])
    return state, [reason for name, reason in silent.items() if name in external]


def _code(processes: list[dict[str, Any]], others: list[str]) -> int:
    sound = not others and all(process["state"] == ProcessState.READY for process in processes)
    return RUNNING if sound else FAULTY


def _unsupervised(stack: Stack) -> tuple[list[str], int]:
    leftovers = procfs.owned(stack.run.path)
    if not leftovers:
        return [f"nothing is running in {stack.run.path}"], STOPPED
    lines = [
        f"the supervisor is dead; these processes remain ({layout.command('up')} or {layout.command('down')} stops them, {stack.run.path}):"
    ]
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
