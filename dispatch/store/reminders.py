"""Reminders: the tasks that the sweeper must check, and when. One is written before each record."""

from __future__ import annotations

from collections.abc import Mapping

from dispatch.store.scripts import RedisHandle


class Reminders:
    """Times are epoch seconds by Redis's clock. Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def clock(self) -> float:
        """Redis's clock."""
        seconds, micros = self._redis.run(("TIME",))[0]
        return int(seconds) + int(micros) / 1_000_000

    def due(self, now: float, limit: int) -> list[str]:
        """The tasks whose time to be checked has come."""
        due = self._redis.keys.due
        return list(self._redis.run(("ZRANGEBYSCORE", due, "-inf", now, "LIMIT", 0, limit))[0])

    def set(self, task_id: str, at: float) -> None:
        """Have the sweeper check a task at a time."""
        self._redis.run(self._redis.vital("ZADD", self._redis.keys.due, at, task_id))

    def postpone(self, times: Mapping[str, float], read_at: float) -> None:
        """Have the sweeper check tasks at these times, but for those whose reminder was set or dropped since it read their records."""
        if times:
            words = [word for task_id, at in times.items() for word in (task_id, at)]
            self._redis.run(self._redis.script("postpone_reminders", [self._redis.keys.due], read_at, *words))

    def drop(self, task_id: str, read_at: float) -> None:
        """Nothing is left to check, unless a reminder was set since the sweeper read the record."""
        self._redis.run(self._redis.script("drop_reminder", [self._redis.keys.due], task_id, read_at))
