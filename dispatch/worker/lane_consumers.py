"""A paused lane: the worker cancels its consumer, and what waits stays in its queue; other lanes go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dispatch.protocol.pauses import LANE
from dispatch.telemetry import logger
from dispatch.worker.loop import LoopBridge

log = logger(__name__)


class LaneConsumers:
    """Which work queues the worker consumes.

    Args:
        queues: the work queues by lane.
        loop: where the worker's connection may be used.
    """

    def __init__(self, queues: Mapping[str, Collection[str]], loop: LoopBridge) -> None:
        self._queues = queues
        self._loop = loop
        self._paused: frozenset[str] = frozenset()  # queues
        self._cancelled: set[str] = set()  # queues; a worker may have been started without some of them
        self.consumer: Any = None  #: Celery's, while it is connected

    def read(self, paused: Collection[str]) -> None:
        """What is paused now, as it was read a moment ago; on any thread."""
        queues = frozenset(queue for lane, own in self._queues.items() if f"{LANE}{lane}" in paused for queue in own)
        if queues != self._paused:
            self._paused = queues
            self._loop.call(self.apply)

    def select(self, queues: Any) -> None:
        """Before the worker consumes, also after a reconnect.

        Args:
            queues: Celery's, of which those are consumed that are selected.
        """
        for queue in self._paused & queues.consume_from.keys():
            queues.deselect(queue)
            self._cancelled.add(queue)

    def apply(self) -> None:
        """Cancel and consume; on the event loop's thread."""
        consumer = self.consumer
        if consumer is None or consumer.task_consumer is None:
            return
        for queue in self._paused - self._cancelled:
            if queue in consumer.app.amqp.queues.consume_from:
                consumer.cancel_task_queue(queue)
                self._cancelled.add(queue)
                log.info("lane paused", queue=queue)
        for queue in self._cancelled - self._paused:
            consumer.add_task_queue(queue)
            self._cancelled.discard(queue)
            log.info("lane resumed", queue=queue)
