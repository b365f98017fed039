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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dispatch.protocol.record import Brief, Record
from dispatch.protocol.record_fields import BRIEF, LARGE, LISTED, parse, parse_brief
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle

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


def briefs(redis: RedisHandle, task_ids: Sequence[str]) -> list[Brief | None]:
    """Briefs of records in the order asked, in one round trip; None for each that is not there.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    return [parse_brief(fields) for fields in _fields(redis, task_ids, BRIEF)]


def read_page(
    redis: RedisHandle, index: str, wanted: Callable[[Brief], bool], *, limit: int, cursor: str | None
) -> Page:
    """Read an index from new to old; entries whose record is gone are dropped on the way.

    Args:
        redis: the handle.
        index: a sorted set's key.
        wanted: whether a record belongs to the list.
        limit: records on a page.
        cursor: of the page before.

    Returns:
        A page of records without their messages; with a rare filter or large results it may hold fewer than `limit` and
        still have a next one.

    Raises:
        ValueError: the cursor is not one of ours.
        StoreUnavailable: Redis did not answer.
    """
    place = _Place(*_read_cursor(cursor))
    items: list[Record] = []
    room = PAGE_BYTES
    for _ in range(SCAN_LIMIT // _BATCH):
        entries = place.next(redis, index)
        chosen = _choose(redis, index, entries, wanted)
        most = [entries[at][0] for at in chosen[: limit - len(items)]]
        fitting, room = _fitting(redis, most, room)
        items += _listed(redis, most[:fitting], wanted)
        passed = chosen[fitting] if fitting < len(chosen) else len(entries)
        place.pass_over(entries[:passed])
        if fitting < len(most) or len(items) == limit:
            break
        if passed == len(entries) < _BATCH:
            return Page(items, None)
    return Page(items, _write_cursor(place.top, place.skip))


@dataclasses.dataclass(slots=True)
class _Place:
    """How far an index has been read: to a score, and to some of the entries with that score."""

    top: str
    skip: set[str]

    def next(self, redis: RedisHandle, index: str) -> list[Entry]:
        """The next entries; fewer than `_BATCH` at the end."""
        words = ("WITHSCORES", "LIMIT", 0, _BATCH + len(self.skip))
        raw = redis.run(("ZREVRANGEBYSCORE", index, self.top, "-inf", *words))[0]
        return [entry for entry in pairs(raw) if entry[0] not in self.skip]

    def pass_over(self, entries: Sequence[Entry]) -> None:
        """These have been read."""
        for task_id, score in entries:
            self.skip = {*self.skip, task_id} if self.top == repr(score) else {task_id}
            self.top = repr(score)


def _choose(redis: RedisHandle, index: str, entries: Sequence[Entry], wanted: Callable[[Brief], bool]) -> list[int]:
    """The places of the entries whose records belong to the list; entries without a record are dropped."""
    found = briefs(redis, [task_id for task_id, _ in entries])
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
    records = []
    for task_id, fields in zip(task_ids, _fields(redis, task_ids, LISTED), strict=True):
        brief, record = parse_brief(fields), parse(task_id, fields)
        if brief is not None and record is not None and wanted(brief):
            records.append(record)
    return records


def _fields(redis: RedisHandle, task_ids: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
    """Fields of records in the order asked, in one round trip; empty where there is no record."""
    if not task_ids:
        return []
    answers = redis.gather(*(("HMGET", redis.keys.task(task_id).record, *names) for task_id in task_ids))
    return [{name: value for name, value in zip(names, answer, strict=True) if value is not None} for answer in answers]


def unlist(redis: RedisHandle, index: str, entries: Sequence[Entry]) -> None:
    """Drop entries as they were read: one that was listed again meanwhile stays, see `relisted`."""
    if entries:
        redis.run(redis.script("unlist", [index], *words(entries)))


def relisted(index: str, at: int, task_id: str) -> RedisCommand:
    """The command that lists a task whose record has just come back.

    A reader of the list may have found no record a moment ago, and drops the entry with the score that it read.
    So this score is always another one: a part of a millisecond is added, which changes no order.

    Args:
        index: a sorted set's key.
        at: epoch milliseconds.
        task_id: the entry.
    """
    return ("ZADD", index, at + random.random(), task_id)


def pairs(answer: Any) -> list[Entry]:
    """Entries of an answer WITHSCORES: RESP2 has a flat list, RESP3 pairs."""
    if answer and isinstance(answer[0], list | tuple):
        return [(member, float(score)) for member, score in answer]
    return [(member, float(score)) for member, score in zip(answer[::2], answer[1::2], strict=True)]


def words(entries: Iterable[Entry]) -> list[str | float]:
    """Entries in a row, as scripts take them."""
    return [word for pair in entries for word in pair]


def _write_cursor(top: str, skip: set[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([top, sorted(skip)]).encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> tuple[str, set[str]]:
    """Where to go on: a score, and the entries with that score that were returned already."""
    if cursor is None:
        return "+inf", set()
    try:
        top, skip = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        score = float(top)
        if math.isnan(score):
            raise ValueError("not a score")  # noqa: TRY301 - the same answer as to any other nonsense
        return repr(score), {str(member) for member in skip}
    except (ValueError, TypeError, RecursionError, binascii.Error) as exc:
        raise ValueError("the cursor is not one that this API gave out") from exc
