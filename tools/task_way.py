"""One task's way: the files that run between POST and SUCCESS, ``python -m tools.task_way [--root PATH --python PATH]``.

Sends one echo task through a private RabbitMQ and Redis, a gateway in one process and a worker in two, and lists the
files of the product whose functions are called for it. The gateway counts until it has answered 202, the worker until
the message is acked. Background work is separated by an idle window before the POST: a function that its thread also
calls while idle does not count, nor does a script that Redis also runs then.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dispatch.cli import pipes
from tools import call_recorder, private_stack, source_tree
from tools.call_recorder import Call
from tools.private_stack import PrivateStack
from tools.redis_monitor import RedisMonitor

#: Seconds of the idle window: longer than the period of any background thread.
IDLE = 20.0

#: Seconds that two tasks and the idle window may take on a busy machine.
_PATIENCE = 300.0

#: One pool process, so that the first task prepares the process that runs the second.
_SETTINGS = {"concurrency_min": 1, "concurrency_max": 1}


#: Files by process.
Files = dict[str, set[str]]

#: Files of one process: those on the task's way, and those of background work only.
Split = tuple[set[str], set[str]]


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of the monotonic clock."""

    idle: float  #: the idle window began; it ends with the POST
    sent: float
    accepted: float  #: the gateway answered
    over: float  #: the worker has acked


@dataclasses.dataclass(frozen=True)
class Way:
    """What a task's way consists of."""

    python: Files
    background: Files  #: run during the task as they do while idle: not counted
    lua: set[str]

    @property
    def files(self) -> set[str]:
        """The distinct Python files."""
        return set().union(*self.python.values())


def trace(root: Path, python: Path | None, idle: float) -> Way:
    """Follow one task.

    Args:
        root: the checkout.
        python: its interpreter; its own ``.venv`` by default.
        idle: seconds of the idle window.
    """
    with private_stack.running(root, python, "servers", **_SETTINGS) as stack, _prepared(stack) as environ:
        monitor = RedisMonitor(stack.addresses["DISPATCH_REDIS_URL"])
        monitor.start()
        with _worker(stack, environ) as worker:
            times, gateway = _gateway(stack, environ, idle)
        records = call_recorder.records(Path(environ[call_recorder.DIRECTORY]))
        found = _by_process({pid: _files(calls, times, pid == gateway) for pid, calls in records}, gateway, worker)
        return Way(*found, _scripts(monitor, stack.root, times))


def _by_process(files: Mapping[int, Split], gateway: int, worker: int) -> tuple[Files, Files]:
    """The files of each pid under its process's name; several children count as one."""
    names = {gateway: "gateway", worker: "worker, main process"}
    task, background = Files(), Files()
    for pid, (own, idle) in files.items():
        name = names.get(pid, "worker, child")
        task.setdefault(name, set()).update(own)
        background.setdefault(name, set()).update(idle)
    return task, background


def _files(calls: Sequence[Call], times: Times, gateway: bool) -> Split:
    """The files of the calls that a process made during the task: those that it made for the task only, the others."""
    end = times.accepted if gateway else times.over
    idle = {(call.thread, call.function) for call in calls if times.idle <= call.at < times.sent}
    during = [call for call in calls if times.sent <= call.at <= end]
    own = {call.path for call in during if (call.thread, call.function) not in idle}
    return own, {call.path for call in during} - own


def _scripts(monitor: RedisMonitor, root: Path, times: Times) -> set[str]:
    """The Lua files that Redis ran for the task only."""
    names = monitor.names({path.as_posix(): text for path, text in source_tree.lua_scripts(root).items()})
    background = {sha for at, sha in monitor.runs() if times.idle <= at < times.sent}
    during = {sha for at, sha in monitor.runs() if times.sent <= at <= times.over}
    return {name for sha in during - background for name in names.get(sha, [f"script {sha[:8]}"])}


@contextlib.contextmanager
def _prepared(stack: PrivateStack) -> Iterator[dict[str, str]]:
    """The environment of traced processes: the checkout's code, but these tools, whatever the checkout has."""
    with tempfile.TemporaryDirectory(prefix="robot-dispatch-traced-") as directory:
        place = Path(directory).resolve()
        (place / "tools").symlink_to(Path(__file__).resolve().parent)
        yield {
            **stack.environ,
            **stack.addresses,
            private_stack.MARKER: str(stack.directory),
            call_recorder.ROOT: str(stack.root),
            call_recorder.DIRECTORY: str(place),
            "PYTHONPATH": f"{place}:{stack.root}",
        }


@contextlib.contextmanager
def _worker(stack: PrivateStack, environ: Mapping[str, str]) -> Iterator[int]:
    """A traced worker; its pid. Killed with the stack if it does not stop."""
    command = [str(stack.python), "-m", "celery", "-A", "tools._traced_celery_app", "worker", "--autoscale=1,1"]
    place = environ[call_recorder.DIRECTORY]
    with (stack.directory / "traced-worker.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**environ, "REMAP_SIGTERM": "SIGQUIT"}, cwd=place, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _gateway(stack: PrivateStack, environ: Mapping[str, str], idle: float) -> tuple[Times, int]:
    """Run the traced gateway to its end; its times and its pid."""
    command = [str(stack.python), "-m", "tools._traced_gateway", str(idle)]
    process = subprocess.Popen(
        command, env=environ, cwd=environ[call_recorder.DIRECTORY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        log = (stack.directory / "traced-worker.log").read_text(errors="replace")
        raise RuntimeError(f"the traced gateway failed:\n{errors.decode()[-3_000:]}\nthe worker:\n{log[-3_000:]}")
    return Times(**json.loads(output.splitlines()[-1])), process.pid


def report(way: Way) -> Iterator[str]:
    """The lines to print: files by process, then how many there are."""
    for process in sorted(way.python):
        yield f"{process}: {len(way.python[process])} Python files"
        yield from (f"  {path}" for path in sorted(way.python[process]))
        yield from (f"  ({path}: as while idle, not counted)" for path in sorted(way.background[process]))
    yield f"redis: {len(way.lua)} Lua scripts"
    yield from (f"  {path}" for path in sorted(way.lua))
    yield f"distinct Python files: {len(way.files)}"
    yield f"distinct Lua scripts: {len(way.lua)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print one task's way.

    Args:
        argv: the command line without the program; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.task_way", description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a checkout; the current directory by default")
    parser.add_argument("--python", type=Path, help="its interpreter; ROOT/.venv/bin/python by default")
    parser.add_argument("--idle", type=float, default=IDLE, help="seconds of the idle window (default: %(default)g)")
    args = parser.parse_args(argv)
    print("\n".join(report(trace(args.root, args.python, args.idle))))


if __name__ == "__main__":
    with pipes.quiet():
        main()
