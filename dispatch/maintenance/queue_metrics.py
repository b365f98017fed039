"""Metrics of the servers: messages, consumers, age of the oldest task, drift from the broker map, Redis memory; schedules."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

from dispatch.background import Background
from dispatch.broker import provision, queue_stats
from dispatch.broker.model import BrokerMap
from dispatch.broker.queue_stats import QueueView
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.protocol.pauses import kind_of
from dispatch.protocol.rates import RateLimit
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.oldest import Oldest
from dispatch.store.pauses import HeldTasks
from dispatch.store.rates import Rates
from dispatch.store.schedules import ScheduleStore
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Seconds between two reads of the queues, and of the whole broker map.
READ_INTERVAL, COMPARE_INTERVAL = 5.0, 60.0

#: What holds tasks, and the keys whose waiting tasks are counted at most.
HOLDERS, MOST_KEYS = ("all", "type", "principal", "key", "concurrency", "rate"), 1_000

#: Seconds after which a figure is not exported any more: no figure is better than an old one.
OLD = 30.0


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
        limits: the rates of task types.
    """

    def __init__(
        self, redis: RedisHandle, wanted: BrokerMap, settings: Settings, limits: Sequence[RateLimit] = ()
    ) -> None:
        super().__init__("queue-metrics", interval=READ_INTERVAL)
        self._redis = redis
        self._oldest = Oldest(redis)
        self._held = HeldTasks(redis)
        self._concurrency = ConcurrencyKeys(redis, lease=settings.lease)
        self._rates, self._limits = Rates(redis, lease=settings.lease), limits
        self._schedules = ScheduleStore(redis)
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
        self._try("memory", self._read_memory)
        self._try("held", self._read_held)
        self._try("schedules", self._read_schedules)
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
        views = queue_stats.snapshot(self._wanted, self._settings, depth_limits=self._settings.depth_limits)
        self._keep(metrics.QUEUE_MESSAGES, messages(views))
        self._keep(
            metrics.QUEUE_CONSUMERS, {(view.name,): view.consumers for view in views if view.consumers is not None}
        )

    def _read_ages(self) -> None:
        self._keep(metrics.OLDEST, {(queue,): age for queue, age in self._oldest.ages().items()})

    def _read_memory(self) -> None:
        self._keep(metrics.REDIS_MEMORY, {(): max(map(_share_used, self._redis.memory()))})

    def _read_schedules(self) -> None:
        tally = self._schedules.tally(int(time.time() * 1_000))
        states = ("waiting", "paused", "missed", "failing")
        self._keep(metrics.SCHEDULES, {(state,): float(getattr(tally, state)) for state in states})
        self._keep(metrics.LAST_FIRE, {(): tally.last_fire / 1_000} if tally.last_fire else {})

    def _read_held(self) -> None:
        held = dict.fromkeys(HOLDERS, 0)
        for what, count in self._held.counts(self._held.holders()).items():
            held[kind_of(what)] = held.get(kind_of(what), 0) + count
        held["concurrency"] = self._concurrency.waiting(MOST_KEYS)
        held["rate"] = self._rates.waiting(self._limits)
        self._keep(metrics.HELD, {(what,): held[what] for what in HOLDERS})

    def _compare(self) -> None:
        self._keep(metrics.DRIFT, {(): float(provision.verify(self._wanted, self._settings).drift)})

    def _keep(self, described: tuple[str, str, tuple[str, ...]], samples: dict[tuple[str, ...], float]) -> None:
        self._seen[described[0]] = described, Seen(time.monotonic(), samples)


def _share_used(memory: Mapping[str, Any]) -> float:
    """Of maxmemory; without one, of the machine's memory, at whose end the kernel kills Redis."""
    return int(memory["used_memory"]) / (int(memory["maxmemory"]) or int(memory["total_system_memory"]))


def messages(views: Iterable[QueueView]) -> dict[tuple[str, ...], float]:
    """Messages by queue and state; nothing of a queue that RabbitMQ has no statistics of."""
    return {
        (view.name, state): count
        for view in views
        for state, count in (("ready", view.ready), ("unacked", view.unacked), ("total", view.total))
        if count is not None
    }
