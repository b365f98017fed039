"""The supervisor: owns every process of a stack, starts again what dies, and tells others through files.

It writes ``env`` (URLs and pids) and ``state.json``; commands ask for more through ``request.json``
and SIGHUP. It holds a lock for as long as it lives, which is how others know that it does.
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
from launcher.layout import STOP_ORDER, State
from launcher.ports import Ports
from launcher.rundir import RunDir

BUSY_TICK = 0.1  #: seconds between two looks while something is starting or stopping
IDLE_TICK = 1.0  #: seconds between two looks otherwise; a death wakes it at once
LOG_LOOK = 30.0  #: seconds between two looks at the sizes of the logs

log = logging.getLogger(__name__)

Sleep = Callable[[float], None]


class Supervisor:
    """Keeps the wanted processes of a plan running.

    Args:
        run: where it writes.
        planned: every process that may be wanted.
        wanted: the ones to start now.
        sleep: waits so many seconds, or less when something happened.
    """

    def __init__(self, run: RunDir, planned: plan.Plan, wanted: Iterable[str], sleep: Sleep = time.sleep) -> None:
        self._run = run
        self._plan = planned
        self._sleep = sleep
        self._children: dict[str, Child] = {}
        self._handled = ""
        self._phase = "running"
        self._logs_due = 0.0
        self.want(wanted)

    def want(self, names: Iterable[str]) -> None:
        """Start these processes as soon as what they need is ready.

        Args:
            names: those that are not planned (an external server) are left out.
        """
        chosen = set(names)
        for spec in self._plan.specs:
            if spec.name in chosen and spec.name not in self._children:
                path = self._run.log(spec.name)
                files.rotate(path)
                self._children[spec.name] = Child(spec, path)

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Watch until told to stop, then stop everything.

        Args:
            goes_on: asked at each look.
        """
        self.publish()
        while goes_on():
            self._take_request()
            if self.step():
                self.publish()
            self._trim_logs()
            self._sleep(IDLE_TICK if self._settled() else BUSY_TICK)
        self.stop()

    def step(self) -> bool:
        """Give each process what is due.

        Returns:
            Whether anything changed.
        """
        changes = [child.step(may_start=self._may_start(child)) for child in self._children.values()]
        return any(changes)

    def stop(self) -> None:
        """Stop everything, in order: who takes work in first, servers last."""
        self._phase = "stopping"
        for child in self._children.values():
            if child.pid is None:
                child.stop()  # must not be started in the meantime
        for names in STOP_ORDER:
            group = [self._children[name] for name in names if name in self._children]
            for child in group:
                child.stop()
            self.publish()
            while any(child.state is not State.STOPPED for child in group):
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
        values = {key: value for key, value in self._plan.shown.items() if key not in missing}
        for child in self._children.values():
            if child.spec.pid_key and child.pid:
                values[child.spec.pid_key] = str(child.pid)
        return {**values, "SUPERVISOR_PID": str(os.getpid())}

    def _may_start(self, child: Child) -> bool:
        needed = [self._children[name] for name in child.spec.after if name in self._children]
        return len(needed) == len(child.spec.after) and all(other.state is State.READY for other in needed)

    def _settled(self) -> bool:
        return all(child.state is State.READY for child in self._children.values())

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
            self._logs_due = time.monotonic() + LOG_LOOK
            for name in (*self._children, "supervisor"):
                files.rotate_in_place(self._run.log(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Be the supervisor of a run directory (``DISPATCH_RUN_DIR``) until told to stop by SIGTERM.

    Args:
        argv: the command line without the program; the process's own by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m launcher.supervisor")
    parser.add_argument("--names", required=True, help="processes to start, comma-separated")
    parser.add_argument("--owner", type=int, default=0, help="pid with which the whole stack ends; 0 is none")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = configuration.load()
    run = RunDir.at(settings.run_dir)
    with run.alive.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another supervisor is at work in %s", run.path)
            return 1
        return _supervise(run, settings, args.names.split(","), _alive(args.owner))


def _supervise(run: RunDir, settings: Settings, names: Iterable[str], goes_on: Callable[[], bool]) -> int:
    signals = _Signals()
    ports = Ports(run.ports)
    try:
        planned = plan.make(run, ports, os.environ, settings)
    except (LaunchError, ConfigurationError) as exc:
        log.info("%s", exc)
        files.write(run.state, json.dumps({"supervisor": os.getpid(), "error": str(exc), "processes": []}))
        return 1
    files.write(run.own, json.dumps(planned.own))
    Supervisor(run, planned, names, signals.sleep).run(lambda: goes_on() and not signals.stopping)
    ports.close()
    return 0


def _alive(owner: int) -> Callable[[], bool]:
    """A look at whether the owner lives; without one the answer is always yes."""
    if not owner:
        return lambda: True
    born = procfs.started_at(owner)
    return lambda: born is not None and procfs.started_at(owner) == born


class _Signals:
    """Wakes the supervisor at once when a child dies or a command has a wish."""

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
