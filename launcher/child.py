"""One supervised process: started, probed, restarted when it dies."""

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
from launcher.layout import ProcessState
from launcher.processes import START, Spec, spawn

FIRST_DELAY = 0.25  #: seconds before a dead process is restarted; doubles with each death
LONGEST_DELAY = 10.0  #: seconds
STABLE_AFTER = 20.0  #: seconds in READY after which earlier deaths no longer count

log = logging.getLogger(__name__)


class Child:
    """A process and its state.

    Args:
        spec: how to start it.
        path: its log file.
    """

    def __init__(self, spec: Spec, path: Path) -> None:
        self.spec = spec
        self.state = ProcessState.WAITING
        self.restarts = 0
        self._log = path
        self._process: subprocess.Popen[bytes] | None = None
        self._start = ""
        self._reason = ""  #: why it is not ready
        self._ending = ""  #: how it last ended
        self._deaths = 0  #: since it was last ready for `STABLE_AFTER`
        self._was_ready = False
        self._since = time.time()
        self._due = 0.0  #: `time.monotonic` seconds: time of the restart or of the kill
        self._restarting = False

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self._process.pid if self._process else None

    def step(self, *, may_start: bool) -> bool:
        """Execute the actions that are due.

        Args:
            may_start: whether the processes it depends on are ready.

        Returns:
            Whether its published state changed.
        """
        before = (self.state, self.pid, self._reason)
        if self._process and _exited(self._process.pid):
            self._record_exit(self._process)
        if (self.state is ProcessState.WAITING and may_start) or (
            self.state is ProcessState.BACKOFF and time.monotonic() >= self._due
        ):
            self._spawn()
        elif self.state is ProcessState.STARTING:
            self._probe()
        elif self.state is ProcessState.STOPPING and time.monotonic() >= self._due:
            self._kill()
        return (self.state, self.pid, self._reason) != before

    def stop(self, *, restart: bool = False) -> None:
        """Terminate it; it is killed after its grace period.

        Args:
            restart: whether to start it again afterwards.
        """
        self._restarting = restart
        if self._process is None:
            self._enter(ProcessState.WAITING if restart else ProcessState.STOPPED)
        elif self.state is not ProcessState.STOPPING:
            self._enter(ProcessState.STOPPING)
            self._due = time.monotonic() + self.spec.grace
            self._process.terminate()

    def snapshot(self) -> dict[str, Any]:
        """Its published state, JSON-ready."""
        return {
            "name": self.spec.name,
            "state": self.state.value,
            "pid": self.pid,
            "since": self._since,
            "restarts": self.restarts,
            "deaths": self._deaths,
            "wasReady": self._was_ready,
            "reason": self._reason,
            "ending": self._ending,
            "address": self.spec.address,
            "grace": self.spec.grace,
            "log": str(self._log),
        }

    def _spawn(self) -> None:
        spec = self.spec
        self._start = f"{time.time_ns() // 1_000_000:x}"
        command = [argument.replace(START, self._start) for argument in spec.command]
        try:
            self._process = spawn(command, spec.environ, spec.directory, self._log, spec.account)
        except OSError as exc:
            self._schedule_restart(f"could not be started: {exc}")
            return
        log.info("%s started, pid %d", spec.name, self._process.pid)
        self._reason = ""
        self._enter(ProcessState.STARTING)

    def _probe(self) -> None:
        self._reason = self.spec.ready(self._start) or ""
        if not self._reason:
            log.info("%s is ready after %.1f s", self.spec.name, time.time() - self._since)
            self._was_ready = True
            self._enter(ProcessState.READY)

    def _record_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the rest of the process group, reap the process, and record how it ended.

        The group is killed before its leader is reaped: until then the id of the group cannot be reused.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        ending = _describe(process.wait())
        log.info("%s (pid %d) %s", self.spec.name, process.pid, ending)
        self._process = None
        if self.state is not ProcessState.STOPPING:
            self._schedule_restart(ending)
            return
        self._ending = ending
        self._enter(ProcessState.WAITING if self._restarting else ProcessState.STOPPED)

    def _schedule_restart(self, ending: str) -> None:
        self.restarts += 1
        self._ending = ending
        if self.state is ProcessState.READY and time.time() - self._since >= STABLE_AFTER:
            self._deaths = 0
        delay = min(FIRST_DELAY * 2**self._deaths, LONGEST_DELAY)
        self._deaths += 1
        self._due = time.monotonic() + delay
        log.info("%s restarts in %.2f s; last lines of its log:", self.spec.name, delay)
        for line in files.tail(self._log, 5):
            log.info("%s | %s", self.spec.name, line)
        self._enter(ProcessState.BACKOFF)

    def _kill(self) -> None:
        if self._process:
            log.info("%s did not stop within %.0f s: killed", self.spec.name, self.spec.grace)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._due = float("inf")

    def _enter(self, state: ProcessState) -> None:
        if state is not self.state:
            self.state = state
            self._since = time.time()


def _exited(pid: int) -> bool:
    """Whether a child has ended; does not reap it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _describe(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was terminated by {signal.Signals(-status).name}"
    return f"exited with status {status}"
