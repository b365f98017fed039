"""What the tasks of each principal hold: how many are open, how many are dead letters, the bytes of their messages.

A hash for each principal has an entry for each such task, and the sums, which change with the entries in one script. An
entry lies in another slot of a Redis Cluster than its record, so the two may differ after a crash:

- after the record, before the entry: the task is not counted;
- after the record's end, before the entry's: the sweeper's reminder is dropped last, so the sweeper ends the entry;
- Redis lost its last second, or a worker of the version before ended the task: nothing ends the entry; `Usage.mend`
  compares entries with records when a quota is used up.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Iterable, Sequence
from typing import Any

from dispatch.protocol.record import Brief, Record
from dispatch.store import index
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle

#: Seconds for which `Usage.lately` answers.
LATELY = 1.0

#: Entries that one mending compares with their records at most.
MENDED = 500


class Holding(enum.StrEnum):
    """What a task counts as."""

    OPEN = "open"  #: it has not ended
    DEAD = "dead"  #: a dead letter
    NOTHING = ""  #: it has ended, and its message is gone


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a principal's tasks hold."""

    open: int
    dead: int
    bytes: int  #: of stored messages


class Usage:
    """The counts of all principals. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis
        self._noted: dict[str, tuple[float, Held]] = {}  # by principal; the time is that of `time.monotonic`

    def entry(self, principal: str | None, task_id: str, holding: Holding, size: int = 0) -> RedisCommand:
        """The command that counts a task, or stops counting it; safe to repeat.

        Args:
            principal: whose task it is.
            task_id: the task.
            holding: what it counts as from now on.
            size: bytes of its message; 0 leaves what was counted.
        """
        return self.entries([(principal, task_id, holding, size)])[0]

    def entries(self, entries: Iterable[tuple[str | None, str, Holding, int]]) -> list[RedisCommand]:
        """The commands that count several tasks, one for each principal.

        Args:
            entries: the arguments of `entry` for each task.
        """
        words: dict[str, list[Any]] = {}
        for principal, *entry in entries:
            words.setdefault(principal or "", []).extend(entry)
        return [self._redis.script("use", [self._redis.keys.usage(one)], *each) for one, each in words.items()]

    def read(self, principal: str) -> Held:
        """What a principal's tasks hold.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return _held(self._redis.run(("HMGET", self._redis.keys.usage(principal), "#open", "#dead", "#bytes"))[0])

    def note(self, principal: str, sums: Any) -> None:
        """Keep what counting a task has answered, for `lately`."""
        if isinstance(sums, list) and sums:
            self._noted[principal] = (time.monotonic(), _held(sums))

    def lately(self, principal: str) -> Held | None:
        """What a principal's tasks held when this process last counted one of them; None when that is too long ago."""
        at, held = self._noted.get(principal, (-LATELY, None))
        return held if time.monotonic() - at < LATELY else None

    def settle(self, record: Record) -> None:
        """Have a task count as what its record is.

        Raises:
            StoreUnavailable: unknown; settle it again.
        """
        self._redis.run(self.entry(record.principal, record.task_id, holding_of(record)))

    def mend(self, principal: str) -> None:
        """Compare some entries, chosen at random, with their records.

        Raises:
            StoreUnavailable: the rest stays as it is.
        """
        key = self._redis.keys.usage(principal)
        raw = self._redis.run(("HRANDFIELD", key, MENDED, "WITHVALUES"))[0]
        entries = {task_id: value.partition(":")[0] for task_id, value in _pairs(raw) if ":" in value}
        found = index.briefs(self._redis, list(entries))
        wrong = [
            self.entry(principal, task_id, holding_of(brief))
            for (task_id, kind), brief in zip(entries.items(), found, strict=True)
            if kind != holding_of(brief)
        ]
        if wrong:
            self._redis.gather(*wrong)


def _held(sums: Sequence[Any]) -> Held:
    return Held(*(max(0, int(number or 0)) for number in sums))


def holding_of(brief: Brief | Record | None) -> Holding:
    """What a task counts as, by its record. Pure."""
    if brief is None or (brief.state.terminal and not brief.is_dead_letter):
        return Holding.NOTHING
    return Holding.DEAD if brief.is_dead_letter else Holding.OPEN


def _pairs(answer: Any) -> list[tuple[str, str]]:
    """RESP2 has a flat list, RESP3 pairs."""
    if answer and isinstance(answer[0], list | tuple):
        return [(name, value) for name, value in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))
