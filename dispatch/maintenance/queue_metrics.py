"""Metrics of the queues: messages, consumers, the age of the oldest task, drift from the broker map."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from dispatch.background import Background
from dispatch.broker import provision, queue_stats
from dispatch.broker.model import BrokerMap
from dispatch.broker.queue_stats import QueueView
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.protocol import names
from dispatch.protocol.record import Brief, State
from dispatch.store import index
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Seconds between two reads of the queues, and of the whole broker map.
READ_INTERVAL, COMPARE_INTERVAL = 5.0, 60.0

#: Seconds after which a figure is not exported any more: no figure is better than an old one.
OLD = 30.0

#: Entries of the waiting list that are tried for a task that really waits.
_TRIES = 50

_WAITING = frozenset({State.SCHEDULED, State.QUEUED, State.RETRY_WAIT})


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Samples, and when they were read (`time.monotonic` seconds)."""

    at: float
    samples: dict[tuple[str, ...], float]


class QueueMetrics(Background):
    """Reads the queues in the background, so that no scrape waits for RabbitMQ or Redis; a Prometheus collector.

    Args:
        redis: the process's handle.
        wanted: the broker map.
        settings: the management API, and the limit of the work queue.
    """

    def __init__(self, redis: RedisHandle, wanted: BrokerMap, settings: Settings) -> None:
        super().__init__("queue-metrics", interval=READ_INTERVAL)
        self._redis = redis
        self._wanted = wanted
        self._settings = settings
        self._seen: dict[str, tuple[tuple[str, str, tuple[str, ...]], Seen]] = {}
        self._compared_at = -COMPARE_INTERVAL
        self._failing: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        """What was read lately."""
        now = time.monotonic()
        for described, seen in list(self._seen.values()):
            if now - seen.at < OLD + (COMPARE_INTERVAL if described is metrics.DRIFT else 0):
                yield metrics.family(described, seen.samples)

    def step(self) -> None:
        """Read once; what can't be read is left out."""
        self._try("queues", self._read_queues)
        self._try("ages", self._read_ages)
        if time.monotonic() - self._compared_at >= COMPARE_INTERVAL:
            self._compared_at = time.monotonic()
            self._try("topology", self._compare)

    def _try(self, what: str, read: Callable[[], None]) -> None:
        """Log when an outage begins, not every read."""
        try:
            read()
        except Exception as exc:  # noqa: BLE001 - one figure that can't be read must not hide the others
            if what not in self._failing:
                expected = isinstance(exc, DispatchError)
                log.warning("metrics can't be read", what=what, reason=str(exc) if expected else repr(exc))
            self._failing.add(what)
        else:
            self._failing.discard(what)

    def _read_queues(self) -> None:
        views = queue_stats.snapshot(self._wanted, self._settings, depth_limit=self._settings.queue_depth_limit)
        self._keep(metrics.QUEUE_MESSAGES, messages(views))
        self._keep(
            metrics.QUEUE_CONSUMERS, {(view.name,): view.consumers for view in views if view.consumers is not None}
        )

    def _read_ages(self) -> None:
        now = time.time() * 1_000
        ages = {names.WORK_QUEUE: self._oldest_waiting(now), names.DEAD_QUEUE: self._oldest_dead()}
        self._keep(
            metrics.OLDEST, {(queue,): max(0.0, now - since) / 1_000 if since else 0.0 for queue, since in ages.items()}
        )

    def _compare(self) -> None:
        self._keep(metrics.DRIFT, {(): float(provision.verify(self._wanted, self._settings).drift)})

    def _keep(self, described: tuple[str, str, tuple[str, ...]], samples: dict[tuple[str, ...], float]) -> None:
        self._seen[described[0]] = described, Seen(time.monotonic(), samples)

    def _oldest_waiting(self, now: float) -> float | None:
        """Since when the oldest task waits, epoch milliseconds; entries that a crash left behind are dropped."""
        key = self._redis.keys.waiting
        entries = self._entries("ZRANGEBYSCORE", key, "-inf", now, "WITHSCORES", "LIMIT", 0, _TRIES)
        index.unlist(
            self._redis, key, [entry for entry, record in entries if record is None or record.state not in _WAITING]
        )
        return next((since for (_, since), record in entries if record and record.state in _WAITING), None)

    def _oldest_dead(self) -> float | None:
        """Since when the oldest dead letter lies there, epoch ms; a crash may leave entries of living tasks."""
        entries = self._entries("ZRANGE", self._redis.keys.dead, 0, _TRIES - 1, "WITHSCORES")
        return next((since for (_, since), record in entries if record and record.is_dead_letter), None)

    def _entries(self, *command: str | float) -> list[tuple[index.Entry, Brief | None]]:
        """The entries that a command returns, with their records' briefs."""
        entries = index.pairs(self._redis.run(command)[0])
        return list(zip(entries, index.briefs(self._redis, [task_id for task_id, _ in entries]), strict=True))


def messages(views: Iterable[QueueView]) -> dict[tuple[str, ...], float]:
    """Messages by queue and state; nothing of a queue that RabbitMQ has no statistics of."""
    return {
        (view.name, state): count
        for view in views
        for state, count in (("ready", view.ready), ("unacked", view.unacked), ("total", view.total))
        if count is not None
    }
