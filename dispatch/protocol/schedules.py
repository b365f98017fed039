"""Schedules: what is submitted again and again, and what a due time leads to. Pure."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dispatch.protocol import cron
from dispatch.protocol.ids import derived_id

#: The task type by which a schedule wakes up; no client can submit it.
TICK_TYPE = "robot.schedule"

#: The label that a schedule's tasks have.
LABEL = "schedule"

#: Pattern of a name: it is part of a URL, of a Redis key, and of a label.
NAME = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"

#: Seconds of lateness up to which every due time is submitted, and up to which the last one is that would otherwise be skipped.
ON_TIME, LATE = 5, 60

#: Seconds that a wait for a due time lasts at most; a longer one is several.
LONGEST_WAIT = 30 * 86_400

#: Seconds of jitter at most.
MAX_JITTER = 3_600


class Overlap(enum.StrEnum):
    """What happens at a due time while the task of the one before is alive."""

    SKIP = "skip"  #: nothing is submitted
    QUEUE = "queue"  #: a task is submitted all the same


class CatchUp(enum.StrEnum):
    """What happens after due times at which no worker ran."""

    LAST = "last"  #: one task is submitted, for the last of them
    NONE = "none"  #: none is


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """What to submit, and when."""

    name: str
    principal: str  #: whose it is, and its tasks
    type: str
    payload: Mapping[str, Any] = dataclasses.field(repr=False)
    cron: str
    timezone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LAST
    jitter: int = 0  #: seconds by which a task is submitted for later at most
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    deadline: int = 0  #: seconds of its tasks; 0: the type's, if it has one
    paused: bool = False
    revision: int = 1  #: raised by every change: epoch milliseconds, or more
    created_at: int = 0  #: epoch milliseconds
    updated_at: int = 0

    def to_text(self) -> str:
        """As JSON, in Redis and in the message of the task that waits for a due time."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Schedule:
        """The inverse of `to_text`; a later version's fields are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in json.loads(text).items() if name in known}
        return cls(**{**given, "overlap": Overlap(given["overlap"]), "catch_up": CatchUp(given["catch_up"])})

    def same_as(self, other: Schedule) -> bool:
        """Whether the two submit the same at the same times."""
        changing = {"revision": 0, "created_at": 0, "updated_at": 0}
        return dataclasses.replace(self, **changing) == dataclasses.replace(other, **changing)  # type: ignore[arg-type]

    def next_time(self, millis: int) -> int | None:
        """The first due time after another time; None when there is none any more, or it is paused."""
        return None if self.paused else cron.next_time(self.cron, self.timezone, millis)

    def firing_id(self, at: int) -> str:
        """The id of the task of a due time: the same however often that is handled."""
        return derived_id(at, "firing", self.principal, self.name, at)

    def tick_id(self, at: int, leg: int) -> str:
        """The id of the task that waits for a due time.

        Args:
            at: the due time.
            leg: one of several waits for it.
        """
        return derived_id(at, "tick", self.principal, self.name, self.revision, at, leg)

    def jitter_of(self, at: int) -> int:
        """Seconds for which the task of a due time is delayed: chance, but always the same."""
        if not self.jitter:
            return 0
        digest = hashlib.sha256(f"{self.principal} {self.name} {at}".encode()).digest()
        return int.from_bytes(digest[:8]) % (self.jitter + 1)


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleTurn:
    """What is due."""

    fire: tuple[int, ...]  #: due times whose tasks are to be submitted, in order
    missed: int  #: due times that are too late
    last: int  #: the last due time of all these; earlier ones are settled
    following: int | None  #: the due time after that; None when there is none


def turn(schedule: Schedule, at: int, now: int) -> ScheduleTurn:
    """What is due at a wake-up.

    Args:
        schedule: which.
        at: the due time that was waited for, epoch milliseconds.
        now: epoch milliseconds; at or after it, apart from clocks that differ.

    Returns:
        The due times from ``at`` to ``now``, each in one of the parts.
    """
    now = max(now, at)
    times, following = [at], None
    missed = 0
    for time in cron.times_after(schedule.cron, schedule.timezone, at):
        if time > now:
            following = time
            break
        times.append(time)
        if len(times) > 2 * ON_TIME:  # of those before, only the number counts
            missed += _drop_late(times, now)
    fire = chosen(times, now, schedule.catch_up)
    return ScheduleTurn(fire, missed + len(times) - len(fire), times[-1], following)


def _drop_late(times: list[int], now: int) -> int:
    late = [time for time in times[:-1] if now - time > ON_TIME * 1_000]
    del times[: len(late)]
    return len(late)


def chosen(times: Iterable[int], now: int, catch_up: CatchUp) -> tuple[int, ...]:
    """The due times whose tasks are submitted.

    Args:
        times: that have come, in order; at least one.
        now: epoch milliseconds.
        catch_up: of the schedule.
    """
    every = tuple(times)
    on_time = tuple(time for time in every if now - time <= ON_TIME * 1_000)
    if on_time:
        return on_time
    last = every[-1]
    return (last,) if catch_up is CatchUp.LAST or now - last <= LATE * 1_000 else ()
