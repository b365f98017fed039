"""The vendor's state: tokens, robots, commands and Idempotency-Keys.

In memory, bounded (the oldest entries are removed first), thread-safe. A command's state is a function of the clock, so
it needs no thread::

    WAITING → RUNNING → SUCCEEDED | FAILED | ABORTED
        └────────┴────→ CANCELLED (through the API)
"""

from __future__ import annotations

import dataclasses
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from examples.robot_simulator.faults import JOBS, FaultJob, FaultQueue, by_serial

#: Entries of each kind that are retained.
MAX_ENTRIES = 10_000

#: Robots listed initially; any other serial number with `PREFIX` is added on first use.
FLEET = ("SN-1", "SN-2", "SN-3", "SN-4", "SN-5")
PREFIX = "SN-"

#: Fraction of the duration during which a command is WAITING: the robot drives to the area.
_WAITING_PART = 0.1

#: States of a robot at work.
ACTIVE = frozenset({"WAITING", "RUNNING"})

#: States that release an Idempotency-Key.
_RELEASED = frozenset({"FAILED", "ABORTED", "CANCELLED"})

_REASONS = {
    "FAILED": {"code": "STUCK", "message": "the robot cannot pass an obstacle"},
    "ABORTED": {"code": "STOPPED_BY_HAND", "message": "the stop button was pressed"},
    "CANCELLED": {"code": "CANCELLED", "message": "stopped through the API"},
}

_V = TypeVar("_V")


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """The behaviour of the vendor."""

    client_id: str = "demo"
    client_secret: str = dataclasses.field(default="demo", repr=False)
    token_seconds: float = 3_600.0  #: lifetime of a token
    work_seconds: float = 5.0  #: duration of an order
    one_at_a_time: bool = False  #: whether a robot at work refuses other orders (409)
    estimates: bool = True  #: whether an active command has ``remainingSeconds``


@dataclasses.dataclass(frozen=True, slots=True)
class SimulatedCommand:
    """An order that the vendor has accepted; times are those of `World.clock`."""

    id: str
    robot: str
    areas: tuple[str, ...]
    job: FaultJob
    seconds: float  #: total duration
    created: float
    stopped: float | None = None  #: time of its cancellation

    @property
    def name(self) -> str:
        """Resource name, also the path."""
        return f"robots/{self.robot}/commands/{self.id}"

    def progress(self, now: float) -> tuple[str, int]:
        """State and percent at a time."""
        fraction = (min(now, self.stopped or now) - self.created) / self.seconds
        percent = max(0, min(100, int(100 * (fraction - _WAITING_PART) / (1 - _WAITING_PART))))
        if self.job.outcome != "SUCCEEDED" and fraction >= _WAITING_PART and percent >= self.job.at_percent:
            return self.job.outcome, self.job.at_percent
        if percent == 100:
            return "SUCCEEDED", 100
        if self.stopped is not None:
            return "CANCELLED", percent
        return ("RUNNING" if fraction >= _WAITING_PART else "WAITING"), percent

    @property
    def ends(self) -> float:
        """When it ends by itself."""
        percent = 100 if self.job.outcome == "SUCCEEDED" else self.job.at_percent
        return self.created + self.seconds * (_WAITING_PART + (1 - _WAITING_PART) * percent / 100)

    def estimate(self, now: float) -> float:
        """The vendor's estimate of the seconds left, rounded up to tenths; it foresees no failure."""
        left = self.created + self.seconds - now if self.job.estimate_seconds is None else self.job.estimate_seconds
        return max(0, math.ceil(left * 10)) / 10


class RobotBusy(Exception):
    """The robot executes another order.

    Args:
        seconds: estimate of the time left.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the robot is busy for {seconds:g} s")
        self.seconds = seconds


class OrderKeyReused(Exception):
    """The Idempotency-Key belongs to another order."""


class World:
    """The state of the vendor.

    Args:
        config: its behaviour.
        clock: monotonic seconds.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.clock = clock
        self.jobs: FaultQueue[FaultJob] = FaultQueue()
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Remove all state."""
        with self._lock:
            self.jobs.clear()
            self._tokens: OrderedDict[str, float] = OrderedDict()
            self._robots: OrderedDict[str, str | None] = OrderedDict((robot, None) for robot in FLEET)
            self._commands: OrderedDict[str, SimulatedCommand] = OrderedDict()
            self._keys: OrderedDict[str, tuple[str, object]] = OrderedDict()
            self._counts: OrderedDict[str, dict[str, int]] = OrderedDict()
            self._requests: dict[str, int] = {}

    # --- tokens ----------------------------------------------------------------------------------
    def new_token(self) -> str:
        """Grant a token."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            _keep(self._tokens, token, self.clock() + self.config.token_seconds)
        return token

    def is_token(self, token: str) -> bool:
        """Whether a token is valid."""
        with self._lock:
            return self._tokens.get(token, 0) > self.clock()

    def revoke_tokens(self) -> None:
        """Revoke all tokens."""
        with self._lock:
            self._tokens.clear()

    # --- counts ----------------------------------------------------------------------------------
    def requested(self, view: str) -> None:
        """Count a request to one of the vendor's views."""
        with self._lock:
            self._requests[view] = self._requests.get(view, 0) + 1

    def totals(self) -> dict[str, Any]:
        """Requests by view, and robots at work."""
        with self._lock:
            active = sum(command.progress(self.clock())[0] in ACTIVE for command in self._commands.values())
            return {"requests": dict(self._requests), "active": active}

    # --- orders ----------------------------------------------------------------------------------
    def received(self, key: str) -> int:
        """Count an order request; requests without an Idempotency-Key count together under ``-``.

        Returns:
            Requests with this Idempotency-Key, this one included.
        """
        with self._lock:
            count = self._counts.get(key) or {"received": 0, "created": 0}
            count["received"] += 1
            _keep(self._counts, key, count)
            return count["received"]

    def counts(self) -> dict[str, dict[str, int]]:
        """Requests received and commands created by Idempotency-Key."""
        with self._lock:
            return {key: dict(count) for key, count in self._counts.items()}

    def order(self, robot: str, areas: tuple[str, ...], key: str, content: object) -> SimulatedCommand:
        """Accept an order, or return the command of its Idempotency-Key.

        Args:
            robot: serial number.
            areas: areas to clean.
            key: Idempotency-Key; empty for none.
            content: the order, which must be the same for the same Idempotency-Key.

        Returns:
            The command: the earlier one while it is active or after it has succeeded.

        Raises:
            OrderKeyReused: the Idempotency-Key belongs to an order with other content.
            RobotBusy: the robot executes another order, and `Config.one_at_a_time`.
        """
        with self._lock:
            existing = self._by_key(key, (robot, content))
            if existing is not None:
                return existing
            if self.config.one_at_a_time and (current := self.latest(robot)) is not None:
                now = self.clock()
                if current.progress(now)[0] in ACTIVE:
                    raise RobotBusy(current.estimate(now))
            command = self._create(robot, areas, key)
            if key:
                _keep(self._keys, key, (command.id, (robot, content)))
            return command

    def _by_key(self, key: str, content: object) -> SimulatedCommand | None:
        command_id, first_content = self._keys.get(key, ("", content))
        command = self._commands.get(command_id)
        if command is None or command.progress(self.clock())[0] in _RELEASED:
            return None
        if first_content != content:
            raise OrderKeyReused
        return command

    def _create(self, robot: str, areas: tuple[str, ...], key: str) -> SimulatedCommand:
        count = self._counts.get(key or "-") or {"received": 1, "created": 0}
        count["created"] += 1
        _keep(self._counts, key or "-", count)
        queued = self.jobs.take(lambda job: job.robot in {None, robot})
        job = queued or by_serial(JOBS, robot, count["created"]) or FaultJob()
        command = SimulatedCommand(
            secrets.token_hex(8), robot, areas, job, job.seconds or self.config.work_seconds, self.clock()
        )
        _keep(self._commands, command.id, command)
        _keep(self._robots, robot, command.id)
        return command

    # --- commands and robots ---------------------------------------------------------------------
    def command(self, robot: str, command_id: str) -> SimulatedCommand | None:
        """A command; None when it does not exist or is no longer retained."""
        with self._lock:
            command = self._commands.get(command_id)
            return command if command is not None and command.robot == robot else None

    def cancel(self, robot: str, command_id: str) -> SimulatedCommand | None:
        """Stop a command unless it has ended; None when it does not exist."""
        with self._lock:
            command = self.command(robot, command_id)
            if command is not None and command.stopped is None:
                command = self._commands[command_id] = dataclasses.replace(command, stopped=self.clock())
            return command

    def robots(self) -> list[str]:
        """Serial numbers of the fleet."""
        with self._lock:
            return sorted(self._robots)

    def latest(self, robot: str) -> SimulatedCommand | None:
        """A robot's latest command."""
        with self._lock:
            return self._commands.get(self._robots.get(robot) or "")

    def view(self, command: SimulatedCommand) -> dict[str, Any]:
        """A command as JSON."""
        now = self.clock()
        state, percent = command.progress(now)
        done = min(len(command.areas), int(len(command.areas) * percent / 100) + 1)
        result: dict[str, Any] = {"name": command.name, "state": state, "percent": percent}
        if state == "RUNNING":
            result["message"] = f"area {done} of {len(command.areas)}"
        if state in ACTIVE and self.config.estimates:
            result["remainingSeconds"] = command.estimate(now)
        return {**result, "error": _REASONS[state]} if state in _REASONS else result

    def status(self, robot: str) -> dict[str, Any]:
        """A robot as JSON."""
        command = self.latest(robot)
        result = {"serialNumber": robot, "online": True, "state": "IDLE", "batteryPercent": 100}
        if command is None:
            return result
        view = self.view(command)
        busy = view["state"] in ACTIVE
        # The robot charges as soon as the command has ended.
        battery = 100 - int(0.4 * view["percent"]) if busy else 100
        return {**result, "state": "CLEANING" if busy else "IDLE", "batteryPercent": battery, "command": view}


def _keep(entries: OrderedDict[str, _V], key: str, value: _V) -> None:
    """Store an entry as the newest, and remove the oldest above `MAX_ENTRIES`."""
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > MAX_ENTRIES:
        entries.popitem(last=False)
