"""The processes of a stack, from Linux's ``/proc``.

Every process that the launcher starts inherits a marker variable. It identifies leftovers of a dead supervisor whose pids
were not recorded, and excludes processes with a reused pid.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dispatch.config import stack_env
from launcher.errors import LaunchError

MARKER = stack_env.MARKER  #: its value is the run directory, absolute

_PROC = Path("/proc")


def require() -> None:
    """Check that Linux's ``/proc`` exists.

    Raises:
        LaunchError: it does not.
    """
    if not (_PROC / "self" / "environ").exists():
        raise LaunchError("the launcher needs Linux (/proc); elsewhere use Docker: docker compose up")


def environ(pid: int) -> dict[str, str]:
    """The environment with which a process was started; empty when it has ended or is not readable."""
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def belongs(pid: int, run_dir: Path) -> bool:
    """Whether a process is alive and was started for this run directory."""
    return environ(pid).get(MARKER) == str(run_dir)


def owned(run_dir: Path) -> list[int]:
    """Every live process that was started for this run directory, except the caller."""
    return [pid for pid in _pids() if pid != os.getpid() and belongs(pid, run_dir)]


def started_at(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when it has ended or is a zombie.

    Pid and start time together identify a process uniquely, since pids are reused.
    """
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def command(pid: int) -> str:
    """The command line of a process, for display; empty when it has ended."""
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to each process; ignores those that have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def terminate(pids: Iterable[int], grace: float) -> list[int]:
    """Send SIGTERM, then SIGKILL to the remaining processes.

    Args:
        pids: the processes.
        grace: seconds between the two.

    Returns:
        The processes that had to be killed.
    """
    start_times = {pid: started_at(pid) for pid in pids}
    send(start_times, signal.SIGTERM)
    if not (remaining := _wait_ended(start_times, grace)):
        return []
    send(remaining, signal.SIGKILL)
    _wait_ended({pid: start_times[pid] for pid in remaining}, 5.0)
    return remaining


def _wait_ended(start_times: dict[int, int | None], seconds: float) -> list[int]:
    """The processes that are alive after waiting for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [pid for pid, start in start_times.items() if start is not None and started_at(pid) == start]
        if not alive or time.monotonic() >= deadline:
            return alive
        time.sleep(0.05)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
