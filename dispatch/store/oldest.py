"""Since when the oldest task waits in the work queue, and the oldest dead letter in the DLQ.

RabbitMQ does not report it for quorum queues, so the records do: docs/reference/metrics.md has what that includes.
"""

from __future__ import annotations

import time

from dispatch.protocol import names
from dispatch.protocol.record import Brief, State
from dispatch.store import index
from dispatch.store.scripts import RedisHandle

#: Entries of the waiting list that are tried for a task that really waits.
_TRIES = 50

_WAITING = frozenset({State.SCHEDULED, State.DELAYED, State.QUEUED, State.RETRY_WAIT})


class Oldest:
    """Reads the ages.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def ages(self) -> dict[str, float]:
        """Seconds by queue; 0 where nothing waits.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        now = time.time() * 1_000
        since = {names.WORK_QUEUE: self._waiting(now), names.DEAD_QUEUE: self._dead()}
        return {queue: max(0.0, now - at) / 1_000 if at else 0.0 for queue, at in since.items()}

    def _waiting(self, now: float) -> float | None:
        """Since when the oldest task waits, epoch milliseconds; entries that a crash left behind are dropped."""
        key = self._redis.keys.waiting
        entries = self._entries("ZRANGEBYSCORE", key, "-inf", now, "WITHSCORES", "LIMIT", 0, _TRIES)
        index.unlist(
            self._redis, key, [entry for entry, record in entries if record is None or record.state not in _WAITING]
        )
        return next((since for (_, since), record in entries if record and record.state in _WAITING), None)

    def _dead(self) -> float | None:
        """Since when the oldest dead letter lies there, epoch ms; a crash may leave entries of living tasks."""
        entries = self._entries("ZRANGE", self._redis.keys.dead, 0, _TRIES - 1, "WITHSCORES")
        return next((since for (_, since), record in entries if record and record.is_dead_letter), None)

    def _entries(self, *command: str | float) -> list[tuple[index.Entry, Brief | None]]:
        """The entries that a command returns, with their records' briefs."""
        entries = index.pairs(self._redis.run(command)[0])
        return list(zip(entries, index.briefs(self._redis, [task_id for task_id, _ in entries]), strict=True))
