"""Schedules in Redis: their definitions, and what has become of their due times.

A schedule's hash and the index of all schedules are in different slots of a Redis Cluster: the hash is written first, and an index entry
without one is dropped by the keeper; a hash without its entry is listed again by its next wake-up.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

from dispatch.errors import StoreError
from dispatch.protocol.schedules import Schedule
from dispatch.store.scripts import RedisHandle

#: Schedules at most, of all principals together.
MAX_SCHEDULES = 1_000

#: Milliseconds for which it is remembered that a schedule was deleted: no wake-up of it comes later.
TOMBSTONE = 90 * 86_400_000

#: Milliseconds after a due time, or after a change, until the keeper looks whether it was handled.
OVERDUE = 30_000

#: Milliseconds after a due time that is not handled until it counts as missed.
MISSED = 60_000

_FIELDS = (
    "revision", "definition", "principal", "deleted", "nextAt", "tick", "leg", "settledAt", "firedAt", "firedTask", "fired", "skipped",
    "missed", "error",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A schedule as Redis holds it. Times are epoch milliseconds."""

    revision: int
    schedule: Schedule | None  #: None: it was deleted
    principal: str
    next_at: int | None  #: the due time that is waited for
    tick: str | None  #: the task that waits for it; None: its submission is not confirmed
    leg: int  #: waits that were begun anew
    settled_at: int  #: the last due time of which it is decided what becomes of it
    fired_at: int | None
    fired_task: str | None  #: the task of that due time
    fired: int
    skipped: int
    missed: int
    error: str  #: why the last due time led to no task


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleNote:
    """What has become of due times."""

    was: int  #: the last due time that was settled when this was decided; 0: none
    last: int  #: the last of them
    next_at: int | None
    tick: str
    fired_at: int = 0
    fired_task: str = ""
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleTally:
    """How many schedules there are."""

    waiting: int  #: for a due time
    paused: int  #: or without another due time
    missed: int  #: whose due time was not handled in time
    failing: int  #: whose last due time led to no task
    last_fire: int  #: epoch milliseconds of the last due time with a task; 0: there is none


class ScheduleStore:
    """The schedules. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    # --- reading -------------------------------------------------------------------------------------
    def get(self, name: str) -> ScheduleEntry | None:
        """A schedule, or what is left of one that was deleted; None where there is neither.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return self._parsed(self._redis.run(("HMGET", self._redis.keys.schedule(name), *_FIELDS))[0])

    def all(self) -> list[ScheduleEntry]:
        """Every schedule, by name.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        names = sorted(self._redis.run(("ZRANGE", self._redis.keys.schedules, 0, -1))[0])
        return [entry for entry in self._entries(names) if entry is not None and entry.schedule is not None]

    def count(self) -> int:
        """How many there are."""
        return int(self._redis.run(("ZCARD", self._redis.keys.schedules))[0])

    def tally(self, now: int) -> ScheduleTally:
        """How the schedules are.

        Args:
            now: epoch milliseconds.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        names = self._redis.run(("ZRANGE", self._redis.keys.schedules, 0, -1))[0]
        keys, fields = self._redis.keys, ("nextAt", "firedAt", "error")
        answers = self._redis.gather(*(("HMGET", keys.schedule(name), *fields) for name in names)) if names else []
        rows = [(int(next_at or 0), int(fired_at or 0), error or "") for next_at, fired_at, error in answers]
        return ScheduleTally(
            waiting=sum(1 for next_at, _, _ in rows if next_at),
            paused=sum(1 for next_at, _, _ in rows if not next_at),
            missed=sum(1 for next_at, _, _ in rows if next_at and next_at + MISSED < now),
            failing=sum(1 for _, _, error in rows if error),
            last_fire=max((fired_at for _, fired_at, _ in rows), default=0),
        )

    def overdue(self, now: int, limit: int) -> list[str]:
        """Names of schedules whose due time should have been handled before now, epoch milliseconds."""
        key = self._redis.keys.schedules
        return list(self._redis.run(("ZRANGEBYSCORE", key, "-inf", now, "LIMIT", 0, limit))[0])

    def _entries(self, names: Sequence[str]) -> list[ScheduleEntry | None]:
        if not names:
            return []
        keys = self._redis.keys
        answers = self._redis.gather(*(("HMGET", keys.schedule(name), *_FIELDS) for name in names))
        return [self._parsed(answer) for answer in answers]

    def _parsed(self, answer: Sequence[str | None]) -> ScheduleEntry | None:
        fields = {name: value for name, value in zip(_FIELDS, answer, strict=True) if value}
        if "revision" not in fields:
            return None

        def number(name: str) -> int:
            return int(float(fields.get(name, "0")))

        schedule = None
        if fields.get("deleted") != "1":
            schedule = self._opened(fields["definition"])
        return ScheduleEntry(
            revision=number("revision"),
            schedule=schedule,
            principal=fields.get("principal", ""),
            next_at=number("nextAt") or None,
            tick=fields.get("tick"),
            leg=number("leg"),
            settled_at=number("settledAt"),
            fired_at=number("firedAt") or None,
            fired_task=fields.get("firedTask"),
            fired=number("fired"),
            skipped=number("skipped"),
            missed=number("missed"),
            error=self._redis.sealing.open_text(fields.get("error", "")),
        )

    def _opened(self, text: str) -> Schedule:
        try:
            return Schedule.from_text(self._redis.sealing.open_text(text))
        except ValueError as exc:
            raise StoreError("a schedule is encrypted with a key that is not in DISPATCH_ENCRYPTION_KEYS") from exc

    # --- writing -------------------------------------------------------------------------------------
    def set(self, schedule: Schedule, *, was: int, next_at: int | None, fresh: bool = False) -> bool:
        """Write a schedule's new revision; no wake-up is submitted yet.

        Args:
            schedule: with its new revision.
            was: the revision that it follows; 0 for none.
            next_at: the due time that is to be waited for.
            fresh: it is another schedule than the one that had the name.

        Returns:
            False where it has another revision meanwhile.

        Raises:
            StoreUnavailable: unknown.
        """
        keys = self._redis.keys
        text = self._redis.sealing.seal_text(schedule.to_text())
        arguments = (was, schedule.revision, text, schedule.principal, 0, 0, next_at or 0, int(fresh))
        done = bool(self._redis.run(self._redis.script("set_schedule", [keys.schedule(schedule.name)], *arguments))[0])
        if done:
            self.look_at(schedule.name, int(time.time() * 1_000) if next_at else None)
        return done

    def delete(self, name: str, principal: str, was: int) -> bool:
        """Delete a schedule; returns and raises as `set`."""
        keys = self._redis.keys
        arguments = (was, max(was + 1, int(time.time() * 1_000)), "", principal, 1, TOMBSTONE, 0, 1)
        done = bool(self._redis.run(self._redis.script("set_schedule", [keys.schedule(name)], *arguments))[0])
        if done:
            self._redis.run(("ZREM", keys.schedules, name))
        return done

    def waits(self, name: str, tick: str, next_at: int) -> None:
        """A task waits for a due time."""
        self._redis.run(("HSET", self._redis.keys.schedule(name), "tick", tick))
        self.look_at(name, next_at)

    def note(self, schedule: Schedule, note: ScheduleNote) -> bool:
        """Record what has become of due times.

        Args:
            schedule: whose.
            note: what has.

        Returns:
            False where another wake-up has settled due times meanwhile, or the schedule has changed.

        Raises:
            StoreUnavailable: unknown; note it again.
        """
        arguments = (
            schedule.revision, note.was, note.last, note.next_at or 0, note.tick, note.fired_at, note.fired_task,
            note.fired, note.skipped, note.missed, self._redis.sealing.seal_error(note.error),
        )  # fmt: skip
        key = self._redis.keys.schedule(schedule.name)
        noted = bool(self._redis.run(self._redis.script("note_schedule", [key], *arguments))[0])
        if noted:
            self.look_at(schedule.name, note.next_at)
        return noted

    def look_at(self, name: str, due: int | None) -> None:
        """List a schedule, for the keeper to look at some time after a due time; None: it waits for none."""
        score = "+inf" if due is None else due + OVERDUE
        self._redis.run(("ZADD", self._redis.keys.schedules, score, name))

    def begin_leg(self, name: str) -> int:
        """Another wait for the same due time, whose last one is lost; its number."""
        return int(self._redis.run(("HINCRBY", self._redis.keys.schedule(name), "leg", 1))[0])

    def forget(self, names: Iterable[str]) -> None:
        """Take names of schedules that are gone out of the list."""
        for name in names:
            self._redis.run(("ZREM", self._redis.keys.schedules, name))
