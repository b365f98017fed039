"""The commands: start, stop, look at and restart a stack, from outside its supervisor."""

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

from launcher import files, layout, procfs
from launcher.errors import LaunchError
from launcher.layout import State
from launcher.rundir import RunDir

READY_WITHIN = 90.0  #: seconds a stack may take to be ready
_HEARD_WITHIN = 15.0  #: seconds until the supervisor has taken a request
_POLL = 0.1  #: seconds between two looks at the state

Say = Callable[[str], None]


class Stack:
    """The stack of a run directory, as a command sees it.

    Args:
        run: the run directory.
        say: tells people what happens, a line at a time.
    """

    def __init__(self, run: RunDir, say: Say = print) -> None:
        self.run = run
        self._say = say

    def up(self, names: Iterable[str], environ: Mapping[str, str], owner: int = 0) -> None:
        """Start what is missing and wait until it answers.

        Args:
            names: the processes that are wanted.
            environ: the environment of a stack that is not running yet.
            owner: a process with which the whole stack ends; 0 is none.

        Raises:
            LaunchError: something did not start; what this call started is stopped again.
        """
        wanted, environ = tuple(names), self._meant(environ)
        with self._turn():
            fresh = not self.supervised()
            if fresh:
                self._clear_leftovers()
                self._launch(wanted, environ, owner)
            else:
                wanted = self._add(wanted, environ)
        try:
            self._wait_ready(wanted)
        except LaunchError:
            if fresh:
                self.down()
            raise

    def down(self) -> None:
        """Stop everything, in order, and leave nothing running."""
        with self._turn():
            if not self.supervised():
                if not self._clear_leftovers():
                    self._say("nothing was running")
            else:
                self._end_supervisor()
                self._clear_leftovers()
            for path in (self.run.env, self.run.state, self.run.request):
                path.unlink(missing_ok=True)

    def restart(self, names: Iterable[str]) -> None:
        """Stop processes gracefully, start them again, wait until they answer.

        Args:
            names: the processes; with the settings that the stack was started with.

        Raises:
            LaunchError: no stack is running, or one did not come back.
        """
        with self._turn():
            if not self.supervised():
                raise LaunchError("nothing is running: make up")
            running = {process["name"] for process in self.state()["processes"]}
            chosen = [name for name in names if name in running]
            self._ask(restart=chosen)
        self._wait_ready(chosen)

    def supervised(self) -> bool:
        """Whether a supervisor is at work in the run directory."""
        with self.run.alive.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def state(self) -> dict[str, Any]:
        """What the supervisor last said; no processes when there is none."""
        try:
            said: dict[str, Any] = json.loads(self.run.state.read_text())
        except FileNotFoundError:
            return {"processes": []}
        return said

    def leftovers(self) -> list[int]:
        """Processes of this run directory that no supervisor watches."""
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
        deadline = time.monotonic() + _HEARD_WITHIN
        while not self.run.state.exists():
            if process.poll() is not None or time.monotonic() >= deadline:
                raise self._failure("the supervisor did not start", "supervisor")
            time.sleep(_POLL / 2)
        if error := self.state().get("error"):
            process.wait(_HEARD_WITHIN)
            raise LaunchError(error)
        process.returncode = 0  # it outlives this command: nobody waits for it
        for note in self.state()["notes"]:
            self._say(note)

    def _add(self, wanted: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
        """Have a running supervisor start what is missing."""
        state = self.state()
        self._warn_of_other_settings(state["supervisor"], environ)
        processes = {process["name"]: process for process in state["processes"]}
        running = [name for name in wanted if name in processes and processes[name]["state"] == State.READY]
        if running:
            self._say(f"already running: {', '.join(running)}")
        if set(wanted) - set(processes):
            self._ask(start=list(wanted))
        return tuple(name for name in wanted if name not in running)

    def _warn_of_other_settings(self, supervisor: int, environ: Mapping[str, str]) -> None:
        now, then = (_settings(each) for each in (environ, procfs.environ(supervisor)))
        differing = sorted(name for name in {*now, *then} - {"DISPATCH_RUN_DIR"} if now.get(name) != then.get(name))
        if differing:
            self._say(
                f"other settings than the stack was started with ({', '.join(differing)}): "
                "its processes keep theirs; to change them: make down && make up"
            )

    def _meant(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment without what sourcing the ``env`` file of this stack put there: no servers of others."""
        own = json.loads(self.run.own.read_text()) if self.run.own.exists() else {}
        return {
            name: value for name, value in environ.items() if name not in layout.URL_KEYS and own.get(name) != value
        }

    def _ask(self, **request: list[str]) -> None:
        mark = secrets.token_hex(8)
        files.write(self.run.request, json.dumps({"id": mark, **request}))
        procfs.send([self.state()["supervisor"]], signal.SIGHUP)
        deadline = time.monotonic() + _HEARD_WITHIN
        while self.state().get("handled") != mark:
            if time.monotonic() >= deadline or not self.supervised():
                raise self._failure("the supervisor does not answer", "supervisor")
            time.sleep(_POLL / 2)

    def _wait_ready(self, names: Iterable[str]) -> None:
        left = dict.fromkeys(names)
        deadline = time.monotonic() + READY_WITHIN
        while left:
            processes = {process["name"]: process for process in self.state()["processes"]}
            for name in list(left):
                process = processes.get(name)
                if process is None or process["state"] == State.READY:
                    del left[name]
                    if process:
                        self._say(f"{name:<10} ready  {process['address']}")
                elif process["deaths"] >= 2 and not process["wasReady"]:
                    raise self._failure(f"{name} {process['ending']}", name)
            if left and time.monotonic() >= deadline:
                name = next(iter(left))
                raise self._failure(
                    f"{name} was not ready after {READY_WITHIN:.0f} s: {_reason(processes, name)}", name
                )
            if left and not self.supervised():
                raise self._failure("the supervisor ended", "supervisor")
            if left:
                time.sleep(_POLL)

    def _failure(self, what: str, name: str) -> LaunchError:
        path = self.run.log(name)
        return LaunchError("\n  ".join([f"{what}; the last lines of {path}:", *files.tail(path)]))

    def _end_supervisor(self) -> None:
        """SIGTERM, then tell what it stops."""
        state = self.state()
        supervisor = state["supervisor"]
        patience = sum(process["grace"] for process in state["processes"]) + 10.0
        procfs.send([supervisor] if procfs.belongs(supervisor, self.run.path) else [], signal.SIGTERM)
        deadline = time.monotonic() + patience
        told: set[str] = set()
        while time.monotonic() < deadline:
            supervised = self.supervised()
            processes = {process["name"]: process for process in self.state()["processes"]}
            for process in (processes[name] for group in layout.STOP_ORDER for name in group if name in processes):
                if process["state"] == State.STOPPED and process["name"] not in told:
                    told.add(process["name"])
                    self._say(f"{process['name']:<10} stopped  {process['ending']}".rstrip())
            if not supervised and not procfs.belongs(supervisor, self.run.path):
                return
            time.sleep(_POLL)

    def _clear_leftovers(self) -> bool:
        """End what a dead supervisor left behind, in order; whether there was anything."""
        found = procfs.owned(self.run.path)
        if not found:
            return False
        known = {process["name"]: process for process in self.state()["processes"] if process["pid"] in found}
        for name in (name for group in layout.STOP_ORDER for name in group if name in known):
            self._say(f"{name:<10} was left behind, pid {known[name]['pid']}: stopping it")
            procfs.terminate([known[name]["pid"]], known[name]["grace"])
        rest = procfs.owned(self.run.path)
        procfs.terminate(rest, 3.0)
        if not known:
            self._say(f"stopped {len(rest)} processes that were left behind")
        return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One command at a time in a run directory."""
        with self.run.turn.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("waiting for another command on this stack to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _reason(processes: Mapping[str, Any], name: str) -> str:
    process = processes.get(name, {})
    waiting = [other for other in processes if processes[other]["state"] != State.READY and other != name]
    if process.get("state") == State.WAITING:
        return f"it waits for {', '.join(waiting)}"
    return str(process.get("why") or process.get("ending") or process.get("state"))


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith("DISPATCH_")}
