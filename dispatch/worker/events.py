"""Task events for Flower, many in one message: three events a task cost more than the rest of the worker's main process.

What waits for its batch when the process dies, some tens of milliseconds of events, is lost; so is in stock Celery what
waited for the event loop's next turn. Nothing but displays reads events.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from celery.utils.time import utcoffset

#: Seconds until a batch is sent, and events of a batch that is not waited for.
PAUSE, FULL = 0.1, 300

_GROUP = "task"


class BatchingDispatcher(EventDispatcher):
    """Celery's dispatcher with cheaper and larger batches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "buffer_limit": FULL})
        self._offset = utcoffset()

    def send(self, type: str, *args: Any, **fields: Any) -> None:
        """Send an event, or put one about a task into the next batch."""
        if args or self.groups or not self.enabled or not type.startswith("task-") or _GROUP not in self.buffer_group:
            super().send(type, *args, **fields)
            return
        batch = self._group_buffer[_GROUP]
        if not batch:
            self._offset = utcoffset()
        batch.append({
            "hostname": self.hostname, "utcoffset": self._offset, "pid": self.pid, "clock": self.clock.forward(),
            **fields, "timestamp": time.time(), "type": type,
        })  # fmt: skip
        if len(batch) >= FULL:
            self.flush()
        elif self.on_send_buffered:
            self.on_send_buffered()

    def _publish(self, event: Any, producer: Any, routing_key: str, *args: Any, **options: Any) -> None:
        """Publish a batch as Celery does, but for kombu's JSON, which takes several times as long."""
        body = _encoded(event)
        if producer is None or body is None:
            super()._publish(event, producer, routing_key, *args, **options)
            return
        try:
            producer.publish(
                body,
                routing_key=routing_key,
                exchange=self.exchange.name,
                declare=[self.exchange],
                content_type="application/json",
                content_encoding="utf-8",
                headers=self.headers,
                delivery_mode=self.delivery_mode,
            )
        except Exception:
            if not self.buffer_while_offline:
                raise
            self._outbound_buffer.append((event, routing_key))

    def extend_buffer(self, other: Any) -> None:
        """Take over what the dispatcher of a lost connection has not sent, its batch included."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():  # noqa: SLF001 - Celery's forgets them
            self._group_buffer[group].extend(events)


def _encoded(event: Any) -> bytes | None:
    """A batch as JSON; None for an event by itself, and for what only kombu can write: objects of its own, half a surrogate pair."""
    if not isinstance(event, list):
        return None
    try:
        return orjson.dumps(event)
    except TypeError:
        return None


class WorkerEvents(Events):
    """The value of the Celery app's ``events``."""

    dispatcher_cls = f"{__name__}:{BatchingDispatcher.__name__}"
