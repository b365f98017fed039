"""The vendor's side of things: tokens, robots, commands and idempotency keys.

In memory, bounded (the oldest goes first), thread-safe. A command's state is a function of the clock, so
no thread works on it::

    WAITING → RUNNING → SUCCEEDED | FAILED | ABORTED
        └────────┴────→ CANCELLED (through the API)
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from examples.robot_simulator.faults import JOBS, Job, Queue, by_serial

#: Things of each kind that are remembered.
MAX_KEPT = 10_000

#: Robots in the list from the start; any other serial that begins with `PREFIX` joins when it is first used.
FLEET = ("SN-1", "SN-2", "SN-3", "SN-4", "SN-5")
PREFIX = "SN-"

#: Part of the work during which a command is WAITING: the robot drives there.
_WAITING_PART = 0.1

#: States that release an idempotency key.
_RELEASED = frozenset({"FAILED", "ABORTED", "CANCELLED"})

_REASONS = {
    "FAILED": {"code": "STUCK", "message": "the robot can't get past an obstacle"},
    "ABORTED": {"code": "STOPPED_BY_HAND", "message": "somebody pressed the stop button"},
    "CANCELLED": {"code": "CANCELLED", "message": "stopped through the API"},
}

_V = TypeVar("_V")


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """How the vendor behaves."""

    client_id: str = "demo"
    client_secret: str = dataclasses.field(default="demo", repr=False)
    token_seconds: float = 3_600.0  #: how long a token is good
    work_seconds: float = 5.0  #: how long an order takes


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """An order that the vendor has accepted; times are `World.clock`'s."""

    id: str
    robot: str
    areas: tuple[str, ...]
    job: Job
    seconds: float  #: how long the whole takes
    created: float
    stopped: float | None = None  #: when it was cancelled

    @property
    def name(self) -> str:
        """Its resource name, also its path."""
        return f"robots/{self.robot}/commands/{self.id}"

    def look(self, now: float) -> tuple[str, int]:
        """State and percent at a time."""
        share = (min(now, self.stopped or now) - self.created) / self.seconds
        percent = max(0, min(100, int(100 * (share - _WAITING_PART) / (1 - _WAITING_PART))))
        if self.job.outcome != "SUCCEEDED" and share >= _WAITING_PART and percent >= self.job.at_percent:
            return self.job.outcome, self.job.at_percent
        if percent == 100:
            return "SUCCEEDED", 100
        if self.stopped is not None:
            return "CANCELLED", percent
        return ("RUNNING" if share >= _WAITING_PART else "WAITING"), percent


class KeyReused(Exception):
    """The idempotency key belongs to another order."""


class World:
    """Everything the vendor knows.

    Args:
        config: how it behaves.
        clock: seconds that only rise.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.clock = clock
        self.jobs: Queue[Job] = Queue()
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self.jobs.clear()
            self._tokens: OrderedDict[str, float] = OrderedDict()
            self._robots: OrderedDict[str, str | None] = OrderedDict((robot, None) for robot in FLEET)
            self._commands: OrderedDict[str, Command] = OrderedDict()
            self._keys: OrderedDict[str, tuple[str, object]] = OrderedDict()
            self._counts: OrderedDict[str, dict[str, int]] = OrderedDict()

    # --- tokens ----------------------------------------------------------------------------------
    def new_token(self) -> str:
        """Grant a token."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            _keep(self._tokens, token, self.clock() + self.config.token_seconds)
        return token

    def is_token(self, token: str) -> bool:
        """Whether a token is good."""
        with self._lock:
            return self._tokens.get(token, 0) > self.clock()

    def revoke_tokens(self) -> None:
        """Make every token granted so far useless."""
        with self._lock:
            self._tokens.clear()

    # --- orders ----------------------------------------------------------------------------------
    def received(self, key: str) -> int:
        """Count an order request; orders without a key are counted together under ``-``.

        Returns:
            How many came with this key, this one included.
        """
        with self._lock:
            count = self._counts.get(key) or {"received": 0, "created": 0}
            count["received"] += 1
            _keep(self._counts, key, count)
            return count["received"]

    def counts(self) -> dict[str, dict[str, int]]:
        """By idempotency key: requests received and commands created."""
        with self._lock:
            return {key: dict(count) for key, count in self._counts.items()}

    def order(self, robot: str, areas: tuple[str, ...], key: str, content: object) -> Command:
        """Accept an order, or find the one that this key already made.

        Args:
            robot: serial number.
            areas: what to clean.
            key: idempotency key; empty for none.
            content: what the same key must come with again.

        Returns:
            The command: the old one while it lives or when it has succeeded.

        Raises:
            KeyReused: the key came with other content before.
        """
        with self._lock:
            known = self._by_key(key, (robot, content))
            if known is not None:
                return known
            command = self._create(robot, areas, key)
            if key:
                _keep(self._keys, key, (command.id, (robot, content)))
            return command

    def _by_key(self, key: str, content: object) -> Command | None:
        command_id, before = self._keys.get(key, ("", content))
        command = self._commands.get(command_id)
        if command is None or command.look(self.clock())[0] in _RELEASED:
            return None
        if before != content:
            raise KeyReused
        return command

    def _create(self, robot: str, areas: tuple[str, ...], key: str) -> Command:
        count = self._counts.get(key or "-") or {"received": 1, "created": 0}
        count["created"] += 1
        _keep(self._counts, key or "-", count)
        told = self.jobs.take(lambda job: job.robot in {None, robot})
        job = told or by_serial(JOBS, robot, count["created"]) or Job()
        command = Command(
            secrets.token_hex(8), robot, areas, job, job.seconds or self.config.work_seconds, self.clock()
        )
        _keep(self._commands, command.id, command)
        _keep(self._robots, robot, command.id)
        return command

    # --- commands and robots ---------------------------------------------------------------------
    def command(self, robot: str, command_id: str) -> Command | None:
        """Find a command; None when there is none, or none any more."""
        with self._lock:
            command = self._commands.get(command_id)
            return command if command is not None and command.robot == robot else None

    def cancel(self, robot: str, command_id: str) -> Command | None:
        """Stop a command unless it has ended; None when there is none."""
        with self._lock:
            command = self.command(robot, command_id)
            if command is not None and command.stopped is None:
                command = self._commands[command_id] = dataclasses.replace(command, stopped=self.clock())
            return command

    def robots(self) -> list[str]:
        """Serial numbers of the fleet."""
        with self._lock:
            return sorted(self._robots)

    def latest(self, robot: str) -> Command | None:
        """A robot's latest command."""
        with self._lock:
            return self._commands.get(self._robots.get(robot) or "")

    def view(self, command: Command) -> dict[str, Any]:
        """A command as the API shows it."""
        state, percent = command.look(self.clock())
        done = min(len(command.areas), int(len(command.areas) * percent / 100) + 1)
        shown: dict[str, Any] = {"name": command.name, "state": state, "percent": percent}
        if state == "RUNNING":
            shown["message"] = f"area {done} of {len(command.areas)}"
        return {**shown, "error": _REASONS[state]} if state in _REASONS else shown

    def status(self, robot: str) -> dict[str, Any]:
        """A robot as the API shows it."""
        command = self.latest(robot)
        shown = {"serialNumber": robot, "online": True, "state": "IDLE", "batteryPercent": 100}
        if command is None:
            return shown
        view = self.view(command)
        busy = view["state"] in {"WAITING", "RUNNING"}
        # It charges as soon as it has come to its end.
        battery = 100 - int(0.4 * view["percent"]) if busy else 100
        return {**shown, "state": "CLEANING" if busy else "IDLE", "batteryPercent": battery, "command": view}


def _keep(things: OrderedDict[str, _V], key: str, value: _V) -> None:
    """Remember something as the newest, and forget the oldest."""
    things[key] = value
    things.move_to_end(key)
    while len(things) > MAX_KEPT:
        things.popitem(last=False)
