"""Find tasks: by their labels and their request id through indexes of their own, by the rest while a list by time is read.

A label and a client's own request id have two indexes, the principal's and that of all principals: a search in one's own
never passes what others have, so neither its time nor an empty page shows that others use the same label. A task without
either has no entry. Entries lie in other slots of a Redis Cluster than the record, so they are only hints: each task
found is checked against its record.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from dispatch.protocol import labels, request_ids
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import LABELS, PARENT_ID, PRINCIPAL, REQUEST_ID, Message
from dispatch.protocol.record_fields import BRIEF, FOUND
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store import index
from dispatch.store.client import RedisCommand
from dispatch.store.index import Page
from dispatch.store.keys import RedisKeys
from dispatch.store.scripts import MESSAGE_TTL, RedisHandle


def indexes_of(keys: RedisKeys, message: Message, due_at: int) -> list[str]:
    """The indexes that a task is in besides those by time; none for most tasks.

    Args:
        keys: the names.
        message: any copy of the task, which any client may have sent.
        due_at: epoch milliseconds by which lists have it: of its acceptance, or those that it was submitted for.
    """
    given, request_id = message.headers.get(LABELS), message.text(REQUEST_ID)
    own = request_id and request_ids.needs_index(request_id, due_at) and request_ids.is_valid(request_id)
    parent = message.headers.get(PARENT_ID)
    if not given and not own and not parent:
        return []
    principals = (message.text(PRINCIPAL) or "", None)
    pairs = [f"{key}={value}" for key, value in labels.read(given).items()]
    found = [keys.label(principal, pair) for pair in pairs for principal in principals]
    if parent is not None and is_task_id(parent):
        found.append(keys.children(parent))
    return [*found, *(keys.request(principal, request_id) for principal in principals if own and request_id)]


def listing(
    redis: RedisHandle, indexes: Sequence[str], task_id: str, *, accepted_at: int, due_at: int, ttl: int
) -> list[RedisCommand]:
    """The commands that list a new task, whose acceptance a Redis with its memory full refuses.

    Args:
        redis: the handle.
        indexes: see `indexes_of`.
        task_id: the task.
        accepted_at: epoch milliseconds.
        due_at: as for `indexes_of`.
        ttl: milliseconds for which it is listed from then on.
    """
    oldest, kept = accepted_at - ttl, due_at - accepted_at + ttl
    return [redis.script("list_found", [each], task_id, due_at, oldest, kept, "") for each in indexes]


def relisting(redis: RedisHandle, indexes: Sequence[str], task_id: str, due_at: int) -> list[RedisCommand]:
    """The commands that list a task whose record is rebuilt; the score differs each time, see `index.relisted`."""
    at = due_at + random.random()
    return [redis.script("list_found", [each], task_id, at, "-inf", MESSAGE_TTL, "1") for each in indexes]


def page(redis: RedisHandle, wanted: TaskFilter, *, limit: int, cursor: str | None) -> Page:
    """One page of the tasks that match, newest first.

    Args:
        redis: the handle.
        wanted: which tasks.
        limit: tasks on a page.
        cursor: of the page before.

    Returns:
        A page; returned and raised as by `dispatch.store.index.read_page`.
    """
    key, wanted_since, wanted_until = _narrowest(redis, wanted)
    found = index.read_page(
        redis,
        key,
        wanted.matches,
        limit=limit,
        cursor=cursor,
        since=wanted_since,
        until=wanted_until,
        names=FOUND if wanted.needs_more else BRIEF,
    )
    if wanted.principal is None:
        return found
    # The index has those of the principal alone; an entry of another one would be a fault, or a forger's.
    return Page([record for record in found.items if record.principal == wanted.principal], found.next)


def _narrowest(redis: RedisHandle, wanted: TaskFilter) -> tuple[str, int | None, int | None]:
    """The shortest index that has every task of a filter, and the part of it that may have one."""
    keys, principal = redis.keys, wanted.principal
    if wanted.parent_id is not None:
        return keys.children(wanted.parent_id), wanted.since, wanted.until
    found = [keys.label(principal, f"{key}={value}") for key, value in wanted.labels.items()]
    by_request = keys.request(principal, wanted.request_id) if wanted.request_id is not None else None
    made = request_ids.made_at(wanted.request_id) if wanted.request_id is not None else None
    if by_request is not None and (made is None or redis.run(("ZCARD", by_request))[0]):
        return by_request, wanted.since, wanted.until
    sizes = redis.gather(*(("ZCARD", each) for each in found)) if len(found) > 1 else [0] * len(found)
    key = min(zip(sizes, found, strict=True), default=(0, keys.index(principal)))[1]
    if made is None:
        return key, wanted.since, wanted.until
    since, until = made, made + request_ids.WINDOW + 1
    return (
        key,
        since if wanted.since is None else max(since, wanted.since),
        until if wanted.until is None else min(until, wanted.until),
    )
