"""A task's hops as server-sent events: the past ones, then each new one, until the task has ended.

The process that records a hop publishes it to Redis, and Redis notifies each gateway process that waits for the task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dispatch.errors import StoreError
from dispatch.protocol.record import Record
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger

MEDIA_TYPE = "text/event-stream"

#: Seconds without an event after which a comment keeps the connection alive.
HEARTBEAT = 15.0

#: Seconds: maximum duration of a stream, also of one to a crashed host; clients reconnect with Last-Event-ID.
LONGEST = 600.0

#: Milliseconds after which a disconnected client should reconnect.
_RETRY = 3_000

log = logger(__name__)


def last_event(value: str | None) -> int:
    """The number in a Last-Event-ID; 0 without the header or when it is not a number."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 10 else 0


def follow(tasks: TaskStore, record: Record, after: int, over: Callable[[], bool]) -> Iterator[str]:
    """Stream a task's hops.

    Args:
        tasks: the records.
        record: the task.
        after: number of the last event that the client has received.
        over: whether the client has disconnected or this process is shutting down.

    Yields:
        Parts of a ``text/event-stream``; the first immediately.
    """
    yield f"retry: {_RETRY}\n\n"
    end = time.monotonic() + LONGEST
    try:
        while True:
            # The record was read before the hops: if the task has ended, its last hop is among them.
            for hop in tasks.hops(record.task_id):
                if hop["seq"] > after:
                    after = hop["seq"]
                    yield event(hop)
            if record.state.terminal or time.monotonic() > end or over():
                return
            changed = tasks.wait(record.task_id, record.revision, HEARTBEAT, over)
            if changed is None or over():
                return
            if changed.revision == record.revision:
                yield ": keep-alive\n\n"
            record = changed
    except StoreError as exc:
        log.warning("event stream closed: the store is unavailable", task_id=record.task_id, reason=str(exc))


def event(hop: Mapping[str, Any]) -> str:
    """A hop as a server-sent event."""
    data = json.dumps(hop, separators=(",", ":"), ensure_ascii=False)
    return f"id: {hop['seq']}\nevent: {hop['kind']}\ndata: {data}\n\n"
