"""The commands: start, stop, inspect and restart a stack, from outside its supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dispatch.config import settings as configuration
from dispatch.config.settings import PREFIX
from dispatch.errors import ConfigurationError
from launcher import files, layout, procfs
from launcher.errors import LaunchError
from launcher.layout import ProcessState
from launcher.rundir import RunDir

READY_WITHIN = 90.0  #: seconds until all processes of a stack must be ready
_HANDLED_WITHIN = 15.0  #: seconds until the supervisor must have handled a request
_POLL = 0.1  #: seconds between two reads of the state

ReportLine = Callable[[str], None]


class Stack:
    """The stack of a run directory, as seen by a command.

    Args:
        run: the run directory.
        report: prints a line of progress.
    """

    def __init__(self, run: RunDir, report: ReportLine = print) -> None:
        self.run = run
        self._report = report

    def up(self, names: Iterable[str], environ: Mapping[str, str], owner: int = 0) -> None:
        """Start the missing processes and wait until they are ready.

        Args:
            names: the processes.
            environ: the environment of a stack that is not running yet.
            owner: pid of a process with which the stack ends; 0 is none.

        Raises:
            LaunchError: a process did not start; a stack that this call started is stopped.
        """
        names, environ = tuple(names), self._without_own(environ)
        with self._exclusive():
            fresh = not self.supervised()
            if fresh:
                self._clear_leftovers()
                self._launch(names, environ, owner)
            else:
                names = self._add(names, environ)
        try:
            self._wait_ready(names)
        except LaunchError:
            if fresh:
                self.down()
            raise

    def down(self) -> None:
        """Stop all processes, in order."""
        with self._exclusive():
            if not self.supervised():
                if not self._clear_leftovers():
                    self._report("nothing was running")
            else:
                self._end_supervisor()
                self._clear_leftovers()
            for path in (self.run.env, self.run.state, self.run.request):
                path.unlink(missing_ok=True)

    def restart(self, names: Iterable[str], environ: Mapping[str, str] | None = None) -> None:
        """Stop processes gracefully, start them again, and wait until they are ready.

        Args:
            names: the processes; they keep the settings of the stack.
            environ: of the command; settings of its own in it are named as without effect.

        Raises:
            LaunchError: no stack is running, or a process did not start.
        """
        with self._exclusive():
            if not self.supervised():
                raise LaunchError(f"nothing is running: {layout.command('up')}")
            if environ is not None:
                self._warn_of_other_settings(self.state()["supervisor"], self._without_own(environ), given_only=True)
            running = {process["name"] for process in self.state()["processes"]}
            selected = [name for name in names if name in running]
            self._request(restart=selected)
        self._wait_ready(selected)

    def supervised(self) -> bool:
        """Whether a supervisor runs in the run directory."""
        with self.run.supervisor_lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def state(self) -> dict[str, Any]:
        """The state that the supervisor last published; no processes without one."""
        try:
            state: dict[str, Any] = json.loads(self.run.state.read_text())
        except FileNotFoundError:
            return {"processes": []}
        return state

    def own(self) -> dict[str, str]:
        """The settings that the launcher made: the URLs of the stack's own servers."""
        own: dict[str, str] = json.loads(self.run.own.read_text()) if self.run.own.exists() else {}
        return own

    def leftovers(self) -> list[int]:
        """Processes of this run directory without a supervisor."""
        return [] if self.supervised() else procfs.owned(self.run.path)

    def _launch(self, names: tuple[str, ...], environ: Mapping[str, str], owner: int) -> None:
        self.run.state.unlink(missing_ok=True)
        path = self.run.log("supervisor")
        files.rotate(path)
        command = (sys.executable, "-m", "launcher.supervisor", "--names", ",".join(names), "--owner", str(owner))
        with path.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={**environ, procfs.MARKER: str(self.run.path), "DISPATCH_RUN_DIR": str(self.run.path)},
                cwd=layout.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _HANDLED_WITHIN
        while not self.run.state.exists():
            if process.poll() is not None or time.monotonic() >= deadline:
                raise self._failure("the supervisor did not start", "supervisor")
            time.sleep(_POLL / 2)
        if error := self.state().get("error"):
            process.wait(_HANDLED_WITHIN)
            raise LaunchError(error)
        process.returncode = 0  # it outlives this command, which does not wait for it
        for note in self.state()["notes"]:
            self._report(note)

    def _add(self, names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
        """Request a running supervisor to start the missing processes."""
        state = self.state()
        self._warn_of_other_settings(state["supervisor"], environ)
        processes = {process["name"]: process for process in state["processes"]}
        running = [name for name in names if name in processes and processes[name]["state"] == ProcessState.READY]
        if running:
            self._report(f"already running: {', '.join(running)}")
        if set(names) - set(processes):
            self._request(start=list(names))
        return tuple(name for name in names if name not in running)

    def _warn_of_other_settings(self, supervisor: int, environ: Mapping[str, str], *, given_only: bool = False) -> None:
        # As they are read, since a shell that sourced the `env` file spells out what the stack has by default.
        now, then = (_settings(variables) for variables in (environ, procfs.environ(supervisor)))
        named = {*now, *then} & {*environ} if given_only else {*now, *then}
        differing = sorted(name for name in named - {"DISPATCH_RUN_DIR"} if now.get(name) != then.get(name))
        if differing:
            self._report(
                f"the stack was started with other settings ({', '.join(differing)}): "
                f"its processes keep them; to change them: {layout.command('down')} && {layout.command('up')}"
            )

    def _without_own(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment without the URLs of this stack's own servers, which sourcing its ``env`` file sets."""
        own = self.own()
        return {
            name: value for name, value in environ.items() if name not in layout.URL_KEYS and own.get(name) != value
        }

    def _request(self, **request: list[str]) -> None:
        request_id = secrets.token_hex(8)
        files.write(self.run.request, json.dumps({"id": request_id, **request}))
        procfs.send([self.state()["supervisor"]], signal.SIGHUP)
        deadline = time.monotonic() + _HANDLED_WITHIN
        while self.state().get("handled") != request_id:
            if time.monotonic() >= deadline or not self.supervised():
                raise self._failure("the supervisor does not respond", "supervisor")
            time.sleep(_POLL / 2)

    def _wait_ready(self, names: Iterable[str]) -> None:
        waiting = dict.fromkeys(names)
        deadline = time.monotonic() + READY_WITHIN
        while waiting:
            processes = {process["name"]: process for process in self.state()["processes"]}
            for name in list(waiting):
                process = processes.get(name)
                if process is None or process["state"] == ProcessState.READY:
                    del waiting[name]
                    if process:
                        self._report(f"{name:<10} ready  {process['address']}")
                elif process["deaths"] >= 2 and not process["wasReady"]:
                    raise self._failure(f"{name} {process['ending']}", name)
            if waiting and time.monotonic() >= deadline:
                name = next(iter(waiting))
                raise self._failure(
                    f"{name} was not ready after {READY_WITHIN:.0f} s: {_reason(processes, name)}", name
                )
            if waiting and not self.supervised():
                raise self._failure("the supervisor ended", "supervisor")
            if waiting:
                time.sleep(_POLL)

    def _failure(self, summary: str, name: str) -> LaunchError:
        path = self.run.log(name)
        return LaunchError("\n  ".join([f"{summary}; the last lines of {path}:", *files.tail(path)]))

    def _end_supervisor(self) -> None:
        """Send SIGTERM and report each process that stops."""
        state = self.state()
        supervisor = state["supervisor"]
        timeout = sum(process["grace"] for process in state["processes"]) + 10.0
        procfs.send([supervisor] if procfs.belongs(supervisor, self.run.path) else [], signal.SIGTERM)
        deadline = time.monotonic() + timeout
        reported: set[str] = set()
        while time.monotonic() < deadline:
            supervised = self.supervised()
            processes = {process["name"]: process for process in self.state()["processes"]}
            for process in (processes[name] for group in layout.STOP_ORDER for name in group if name in processes):
                if process["state"] == ProcessState.STOPPED and process["name"] not in reported:
                    reported.add(process["name"])
                    self._report(f"{process['name']:<10} stopped  {process['ending']}".rstrip())
            if not supervised and not procfs.belongs(supervisor, self.run.path):
                return
            time.sleep(_POLL)

    def _clear_leftovers(self) -> bool:
        """Terminate the processes of a dead supervisor, in order; whether there were any."""
        leftovers = procfs.owned(self.run.path)
        if not leftovers:
            return False
        known = {process["name"]: process for process in self.state()["processes"] if process["pid"] in leftovers}
        for name in (name for group in layout.STOP_ORDER for name in group if name in known):
            self._report(f"{name:<10} was left behind, pid {known[name]['pid']}: stopping it")
            procfs.terminate([known[name]["pid"]], known[name]["grace"])
        rest = procfs.owned(self.run.path)
        procfs.terminate(rest, 3.0)
        if not known:
            self._report(f"stopped {len(rest)} processes that were left behind")
        return True

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the command lock: one command at a time in a run directory."""
        with self.run.command_lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._report("waiting for another command on this stack to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _reason(processes: Mapping[str, Any], name: str) -> str:
    process = processes.get(name, {})
    waiting = [other for other in processes if processes[other]["state"] != ProcessState.READY and other != name]
    if process.get("state") == ProcessState.WAITING:
        return f"it waits for {', '.join(waiting)}"
    return str(process.get("reason") or process.get("ending") or process.get("state"))


def _settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings by variable; as text where a stack was started with some that are no settings any more."""
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    with contextlib.suppress(ConfigurationError):
        return {f"{PREFIX}{name.upper()}": value for name, value in configuration.load(given)}
    return given
