"""What a worker tells of the queues: looked at in the background, so that no scrape waits for RabbitMQ or Redis."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from dispatch.broker import provision
from dispatch.broker import queue_stats as queues
from dispatch.broker.queue_stats import QueueView
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.protocol import names
from dispatch.protocol.record import Record, State
from dispatch.store.keys import dead_key, waiting_key
from dispatch.store.scripts import Scripts, pairs, words
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger, metrics

log = logger("dispatch.queuewatch")

#: Seconds between two looks at the queues, and at the whole broker map.
LOOK, COMPARE = 5.0, 60.0

#: Seconds after which what was seen is not told any more: no figure is better than an old one.
OLD = 30.0

#: Entries of the waiting list that are tried for a task that really waits.
_TRIES = 50

_WAITING = frozenset({State.SCHEDULED, State.QUEUED, State.RETRY_WAIT})


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Something that was looked at, and when (`time.monotonic` seconds)."""

    at: float
    samples: dict[tuple[str, ...], float]


class QueueMetrics:
    """Looks at the queues on a thread; a Prometheus collector.

    Args:
        settings: the worker's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = TaskStore(settings, timeout=1.0)
        self._redis = Scripts(settings, timeout=1.0, names=("unlist_key",))
        self._seen: dict[str, tuple[tuple[str, str, tuple[str, ...]], Seen]] = {}
        self._compared = 0.0
        self._failing: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-watch", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()

    def collect(self) -> Iterable[Metric]:
        """What was seen lately."""
        now = time.monotonic()
        for described, seen in list(self._seen.values()):
            if now - seen.at < OLD + (COMPARE if described is metrics.DRIFT else 0):
                yield metrics.family(described, seen.samples)

    def look(self) -> None:
        """Look once; what can't be seen is left out."""
        self._try("queues", self._look_at_queues)
        self._try("ages", self._look_at_ages)
        if time.monotonic() >= self._compared:
            self._compared = time.monotonic() + COMPARE
            self._try("topology", self._compare)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(LOOK)

    def _try(self, what: str, look: Callable[[], None]) -> None:
        """Log the turns only, not every look of an outage."""
        try:
            look()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the thread must live
            if what not in self._failing:
                expected = isinstance(exc, DispatchError)
                log.warning("can't be looked at", what=what, reason=str(exc) if expected else repr(exc))
            self._failing.add(what)
        else:
            self._failing.discard(what)

    def _look_at_queues(self) -> None:
        views = queues.snapshot(self._settings)
        self._keep(metrics.QUEUE_MESSAGES, messages(views))
        self._keep(
            metrics.QUEUE_CONSUMERS, {(view.name,): view.consumers for view in views if view.consumers is not None}
        )

    def _look_at_ages(self) -> None:
        now = time.time() * 1_000
        ages = {names.WORK_QUEUE: self._oldest_waiting(now), names.DEAD_QUEUE: self._oldest_dead()}
        self._keep(
            metrics.OLDEST, {(queue,): max(0.0, now - since) / 1_000 if since else 0.0 for queue, since in ages.items()}
        )

    def _compare(self) -> None:
        self._keep(metrics.DRIFT, {(): float(provision.verify(self._settings).drift)})

    def _keep(self, described: tuple[str, str, tuple[str, ...]], samples: dict[tuple[str, ...], float]) -> None:
        self._seen[described[0]] = described, Seen(time.monotonic(), samples)

    def _oldest_waiting(self, now: float) -> float | None:
        """Since when the oldest task waits, epoch milliseconds; entries that a crash left behind are dropped."""
        key = waiting_key(self._settings.redis_prefix)
        entries = self._entries("ZRANGEBYSCORE", key, "-inf", now, "WITHSCORES", "LIMIT", 0, _TRIES)
        left = [entry for entry, record in entries if record is None or record.state not in _WAITING]
        if left:
            self._redis.run(self._redis.step("unlist_key", [key], *words(left)))
        return next((since for (_, since), record in entries if record and record.state in _WAITING), None)

    def _oldest_dead(self) -> float | None:
        """Since when the oldest letter lies there, epoch milliseconds; a crash may leave entries of living tasks."""
        entries = self._entries("ZRANGE", dead_key(self._settings.redis_prefix), 0, _TRIES - 1, "WITHSCORES")
        return next((since for (_, since), record in entries if record and record.buried), None)

    def _entries(self, *command: str | float) -> list[tuple[tuple[str, float], Record | None]]:
        """What a command finds in a list, with the records."""
        found = pairs(self._redis.run(command)[0])
        return list(zip(found, self._store.get_many([task_id for task_id, _ in found]), strict=True))


def messages(views: Iterable[QueueView]) -> dict[tuple[str, ...], float]:
    """Messages by queue and state; nothing of a queue that RabbitMQ has no statistics of."""
    return {
        (view.name, state): count
        for view in views
        for state, count in (("ready", view.ready), ("unacked", view.unacked), ("total", view.total))
        if count is not None
    }
