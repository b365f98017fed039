"""One supervised process: started, watched, started again when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from launcher import files
from launcher.layout import State
from launcher.processes import START, Spec, spawn

FIRST_DELAY = 0.25  #: seconds before a dead process is started again; doubles with each death
LONGEST_DELAY = 10.0  #: seconds
FORGIVEN_AFTER = 20.0  #: seconds of being ready after which earlier deaths no longer count

log = logging.getLogger(__name__)


class Child:
    """A process and what became of it.

    Args:
        spec: what to start.
        path: its log.
    """

    def __init__(self, spec: Spec, path: Path) -> None:
        self.spec = spec
        self.state = State.WAITING
        self.restarts = 0
        self._log = path
        self._process: subprocess.Popen[bytes] | None = None
        self._start = ""
        self._why = ""
        self._ending = ""  #: how it last ended
        self._deaths = 0  #: since it was last ready for a while
        self._was_ready = False
        self._since = time.time()
        self._due = 0.0  #: monotonic: when to start again, or when to kill
        self._restarting = False

    @property
    def pid(self) -> int | None:
        """Its process id; None while it doesn't run."""
        return self._process.pid if self._process else None

    def step(self, *, may_start: bool) -> bool:
        """Do what is due.

        Args:
            may_start: whether everything it needs is ready.

        Returns:
            Whether anything changed that others should hear of.
        """
        before = (self.state, self.pid, self._why)
        if self._process and _exited(self._process.pid):
            self._bury(self._process)
        if (self.state is State.WAITING and may_start) or (
            self.state is State.BACKOFF and time.monotonic() >= self._due
        ):
            self._spawn()
        elif self.state is State.STARTING:
            self._look()
        elif self.state is State.STOPPING and time.monotonic() >= self._due:
            self._kill()
        return (self.state, self.pid, self._why) != before

    def stop(self, *, restart: bool = False) -> None:
        """Ask it to end; it is killed when its grace is over.

        Args:
            restart: whether it is then started again.
        """
        self._restarting = restart
        if self._process is None:
            self._enter(State.WAITING if restart else State.STOPPED)
        elif self.state is not State.STOPPING:
            self._enter(State.STOPPING)
            self._due = time.monotonic() + self.spec.grace
            self._process.terminate()

    def snapshot(self) -> dict[str, Any]:
        """What others may know of it, for JSON."""
        return {
            "name": self.spec.name,
            "state": self.state.value,
            "pid": self.pid,
            "since": self._since,
            "restarts": self.restarts,
            "deaths": self._deaths,
            "wasReady": self._was_ready,
            "why": self._why,
            "ending": self._ending,
            "address": self.spec.address,
            "grace": self.spec.grace,
            "log": str(self._log),
        }

    def _spawn(self) -> None:
        spec = self.spec
        self._start = f"{time.time_ns() // 1_000_000:x}"
        command = [word.replace(START, self._start) for word in spec.command]
        try:
            self._process = spawn(command, spec.environ, spec.directory, self._log, spec.account)
        except OSError as exc:
            self._again(f"can't be started: {exc}")
            return
        log.info("%s started, pid %d", spec.name, self._process.pid)
        self._why = ""
        self._enter(State.STARTING)

    def _look(self) -> None:
        self._why = self.spec.ready(self._start) or ""
        if not self._why:
            log.info("%s is ready after %.1f s", self.spec.name, time.time() - self._since)
            self._was_ready = True
            self._enter(State.READY)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Take note of a death, and leave nothing of its group behind.

        The group is killed before its leader is reaped: until then nobody else can have its number.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        ending = _describe(process.wait())
        log.info("%s (pid %d) %s", self.spec.name, process.pid, ending)
        self._process = None
        if self.state is not State.STOPPING:
            self._again(ending)
            return
        self._ending = ending
        self._enter(State.WAITING if self._restarting else State.STOPPED)

    def _again(self, ending: str) -> None:
        self.restarts += 1
        self._ending = ending
        if self.state is State.READY and time.time() - self._since >= FORGIVEN_AFTER:
            self._deaths = 0
        delay = min(FIRST_DELAY * 2**self._deaths, LONGEST_DELAY)
        self._deaths += 1
        self._due = time.monotonic() + delay
        log.info("%s is started again in %.2f s; last lines of its log:", self.spec.name, delay)
        for line in files.tail(self._log, 5):
            log.info("%s | %s", self.spec.name, line)
        self._enter(State.BACKOFF)

    def _kill(self) -> None:
        if self._process:
            log.info("%s did not stop within %.0f s: killed", self.spec.name, self.spec.grace)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._due = float("inf")

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._since = time.time()


def _exited(pid: int) -> bool:
    """Whether a child has ended; it is not reaped yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _describe(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"exited with status {status}"
