"""Dead letters in groups: those of one type that died of the same error, whatever ids and numbers its message has.

Read from the records, newest first, in batches; the memory that it takes is that of the groups, and these are bounded.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from dispatch.deadletters.service import DeadLetterService
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.ids import timestamp
from dispatch.store.index import BriefEntry

#: DeadLetterGroups that are kept apart at most; the dead letters of others are counted together.
MOST_GROUPS = 10_000


class GroupKey(NamedTuple):
    """What the dead letters of a group have in common."""

    type: str
    error_type: str  #: of the last attempt, or the reason of the death
    fingerprint: str  #: of the error's message; empty where that is not known


@dataclasses.dataclass(slots=True)
class DeadLetterGroup:
    """Dead letters that died of the same error. Times are epoch milliseconds."""

    key: GroupKey
    count: int
    first_at: int  #: the earliest death
    last_at: int  #: the latest death
    example: str  #: task id of the latest
    error: str = ""  #: the error's message of that one

    @property
    def filter(self) -> DeadLetterFilter | None:
        """What matches exactly these; None of messages without a type, which no filter names."""
        type_, error_type, fingerprint = self.key
        return DeadLetterFilter(type_, error_type, fingerprint=fingerprint) if all(self.key) else None

    def to_json(self) -> dict[str, Any]:
        """As the API and the command show it."""
        return {
            "type": self.key.type, "errorType": self.key.error_type, "fingerprint": self.key.fingerprint,
            "count": self.count, "firstAt": timestamp(self.first_at), "lastAt": timestamp(self.last_at),
            "exampleTaskId": self.example, "exampleError": self.error, "filter": self.filter and self.filter.to_json(),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSurvey:
    """The groups of a part of the dead letters, or of all."""

    groups: list[DeadLetterGroup]  #: the largest first
    grouped: int  #: dead letters that match and were looked at
    not_shown: int  #: those of them that are in none of `groups`
    next: str | None  #: cursor of the older ones; None when all were looked at


def survey_groups(
    service: DeadLetterService,
    wanted: DeadLetterFilter,
    *,
    shown: int,
    most: float = float("inf"),
    seconds: float = float("inf"),
    cursor: str | None = None,
) -> GroupSurvey:
    """DeadLetterGroup the dead letters that a filter matches.

    Args:
        service: reads the records.
        wanted: which dead letters.
        shown: groups at most.
        most: dead letters to look at, about: a whole batch is always looked at.
        seconds: after which no further batch is read.
        cursor: of a survey before: only older ones.

    Returns:
        The groups; those of a part when `next` is not None.

    Raises:
        ValueError: the cursor is not one of ours.
        StoreUnavailable: Redis did not answer.
    """
    until, groups, looked, then = time.monotonic() + seconds, DeadLetterGroups(), 0, cursor
    for batch in service.scan(wanted, cursor=cursor):
        groups.add(batch.entries)
        looked, then = looked + batch.looked_at, batch.next
        if looked >= most or time.monotonic() >= until:
            break
    largest = groups.largest(shown)
    for group, error in zip(largest, service.errors_of([group.example for group in largest]), strict=True):
        group.error = error
    return GroupSurvey(largest, groups.total, groups.total - sum(group.count for group in largest), then)


class DeadLetterGroups:
    """Counts dead letters by what they have in common."""

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[GroupKey, DeadLetterGroup] = {}

    def add(self, entries: Iterable[BriefEntry]) -> None:
        """Count some more."""
        for entry in entries:
            self.total += 1
            brief, at = entry.brief, int(entry.score)
            key = GroupKey(brief.type, brief.error_type or "", brief.error_fingerprint or "")
            group = self._of.get(key)
            if group is None:
                if len(self._of) < MOST_GROUPS:
                    self._of[key] = DeadLetterGroup(key, 1, at, at, entry.task_id)
                continue
            group.count += 1
            group.first_at = min(group.first_at, at)
            if at > group.last_at:
                group.last_at, group.example = at, entry.task_id

    def largest(self, number: int) -> list[DeadLetterGroup]:
        """The largest ones, of equal ones the one that has had the latest death."""
        return sorted(self._of.values(), key=lambda group: (-group.count, -group.last_at, group.key))[:number]
