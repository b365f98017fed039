"""A task's hops as server-sent events: what has happened so far, then each as it happens, until the task has ended.

Whichever process made a hop tells Redis, and Redis tells every gateway process that waits for this task.
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

#: Seconds without an event after which a comment shows that the stream lives.
HEARTBEAT = 15.0

#: Seconds a stream may last; the client comes back with Last-Event-ID. A client whose machine died keeps its place no longer.
LONGEST = 600.0

#: Milliseconds after which a client that lost its stream should come back.
_RETRY = 3_000

log = logger("dispatch.gateway.streams")


def last_event(given: str | None) -> int:
    """The number of the last event a client has seen; 0 when it has seen none, or says something else."""
    return int(given) if given is not None and given.isascii() and given.isdigit() and len(given) < 10 else 0


def follow(tasks: TaskStore, record: Record, after: int, over: Callable[[], bool]) -> Iterator[str]:
    """The stream.

    Args:
        tasks: the records.
        record: the task.
        after: number of the last event that the client has seen.
        over: whether the client or this process is leaving.

    Yields:
        Parts of a ``text/event-stream``; the first at once.
    """
    yield f"retry: {_RETRY}\n\n"
    end = time.monotonic() + LONGEST
    try:
        while True:
            # The record was read before the hops: if it has ended, its last hop is among them.
            for hop in tasks.hops(record.task_id):
                if hop["seq"] > after:
                    after = hop["seq"]
                    yield event(hop)
            if record.state.terminal or time.monotonic() > end or over():
                return
            changed = tasks.wait(record.task_id, record.revision, HEARTBEAT, over)
            if changed is None:
                return
            if changed.revision == record.revision and not over():
                yield ": still there\n\n"
            record = changed
    except StoreError as exc:
        log.warning("a stream ends: the client comes back", task_id=record.task_id, reason=str(exc))


def event(hop: Mapping[str, Any]) -> str:
    """A hop as an event."""
    data = json.dumps(hop, separators=(",", ":"), ensure_ascii=False)
    return f"id: {hop['seq']}\nevent: {hop['kind']}\ndata: {data}\n\n"
