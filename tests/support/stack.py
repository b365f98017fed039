"""A stack under ``python -m launcher``, as a user has it: for tests that kill real processes.

Imports nothing of ours: the command line and the ``env`` file are the interface.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
MARKER = "ROBOT_DISPATCH_RUN"


@dataclasses.dataclass(frozen=True)
class Stack:
    """One run directory and the environment its commands get."""

    run_dir: Path
    environ: dict[str, str]
    root: Path = ROOT  #: the checkout that its commands run in

    def command(self, *words: str, expect: int = 0, **environ: str) -> str:
        """Run a command of the launcher; its output (both streams)."""
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *words],
            env={**self.environ, **environ},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == expect, done.stdout
        return done.stdout

    @property
    def env(self) -> dict[str, str]:
        """The ``env`` file as it is now; empty when there is none."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.run_dir / "env").read_text().splitlines()
            return dict(line.split("=", 1) for line in lines)
        return {}

    def pid(self, name: str) -> int:
        """The pid of e.g. ``WORKER`` as the ``env`` file has it now."""
        return int(self.env[f"{name}_PID"])

    def log(self, name: str) -> str:
        """A process's log so far."""
        return (self.run_dir / "log" / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> int:
        """SIGKILL to e.g. ``REDIS``; its pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_and_see_back(self, name: str, timeout: float = 60) -> None:
        """SIGKILL, then wait until the launcher has started another and that answers."""
        old = self.kill(name)
        eventually(lambda: self.env.get(f"{name}_PID") not in (None, str(old)), 15, f"{name} was not restarted")
        wait = time.monotonic() + timeout
        ready = re.compile(rf"^{name.lower()} +ready ", re.MULTILINE)
        eventually(lambda: ready.search(self.status()), wait - time.monotonic(), self.status)

    def status(self) -> str:
        """The output of ``status``, whatever its exit status."""
        command = [sys.executable, "-m", "launcher", "status"]
        return subprocess.run(
            command, env=self.environ, cwd=self.root, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    def processes(self) -> list[int]:
        """Every live process that was started for this run directory."""
        mark = f"{MARKER}={self.run_dir}\0".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def destroy(self) -> None:
        """Kill whatever is left, delete everything."""
        with contextlib.suppress(KeyError, ProcessLookupError):
            if self.pid("SUPERVISOR") in self.processes():  # the pid of one that died long ago may be another's
                self.kill("SUPERVISOR")

        def gone() -> bool:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self.processes()

        eventually(gone, 15, "the stack's processes did not go away")
        shutil.rmtree(self.run_dir, ignore_errors=True)


def make(root: Path = ROOT, **settings: object) -> Stack:
    """A stack with nothing running yet.

    Args:
        root: the checkout that it runs from.
        settings: e.g. ``lease=2`` for ``DISPATCH_LEASE=2``.
    """
    run_dir = Path(tempfile.mkdtemp(prefix="robot-dispatch-stack-")).resolve()
    run_dir.chmod(0o755)  # the servers' own users pass through it
    own = {f"DISPATCH_{name.upper()}": str(value) for name, value in settings.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCH_")}
    return Stack(run_dir, {**inherited, "DISPATCH_HTTP_PORT": "0", **own, "DISPATCH_RUN_DIR": str(run_dir)}, root)


@contextlib.contextmanager
def running(only: str = "all", root: Path = ROOT, **settings: object) -> Iterator[Stack]:
    """A running stack that is thrown away in the end.

    Args:
        only: as the command line's ``--only``.
        root: the checkout that it runs from.
        settings: e.g. ``lease=2`` for ``DISPATCH_LEASE=2``.
    """
    stack = make(root, **settings)
    try:
        stack.command("up", "--only", only)
        yield stack
    finally:
        stack.destroy()
