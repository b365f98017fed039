"""Which processes are ours: Linux's ``/proc``, no dependency.

Every process that the launcher starts inherits a marker variable, so that leftovers of a dead
supervisor are found even when nothing recorded their pids, and a pid that was reused never is taken
for ours.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from launcher.errors import LaunchError

MARKER = "ROBOT_DISPATCH_RUN"  #: its value is the run directory, absolute

_PROC = Path("/proc")


def require() -> None:
    """Refuse a machine that has no Linux ``/proc``.

    Raises:
        LaunchError: there is none.
    """
    if not (_PROC / "self" / "environ").exists():
        raise LaunchError("this needs Linux (/proc); elsewhere use Docker: docker compose up")


def environ(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone, dead or not readable."""
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def belongs(pid: int, run_dir: Path) -> bool:
    """Whether a process lives and was started for this run directory."""
    return environ(pid).get(MARKER) == str(run_dir)


def owned(run_dir: Path) -> list[int]:
    """Every live process that was started for this run directory, the caller apart."""
    return [pid for pid in _pids() if pid != os.getpid() and belongs(pid, run_dir)]


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie.

    Together with the pid it names a process for ever, pids being reused.
    """
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def command(pid: int) -> str:
    """A process's command line, for people; empty when it is gone."""
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def send(pids: Iterable[int], signum: int) -> None:
    """Send a signal to each process; one that is gone is no error."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def terminate(pids: Iterable[int], grace: float) -> list[int]:
    """SIGTERM, then SIGKILL for what is left.

    Args:
        pids: the processes.
        grace: seconds they get to finish.

    Returns:
        The processes that had to be killed.
    """
    born = {pid: started_at(pid) for pid in pids}
    send(born, signal.SIGTERM)
    if not (late := _wait_gone(born, grace)):
        return []
    send(late, signal.SIGKILL)
    _wait_gone({pid: born[pid] for pid in late}, 5.0)
    return late


def _wait_gone(born: dict[int, int | None], seconds: float) -> list[int]:
    """The processes that still live after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        left = [pid for pid, start in born.items() if start is not None and started_at(pid) == start]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.05)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
