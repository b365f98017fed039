"""Sorted-set indexes over records: pages of them, and the entries that a crash or an expiry left behind."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dispatch.protocol.record import Record
from dispatch.protocol.record_fields import parse
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle

#: Records read for one page of a filtered list at most: a rare filter ends the page early and hands on a cursor.
SCAN_LIMIT = 2_000
_BATCH = 200

#: An entry of an index and its score.
Entry = tuple[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Part of a list."""

    items: list[Record]
    next: str | None  #: opaque; None at the end


def get_many(redis: RedisHandle, task_ids: Sequence[str]) -> list[Record | None]:
    """Records in the order asked, in one round trip; None for each that is not there.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    if not task_ids:
        return []
    answers = redis.gather(*(("HGETALL", redis.keys.task(task_id).record) for task_id in task_ids))
    return [parse(task_id, fields) for task_id, fields in zip(task_ids, answers, strict=True)]


def read_page(
    redis: RedisHandle, index: str, wanted: Callable[[Record], bool], *, limit: int, cursor: str | None
) -> Page:
    """Read an index from new to old; entries whose record is gone are dropped on the way.

    Args:
        redis: the handle.
        index: a sorted set's key.
        wanted: whether a record belongs to the list.
        limit: records on a page.
        cursor: of the page before.

    Returns:
        A page; with a rare filter it may hold fewer than `limit` and still have a next one.

    Raises:
        ValueError: the cursor is not one of ours.
        StoreUnavailable: Redis did not answer.
    """
    top, skip = _read_cursor(cursor)
    items: list[Record] = []
    for _ in range(SCAN_LIMIT // _BATCH):
        raw = redis.run(("ZREVRANGEBYSCORE", index, top, "-inf", "WITHSCORES", "LIMIT", 0, _BATCH + len(skip)))[0]
        entries = [entry for entry in pairs(raw) if entry[0] not in skip]
        records = get_many(redis, [task_id for task_id, _ in entries])
        unlist(redis, index, [entry for entry, record in zip(entries, records, strict=True) if record is None])
        for (task_id, score), record in zip(entries, records, strict=True):
            skip = {*skip, task_id} if top == repr(score) else {task_id}
            top = repr(score)
            if record is not None and wanted(record):
                items.append(record)
                if len(items) == limit:
                    return Page(items, _write_cursor(top, skip))
        if len(entries) < _BATCH:
            return Page(items, None)
    return Page(items, _write_cursor(top, skip))


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
