"""Processes of ours for tests, forked from one that has imported the libraries: a start takes a third of the CPU.

What is imported beforehand (`support.libraries`) reads no variable. A process imports everything else itself, in its own
environment, and from then on is what its command names: a worker, a gateway, a command.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: Of `multiprocessing`: pipes for a `Forked` function are made by it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["support.libraries"])

#: A process with this variable is executed, not forked: it needs what an interpreter does at its start.
FRESH = "ROBOT_TEST_FRESH_INTERPRETER"

#: What SIGTERM means to a worker, by a variable that billiard reads when it is imported, and what it means in a deployment.
_TERM, _DEPLOYED = "REMAP_SIGTERM", "SIGQUIT"

#: Of the process that is forked from: no test's own, which its processes would inherit whatever their environment. It finds
#: `support` by its path, and `multiprocessing` ignores what it cannot import.
_VARIABLES = {
    **os.environ,
    _TERM: _DEPLOYED,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]),
}

_BECOMING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Output:
    """Files that take the place of standard output and standard error."""

    out: Path
    errors: Path


class Forked:
    """A function of a module in a process of its own, with the part of `subprocess.Popen` that tests use.

    Args:
        target: a function of a module, not a lambda; its module is imported when the environment is set.
        arguments: for it.
        environ: all variables of the process; this process's by default.
        output: where it writes; to this process's output by default.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *arguments: Any,
        environ: Mapping[str, str] | None = None,
        output: Output | None = None,
    ) -> None:
        with _BECOMING:  # a thread that saw another's variables would put them back for good
            variables = dict(os.environ if environ is None else environ)
            with _environment(_VARIABLES):
                forkserver.ensure_running()
        function = (target.__module__, target.__qualname__)
        self._process = CONTEXT.Process(target=_call, args=(function, arguments, variables, output))
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As `poll`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit code; negative: the signal that ended it; None: it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """As `poll`, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, if it still runs."""
        if self.poll() is None:
            # The fork server may have reaped it; how it ended comes a moment later.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped a process."""
    with contextlib.suppress(FileNotFoundError):  # it has ended
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def start(
    module: str, words: Sequence[str], *, environ: Mapping[str, str], output: Output
) -> Forked | subprocess.Popen[bytes]:
    """Start ``python -m module words`` in the project's directory.

    Args:
        module: what to run.
        words: its command line.
        environ: all its variables.
        output: where it writes.
    """
    if FRESH in environ or environ.get(_TERM, _DEPLOYED) != _DEPLOYED:
        with output.out.open("ab") as out, output.errors.open("ab") as errors:
            command = [sys.executable, "-m", module, *words]
            return subprocess.Popen(command, cwd=ROOT, env=dict(environ), stdout=out, stderr=errors)
    return Forked(_run_module, module, list(words), environ=environ, output=output)


def run(
    module: str, words: Sequence[str], *, environ: Mapping[str, str], timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module words`` to its end.

    Args:
        module: what to run.
        words: its command line.
        environ: all its variables.
        timeout: seconds it may take.

    Returns:
        Its exit code and what it wrote.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with tempfile.TemporaryDirectory(prefix="robot-dispatch-command-") as directory:
        output = Output(Path(directory) / "out", Path(directory) / "errors")
        process = start(module, words, environ=environ, output=output)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess([module, *words], code, output.out.read_text(), output.errors.read_text())


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    own = dict(os.environ)
    _become(variables)
    try:
        yield
    finally:
        _become(own)


def _become(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _call(
    function: tuple[str, str], arguments: tuple[Any, ...], environ: dict[str, str], output: Output | None
) -> None:
    _become(environ)
    if output is not None:
        sys.stdout.flush()
        for number, path in ((1, output.out), (2, output.errors)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(opened, number)
            os.close(opened)
    module, name = function
    try:
        getattr(importlib.import_module(module), name)(*arguments)
    finally:
        atexit._run_exitfuncs()  # what `multiprocessing` leaves out


def _run_module(module: str, words: list[str]) -> None:
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [module, *words]
    if chosen := os.environ.get("PYTHONWARNINGS"):
        warnings.simplefilter(chosen)  # type: ignore[arg-type]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
