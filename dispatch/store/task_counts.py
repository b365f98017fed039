"""How many tasks there are, by type and state: counted when asked for, in bounded time, and kept for some seconds.

Counters kept by every transition would cost each task what few requests need: a write more in another slot of a cluster, and
a count that a crash leaves wrong. Counting costs 4 µs a task of Redis's time, and 1 µs of ours.

The lists by time have each task that was accepted within `RecordSettings.idempotency_ttl`. Older ones that are still alive or
dead letters are in what the sweeper and the quotas keep: they are counted from there.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from dispatch.config.groups import RecordSettings
from dispatch.errors import StoreUnavailable
from dispatch.protocol import ids
from dispatch.protocol.record import State
from dispatch.protocol.record_fields import FOUND
from dispatch.store import index
from dispatch.store.scripts import RedisHandle

#: Seconds for which counts are kept at least, and for how many times as long as the counting took: however many clients ask
#: how often, a process counts for a twentieth of the time for each principal.
KEPT, TIMES = 5.0, 20

#: Seconds for which one counting goes on at most, and tasks that it counts: beyond, what it has is not complete.
LONGEST, MOST = 1.5, 200_000

#: Seconds to wait for another request's counting: a process counts for one at a time.
_PATIENCE = 2.5

#: Tasks counted by one script: about two milliseconds of Redis's time.
_BATCH = 500

#: Principals whose counts are kept.
_PRINCIPALS = 1_000

#: Types, and error types, that have a row; those with fewer tasks share one. Any client that may publish can make up names.
MOST_NAMES = 200
OTHERS = "(others)"

#: Epoch milliseconds beyond all others.
_EVER = 2**53

#: Type, state, and of a dead letter its error type.
_Row = tuple[str, str, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskCounts:
    """Tasks by type and state."""

    as_of: int  #: when the counting began, epoch milliseconds
    complete: bool  #: whether every task was counted
    tasks: int  #: that were counted
    by_type: dict[str, dict[str, int]]  #: by state, the most tasks first
    dead_letters: dict[str, int]  #: by error type, the most first

    @property
    def by_state(self) -> dict[str, int]:
        """Of all types together."""
        states: collections.Counter[str] = collections.Counter()
        for counts in self.by_type.values():
            states.update(counts)
        return dict(states.most_common())

    def to_json(self) -> dict[str, Any]:
        """As the API shows them, without whose they are."""
        types = [
            {"type": name, "total": sum(counts.values()), "states": counts} for name, counts in self.by_type.items()
        ]
        return {
            "asOf": ids.timestamp(self.as_of),
            "complete": self.complete,
            "counted": self.tasks,
            "states": self.by_state,
            "types": types,
            "deadLetters": [{"errorType": name, "count": number} for name, number in self.dead_letters.items()],
        }


class TaskCounter:
    """Counts tasks. Thread-safe.

    Args:
        redis: the process's handle.
        settings: how long the lists have a task.
        clock: seconds, for what is kept and for the time limit.
    """

    def __init__(
        self, redis: RedisHandle, settings: RecordSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self._listed = int(settings.idempotency_ttl * 1_000)
        self._clock = clock
        self._turn = threading.Lock()
        self._kept: dict[str | None, tuple[float, TaskCounts]] = {}  # until when

    def counts(self, principal: str | None) -> TaskCounts:
        """The counts, kept from the last counting or new.

        Args:
            principal: whose tasks; None for all principals'.

        Raises:
            StoreUnavailable: Redis did not answer, or takes too long.
        """
        if (kept := self._fresh(principal)) is not None:
            return kept
        if not self._turn.acquire(timeout=_PATIENCE):
            raise StoreUnavailable("Redis takes too long to count tasks")
        try:
            if (kept := self._fresh(principal)) is not None:
                return kept
            began = self._clock()
            counted = self._count(principal)
            now = self._clock()
            if len(self._kept) >= _PRINCIPALS:
                self._kept = {}
            self._kept[principal] = (now + max(KEPT, TIMES * (now - began)), counted)
            return counted
        finally:
            self._turn.release()

    def _fresh(self, principal: str | None) -> TaskCounts | None:
        until, counts = self._kept.get(principal, (-math.inf, None))
        return counts if self._clock() < until else None

    def _count(self, principal: str | None) -> TaskCounts:
        as_of, end = int(time.time() * 1_000), self._clock() + LONGEST
        oldest = as_of - self._listed
        rows: collections.Counter[_Row] = collections.Counter()
        complete = True
        for task_ids, since, until in self._batches(principal, oldest):
            if self._clock() >= end or rows.total() >= MOST:
                complete = False
                break
            rows.update(self._tally(task_ids, since, until))
        return _counts(rows, as_of, complete=complete)

    def _batches(self, principal: str | None, oldest: int) -> Iterator[tuple[list[str], float, float]]:
        """Task ids, and between which times those must have been accepted that count: no task counts twice."""
        for batch in self._ids_in(self._redis.keys.index(principal), oldest):
            yield batch, oldest, _EVER
        seen: set[str] = set()
        older = self._older(principal)
        for batch in older:
            # Most of them are in the list by time: their ids have their time.
            new = [each for each in batch if each not in seen and (ids.issued_at(each) or 0) * 1_000 < oldest]
            seen.update(new)
            yield new, -_EVER, oldest  # none, too: the time is looked at between batches

    def _older(self, principal: str | None) -> Iterator[list[str]]:
        """What is alive or a dead letter, however old."""
        keys = self._redis.keys
        if principal is None:
            for each in (keys.dead, keys.due):
                yield from self._ids_in(each, None)
            return
        place: Any = 0
        while place is not None:
            place, entries = self._redis.run(("HSCAN", keys.usage(principal), place, "COUNT", _BATCH))[0]
            yield [name for name in entries if not name.startswith("#")]
            place = place if int(place) else None

    def _ids_in(self, key: str, since: int | None) -> Iterator[list[str]]:
        place = index.IndexPlace("-inf" if since is None else repr(since), "+inf", None, _BATCH)
        end = False
        while not end:
            entries, end = place.next(self._redis, key)
            place.pass_over(entries)
            yield [task_id for task_id, _ in entries]

    def _tally(self, task_ids: list[str], since: float, until: float) -> dict[_Row, int]:
        if not task_ids:
            return {}
        if self._redis.clustered:
            return self._tally_each(task_ids, since, until)
        records = [self._redis.keys.task(each).record for each in task_ids]
        answer = self._redis.run(self._redis.script("tally", records, since, until))[0]
        return {_row(type_, state, error): number for type_, state, error, number in answer}

    def _tally_each(self, task_ids: list[str], since: float, until: float) -> dict[_Row, int]:
        """The same where a script can't have them all."""
        rows: collections.Counter[_Row] = collections.Counter()
        for brief in index.briefs(self._redis, task_ids, FOUND):
            if brief is not None and since <= brief.created_at < until:
                error = (brief.error_type or "") if brief.is_dead_letter else ""
                rows[_row(brief.type, brief.state, error)] += 1
        return rows


def _row(type_: str, state: str, error: str) -> _Row:
    return (type_, str(state), error or None)


def _counts(rows: collections.Counter[_Row], as_of: int, *, complete: bool) -> TaskCounts:
    types: collections.Counter[str] = collections.Counter()
    errors: collections.Counter[str] = collections.Counter()
    for (type_, state, error), number in rows.items():
        types[type_] += number
        if State(state).dead and error is not None:
            errors[error] += number
    shown = dict(types.most_common(MOST_NAMES))
    by_type: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in shown}
    for (type_, state, _), number in rows.items():
        by_type.setdefault(type_ if type_ in shown else OTHERS, collections.Counter())[state] += number
    few = errors.total() - sum(number for _, number in errors.most_common(MOST_NAMES))
    dead_letters = dict(errors.most_common(MOST_NAMES)) | ({OTHERS: few} if few else {})
    states = {name: dict(counts.most_common()) for name, counts in by_type.items()}
    return TaskCounts(as_of, complete, rows.total(), states, dead_letters)
