"""Sorted-set indexes over records: pages of them, and the entries that a crash or an expiry left behind.

A list chooses by briefs, some bytes a record, and reads the records of its page only, without their messages.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dispatch.protocol.record import Brief, Record
from dispatch.protocol.record_fields import BRIEF, LARGE, LISTED, parse, parse_brief
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle, Rider

#: Briefs read for one page of a filtered list at most: a rare filter ends the page early and hands on a cursor.
SCAN_LIMIT = 2_000
_BATCH = 200

#: Bytes of results on a page, one more result apart: large results end it early, with a cursor.
PAGE_BYTES = 1_048_576

#: An entry of an index and its score.
Entry = tuple[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Part of a list."""

    items: list[Record]
    next: str | None  #: opaque; None at the end


def briefs(redis: RedisHandle, task_ids: Sequence[str], names: Sequence[str] = BRIEF) -> list[Brief | None]:
    """Briefs of records in the order asked, in one round trip; None for each that is not there.

    Args:
        redis: the handle.
        task_ids: the tasks.
        names: the fields to read: `BRIEF`, or `FOUND` where more is needed.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    return [parse_brief(fields) for fields in _fields(redis, task_ids, names)]


def record(redis: RedisHandle, task_id: str, rider: Rider | None = None) -> Record | None:
    """One record without its messages; None when it is not there.

    Args:
        redis: the handle.
        task_id: the task.
        rider: goes along.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    (answer,) = redis.run_along(rider, ("HMGET", redis.keys.task(task_id).record, *LISTED))
    return parse(task_id, _named(LISTED, answer), sealing=redis.sealing)


def records(redis: RedisHandle, task_ids: Sequence[str]) -> list[Record | None]:
    """Records without their messages, in the order asked, in one round trip; None for each that is not there.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    found = _fields(redis, task_ids, LISTED)
    return [parse(task_id, fields, sealing=redis.sealing) for task_id, fields in zip(task_ids, found, strict=True)]


def read_page(
    redis: RedisHandle,
    index: str,
    wanted: Callable[[Brief], bool],
    *,
    limit: int,
    cursor: str | None,
    since: int | None = None,
    until: int | None = None,
    names: Sequence[str] = BRIEF,
) -> Page:
    """Read an index from new to old; entries whose record is gone are dropped on the way.

    Args:
        redis: the handle.
        index: a sorted set's key.
        wanted: whether a record belongs to the list.
        limit: records on a page.
        cursor: of the page before.
        since: only entries with this score or a greater one.
        until: only entries with a smaller score.
        names: the fields of a record that `wanted` needs.

    Returns:
        A page of records without their messages; with a rare filter or large results it may hold fewer than `limit` and
        still have a next one.

    Raises:
        ValueError: the cursor is not one of ours.
        StoreUnavailable: Redis did not answer.
    """
    place = IndexPlace("-inf" if since is None else repr(since), *_read_cursor(cursor, until))
    items: list[Record] = []
    room = PAGE_BYTES
    for _ in range(SCAN_LIMIT // _BATCH):
        entries, end = place.next(redis, index)
        chosen = _choose(redis, index, entries, wanted, names)
        most = [entries[at][0] for at in chosen[: limit - len(items)]]
        fitting, room = _fitting(redis, most, room)
        items += _listed(redis, most[:fitting], wanted)
        passed = chosen[fitting] if fitting < len(chosen) else len(entries)
        place.pass_over(entries[:passed])
        if fitting < len(most) or len(items) == limit:
            break
        if end and passed == len(entries):
            return Page(items, None)
    return Page(items, _write_cursor(place.top, place.last))


@dataclasses.dataclass(frozen=True, slots=True)
class BriefEntry:
    """An entry of an index whose record is there."""

    task_id: str
    score: float
    brief: Brief


class ScannedBatch(NamedTuple):
    """Part of an index that is read as a whole."""

    entries: list[BriefEntry]  #: those that are wanted
    looked_at: int  #: entries that were looked at for them
    next: str | None  #: cursor of what comes after it; None at the end


def scan(
    redis: RedisHandle,
    index: str,
    wanted: Callable[[Brief], bool],
    *,
    cursor: str | None = None,
    names: Sequence[str] = BRIEF,
) -> Iterator[ScannedBatch]:
    """Read an index from new to old in batches; entries whose record is gone are dropped on the way.

    Args:
        redis: the handle.
        index: a sorted set's key.
        wanted: whether a record belongs to it.
        cursor: of a batch of another scan.
        names: the fields to read of each record.

    Yields:
        A batch.

    Raises:
        ValueError: the cursor is not one of ours.
        StoreUnavailable: Redis did not answer.
    """
    place, end = IndexPlace("-inf", *_read_cursor(cursor, None)), False
    while not end:
        entries, end = place.next(redis, index)
        found = briefs(redis, [task_id for task_id, _ in entries], names)
        unlist(redis, index, [entry for entry, brief in zip(entries, found, strict=True) if brief is None])
        place.pass_over(entries)
        both = zip(entries, found, strict=True)
        chosen = [BriefEntry(*entry, brief) for entry, brief in both if brief is not None and wanted(brief)]
        yield ScannedBatch(chosen, len(entries), None if end else _write_cursor(place.top, place.last))


@dataclasses.dataclass(slots=True)
class IndexPlace:
    """How far an index has been read, from new to old; Redis sorts entries with the same score by their text."""

    low: str  #: the lowest score, as commands have it
    top: str  #: the score down to which it has been read
    last: str | None  #: the entry with that score down to which it has been read
    batch: int = _BATCH  #: entries read at once

    def next(self, redis: RedisHandle, index: str) -> tuple[list[Entry], bool]:
        """The next entries, at most `batch`, and whether they are the last ones."""
        size = self.batch + (self.last is not None)  # which comes once more
        offset, left, found = 0, list[Entry](), list[Entry]()
        while not left and (not offset or len(found) == size):
            words = ("WITHSCORES", "LIMIT", offset, size)
            found = pairs(redis.run(("ZREVRANGEBYSCORE", index, self.top, self.low, *words))[0])
            left = [entry for entry in found if not self._has_passed(*entry)]
            offset += size
        return left, len(found) < size

    def pass_over(self, entries: Sequence[Entry]) -> None:
        """These have been read."""
        if entries:
            self.last, score = entries[-1]
            self.top = repr(score)

    def _has_passed(self, task_id: str, score: float) -> bool:
        return self.last is not None and repr(score) == self.top and task_id >= self.last


def _choose(
    redis: RedisHandle,
    index: str,
    entries: Sequence[Entry],
    wanted: Callable[[Brief], bool],
    names: Sequence[str],
) -> list[int]:
    """The places of the entries whose records belong to the list; entries without a record are dropped."""
    found = briefs(redis, [task_id for task_id, _ in entries], names)
    unlist(redis, index, [entry for entry, brief in zip(entries, found, strict=True) if brief is None])
    return [at for at, brief in enumerate(found) if brief is not None and wanted(brief)]


def _fitting(redis: RedisHandle, task_ids: Sequence[str], room: int) -> tuple[int, int]:
    """How many records, from the first on, fit into some bytes of results, and how many bytes are left."""
    if not task_ids:
        return 0, room
    lengths = redis.gather(*(("HSTRLEN", redis.keys.task(task_id).record, LARGE) for task_id in task_ids))
    for fitting, length in enumerate(lengths):
        if room <= 0:
            return fitting, room
        room -= length
    return len(lengths), room


def _listed(redis: RedisHandle, task_ids: Sequence[str], wanted: Callable[[Brief], bool]) -> list[Record]:
    """The records of a page, each read at once; without those that went, or changed, since they were chosen."""
    found = []
    for task_id, fields in zip(task_ids, _fields(redis, task_ids, LISTED), strict=True):
        brief, record = parse_brief(fields), parse(task_id, fields, sealing=redis.sealing)
        if brief is not None and record is not None and wanted(brief):
            found.append(record)
    return found


def _fields(redis: RedisHandle, task_ids: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
    """Fields of records in the order asked, in one round trip; empty where there is no record."""
    if not task_ids:
        return []
    answers = redis.gather(*(("HMGET", redis.keys.task(task_id).record, *names) for task_id in task_ids))
    return [_named(names, answer) for answer in answers]


def _named(names: Sequence[str], answer: Sequence[str | None]) -> dict[str, str]:
    return {name: value for name, value in zip(names, answer, strict=True) if value is not None}


def unlist(redis: RedisHandle, index: str, entries: Sequence[Entry]) -> None:
    """Drop entries as they were read: one that was listed again meanwhile stays, see `relisted`."""
    if entries:
        redis.run(redis.script("unlist", [index], *words(entries)))


def relisted(redis: RedisHandle, index: str, at: int, task_id: str) -> RedisCommand:
    """The command that lists a task whose record has just come back.

    A reader of the list may have found no record a moment ago, and drops the entry with the score that it read.
    So this score is always another one: a part of a millisecond is added, which changes no order.

    Args:
        redis: the handle.
        index: a sorted set's key.
        at: epoch milliseconds.
        task_id: the entry.
    """
    return redis.vital("ZADD", index, at + random.random(), task_id)


def pairs(answer: Any) -> list[Entry]:
    """Entries of an answer WITHSCORES: RESP2 has a flat list, RESP3 pairs."""
    if answer and isinstance(answer[0], list | tuple):
        return [(member, float(score)) for member, score in answer]
    return [(member, float(score)) for member, score in zip(answer[::2], answer[1::2], strict=True)]


def words(entries: Iterable[Entry]) -> list[str | float]:
    """Entries in a row, as scripts take them."""
    return [word for pair in entries for word in pair]


def _write_cursor(top: str, last: str | None) -> str:
    return base64.urlsafe_b64encode(json.dumps([top, last]).encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None, until: int | None) -> tuple[str, str | None]:
    """Where to go on: a score, and the entry with that score that was returned last. Nothing in it gives a right."""
    begin = "+inf" if until is None else f"({until}"
    if cursor is None:
        return begin, None
    try:
        top, last = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        score = float(top)
        if math.isnan(score) or not isinstance(last, str | list | None):
            raise ValueError("not a place")  # noqa: TRY301 - the same answer as to any other nonsense
        if isinstance(last, list):  # of the version before: every entry with that score that was returned
            last = min(map(str, last), default=None)
    except (ValueError, TypeError, RecursionError, OverflowError, binascii.Error) as exc:
        raise ValueError("the cursor is not one that this API gave out") from exc
    return (begin, None) if until is not None and score >= until else (repr(score), last)
