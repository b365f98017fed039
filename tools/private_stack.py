"""A stack of a checkout's own launcher, in a directory of its own, for one measurement.

The launcher's command line and its ``env`` file are the whole interface, so that any checkout can be measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: In the environment of every process of a stack: its run directory.
MARKER = "ROBOT_DISPATCH_RUN"

#: Seconds a command of the launcher may take.
_COMMAND = 180.0

#: Not inherited: settings and interpreter of the shell that measures.
_FOREIGN = ("DISPATCH_", "PYTHONPATH", "VIRTUAL_ENV")


@dataclasses.dataclass(frozen=True)
class PrivateStack:
    """One run directory, and what is started in it."""

    root: Path  #: the checkout
    python: Path  #: its interpreter
    directory: Path  #: the run directory
    environ: Mapping[str, str]

    def command(self, *words: str) -> None:
        """Run a command of the launcher.

        Raises:
            RuntimeError: it failed; the text is its output.
        """
        command = [str(self.python), "-m", "launcher", *words]
        done = subprocess.run(
            command, env=self.environ, cwd=self.root, capture_output=True, text=True, timeout=_COMMAND, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")

    @property
    def addresses(self) -> dict[str, str]:
        """The ``env`` file: where the servers answer, and their pids."""
        lines = (self.directory / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def processes(self) -> list[int]:
        """Every live process that was started for this run directory."""
        mark = f"{MARKER}={self.directory}\0".encode()
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environ(entry)]

    def end(self) -> None:
        """Stop everything, kill what is left by its pid, delete the directory."""
        with contextlib.suppress(RuntimeError, OSError, subprocess.TimeoutExpired):
            self.command("down")
        with contextlib.suppress(TimeoutError):
            eventually(self._killed, 20, "the stack's processes did not end")
        shutil.rmtree(self.directory, ignore_errors=True)

    def _killed(self) -> bool:
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left


@contextlib.contextmanager
def running(root: Path, python: Path | None, *verb: str, **settings: object) -> Iterator[PrivateStack]:
    """A stack that is ended in the end.

    Args:
        root: the checkout.
        python: its interpreter; its own ``.venv`` by default.
        verb: the launcher's command that starts it.
        settings: e.g. ``lease=2`` for ``DISPATCH_LEASE=2``.
    """
    root = root.resolve()
    own = root / ".venv" / "bin" / "python"
    directory = Path(tempfile.mkdtemp(prefix="robot-dispatch-measured-")).resolve()
    directory.chmod(0o755)  # the servers' own users pass through it
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environ |= {f"DISPATCH_{name.upper()}": str(value) for name, value in settings.items()}
    environ |= {"DISPATCH_HTTP_PORT": "0", "DISPATCH_RUN_DIR": str(directory), "PYTHONPATH": str(root)}
    chosen = python or (own if own.exists() else Path(sys.executable))
    # Not resolved: an interpreter finds its packages by the place of its own link.
    stack = PrivateStack(root, chosen.absolute(), directory, environ)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack ends with its measurement
    try:
        stack.command(*verb)
        yield stack
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would leave the servers behind
        stack.end()


def eventually(look: Callable[[], T | None], timeout: float, expected: str) -> T:
    """Wait for something true.

    Args:
        look: returns it, or something false.
        timeout: seconds it may take.
        expected: the message of the error.

    Raises:
        TimeoutError: it took longer.
    """
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"after {timeout:g} s: {expected}")
        time.sleep(0.1)
    return found


def _environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
