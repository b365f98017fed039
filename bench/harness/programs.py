"""Programs under measurement: started in a process group of their own, ended by its id."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.harness.errors import BenchmarkFailed

#: Seconds that a program may take to start, or to answer a question of the harness; for a busy machine.
PATIENCE = 90.0

#: Seconds between SIGTERM and SIGKILL.
_GRACE = 20.0

_POLL = 0.02


class MeasuredProgram:
    """A running program.

    Args:
        process: it leads a process group.
        log: its output.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._over = False

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self._over or not self._alive()

    def last_output(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1_500:]

    def require(self, condition: Callable[[], object], expected: str, within: float = PATIENCE) -> None:
        """Wait for a condition while the program runs.

        Args:
            condition: polled.
            expected: for the error's text.
            within: seconds.

        Raises:
            BenchmarkFailed: the program ended, or it took longer.
        """
        until = time.monotonic() + within
        while not condition():
            if self.ended() or time.monotonic() > until:
                state = "the program ended" if self.ended() else f"not after {within:.0f} s"
                raise BenchmarkFailed(f"{expected}: {state}\n{self.last_output()}")
            time.sleep(_POLL)

    def end(self) -> None:
        """SIGTERM to the program, SIGKILL to what is left of its group.

        Until the program is waited for, its number can't become another group's.
        """
        if self._over:
            return
        self._over = True
        os.kill(self.pid, signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while self._alive() and time.monotonic() < until:
            time.sleep(_POLL)
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], environ: Mapping[str, str], directory: Path, logs: Path
) -> Iterator[MeasuredProgram]:
    """Start a program and end it in the end.

    Args:
        name: of its log file.
        command: its words.
        environ: its whole environment.
        directory: its working directory.
        logs: the directory of its log file.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name.replace(' ', '-')}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=dict(environ), stdout=output, stderr=output, start_new_session=True
        )
    program = MeasuredProgram(process, log)
    try:
        yield program
    finally:
        program.end()


def completed(command: Sequence[str], environ: Mapping[str, str], directory: Path, within: float) -> str:
    """Run a program to its end; its standard output.

    Args:
        command: its words.
        environ: its whole environment.
        directory: its working directory.
        within: seconds.

    Raises:
        BenchmarkFailed: it failed, or took longer.
    """
    try:
        done = subprocess.run(
            command, cwd=directory, env=dict(environ), capture_output=True, text=True, timeout=within, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkFailed(f"{' '.join(command)}: not within {within:.0f} s") from exc
    if done.returncode:
        raise BenchmarkFailed(f"{' '.join(command)} failed:\n{done.stdout[-1_500:]}{done.stderr[-1_500:]}")
    return done.stdout


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str = "/readyz") -> bool:
    """Whether an HTTP server on this machine answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False
