"""The supervisor: owns every process of a stack, restarts those that die, and publishes their state in files.

It writes ``env`` (URLs and pids) and ``state.json``; commands send requests through ``request.json`` and SIGHUP. It holds
a lock while it runs, by which commands detect it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dispatch.config import settings as configuration
from dispatch.config.settings import Settings
from dispatch.errors import ConfigurationError
from launcher import envfile, files, plan, procfs
from launcher.child import Child
from launcher.errors import LaunchError
from launcher.layout import STOP_ORDER, ProcessState
from launcher.ports import Ports
from launcher.rundir import RunDir

BUSY_TICK = 0.1  #: seconds between two steps while a process is starting or stopping
IDLE_TICK = 1.0  #: seconds between two steps otherwise; a death wakes it at once
LOG_CHECK = 30.0  #: seconds between two checks of the log sizes

log = logging.getLogger(__name__)

Sleep = Callable[[float], None]


class Supervisor:
    """Keeps the requested processes of a plan running.

    Args:
        run: the run directory.
        planned: all processes that may be started.
        names: the processes to start now.
        sleep: waits for a number of seconds, or until a signal arrives.
    """

    def __init__(self, run: RunDir, planned: plan.Plan, names: Iterable[str], sleep: Sleep = time.sleep) -> None:
        self._run = run
        self._plan = planned
        self._sleep = sleep
        self._children: dict[str, Child] = {}
        self._handled = ""
        self._phase = "running"
        self._logs_due = 0.0
        self.want(names)

    def want(self, names: Iterable[str]) -> None:
        """Start these processes as soon as the processes they depend on are ready.

        Args:
            names: those that are not planned (an external server) are ignored.
        """
        selected = set(names)
        for spec in self._plan.specs:
            if spec.name in selected and spec.name not in self._children:
                path = self._run.log(spec.name)
                files.rotate(path)
                self._children[spec.name] = Child(spec, path)

    def run(self, running: Callable[[], bool]) -> None:
        """Supervise until `running` is false, then stop all processes.

        Args:
            running: called at each step.
        """
        self.publish()
        while running():
            self._take_request()
            if self.step():
                self.publish()
            self._trim_logs()
            self._sleep(IDLE_TICK if self._all_ready() else BUSY_TICK)
        self.stop()

    def step(self) -> bool:
        """Execute the due actions of each process.

        Returns:
            Whether anything changed.
        """
        changes = [child.step(may_start=self._may_start(child)) for child in self._children.values()]
        return any(changes)

    def stop(self) -> None:
        """Stop all processes, in `STOP_ORDER`."""
        self._phase = "stopping"
        for child in self._children.values():
            if child.pid is None:
                child.stop()  # must not start meanwhile
        for names in STOP_ORDER:
            group = [self._children[name] for name in names if name in self._children]
            for child in group:
                child.stop()
            self.publish()
            while any(child.state is not ProcessState.STOPPED for child in group):
                if self.step():
                    self.publish()
                self._sleep(BUSY_TICK)

    def publish(self) -> None:
        """Write ``env``, then the state."""
        snapshots = [child.snapshot() for child in self._children.values()]
        envfile.write(self._run.env, self._environment())
        content = {
            "supervisor": os.getpid(),
            "phase": self._phase,
            "handled": self._handled,
            "notes": self._plan.notes,
            "processes": snapshots,
        }
        files.write(self._run.state, json.dumps(content, indent=1))

    def _environment(self) -> dict[str, str]:
        missing = {
            key
            for key, name in (
                ("DISPATCH_HTTP_URL", "gateway"),
                ("FLOWER_URL", "flower"),
                ("ROBOT_API_URL", "simulator"),
                ("WORKER_METRICS_URL", "worker"),
            )
            if name not in self._children and any(spec.name == name for spec in self._plan.specs)
        }
        values = {key: value for key, value in self._plan.env.items() if key not in missing}
        for child in self._children.values():
            if child.spec.pid_key and child.pid:
                values[child.spec.pid_key] = str(child.pid)
        return {**values, "SUPERVISOR_PID": str(os.getpid())}

    def _may_start(self, child: Child) -> bool:
        dependencies = [self._children[name] for name in child.spec.after if name in self._children]
        return len(dependencies) == len(child.spec.after) and all(
            other.state is ProcessState.READY for other in dependencies
        )

    def _all_ready(self) -> bool:
        return all(child.state is ProcessState.READY for child in self._children.values())

    def _take_request(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            request: dict[str, Any] = json.loads(self._run.request.read_text())
            self._run.request.unlink()
            self.want(request.get("start", ()))
            for name in request.get("restart", ()):
                if name in self._children:
                    self._children[name].stop(restart=True)
            self._handled = request["id"]
            self.publish()

    def _trim_logs(self) -> None:
        if time.monotonic() >= self._logs_due:
            self._logs_due = time.monotonic() + LOG_CHECK
            for name in (*self._children, "supervisor"):
                files.rotate_in_place(self._run.log(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Supervise the stack of a run directory (``DISPATCH_RUN_DIR``) until SIGTERM.

    Args:
        argv: the command line without the program; the process's own by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m launcher.supervisor")
    parser.add_argument("--names", required=True, help="processes to start, comma-separated")
    parser.add_argument("--owner", type=int, default=0, help="pid of a process with which the stack ends; 0 is none")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = configuration.load()
    run = RunDir.at(settings.run_dir)
    with run.supervisor_lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another supervisor runs in %s", run.path)
            return 1
        return _supervise(run, settings, args.names.split(","), _owner_alive(args.owner))


def _supervise(run: RunDir, settings: Settings, names: Iterable[str], owner_alive: Callable[[], bool]) -> int:
    signals = _Signals()
    ports = Ports(run.ports)
    try:
        planned = plan.make(run, ports, os.environ, settings)
    except (LaunchError, ConfigurationError) as exc:
        log.info("%s", exc)
        files.write(run.state, json.dumps({"supervisor": os.getpid(), "error": str(exc), "processes": []}))
        return 1
    files.write(run.own, json.dumps(planned.own))
    Supervisor(run, planned, names, signals.sleep).run(lambda: owner_alive() and not signals.stopping)
    ports.close()
    return 0


def _owner_alive(owner: int) -> Callable[[], bool]:
    """A check whether the owner is alive; always true without one."""
    if not owner:
        return lambda: True
    start = procfs.started_at(owner)
    return lambda: start is not None and procfs.started_at(owner) == start


class _Signals:
    """Wakes the supervisor when a child dies or a command sends a request."""

    def __init__(self) -> None:
        self.stopping = False
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def sleep(self, seconds: float) -> None:
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4_096)

    def _stop(self, *_: object) -> None:
        self.stopping = True


if __name__ == "__main__":
    sys.exit(main())
