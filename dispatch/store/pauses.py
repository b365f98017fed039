"""What is paused, and the lists of what is held, by what holds it.

The lists are an index: a task is in one before its record is HELD, and leaves it when a copy of it was sent, or its record
shows that nothing has to be. What an index has lost comes out of the hold queue by itself, after its TTL.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from dispatch.protocol.pauses import Pause
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle


class Pauses:
    """The pauses that are in force. Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def all(self) -> list[Pause]:
        """Every pause, by its name; those that have ended by themselves are removed."""
        return self.read()[0]

    def read(self) -> tuple[list[Pause], float]:
        """The same, and Redis's time (epoch seconds)."""
        key = self._redis.keys.pauses
        (seconds, micros), stored = self._redis.run(("TIME",), ("HGETALL", key))
        texts = stored if isinstance(stored, dict) else dict(zip(stored[::2], stored[1::2], strict=True))
        pauses = [Pause.parse(what, text) for what, text in sorted(texts.items())]
        over = [
            self._redis.script("drop_field", [key], one.what, texts[one.what])
            for one in pauses
            if one.over(int(seconds))
        ]
        if over:
            self._redis.run(*over)
        return [one for one in pauses if not one.over(int(seconds))], int(seconds) + int(micros) / 1e6

    def put(self, pause: Pause) -> None:
        """Pause; a pause of the same is replaced."""
        self._redis.run(self._redis.vital("HSET", self._redis.keys.pauses, pause.what, pause.text()))

    def remove(self, what: str) -> bool:
        """End a pause; what is held by it is sent by the workers.

        Returns:
            Whether there was one.
        """
        return bool(self._redis.run(("HDEL", self._redis.keys.pauses, what))[0])


class HeldTasks:
    """The tasks that are held, by what holds them. Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def listing(self, held_by: str, task_id: str) -> list[RedisCommand]:
        """The commands that list a task, before its record is HELD; its list first, so that no list is left without its name."""
        now = int(time.time() * 1_000)
        keys = self._redis.keys
        return [
            self._redis.vital("ZADD", keys.held_by(held_by), now, task_id),
            self._redis.vital("ZADD", keys.held, now, held_by),
        ]

    def holders(self) -> dict[str, float]:
        """What holds tasks, and when it held the last one (epoch milliseconds)."""
        return dict(_pairs(self._redis.run(("ZRANGE", self._redis.keys.held, 0, -1, "WITHSCORES"))[0]))

    def first(self, held_by: str, limit: int) -> list[tuple[str, float]]:
        """The tasks that have been held longest, and since when (epoch milliseconds)."""
        key = self._redis.keys.held_by(held_by)
        return _pairs(self._redis.run(("ZRANGE", key, 0, limit - 1, "WITHSCORES"))[0])

    def counts(self, holders: Iterable[str]) -> dict[str, int]:
        """How many tasks each of them holds."""
        names = list(holders)
        if not names:
            return {}
        counts = self._redis.gather(*(("ZCARD", self._redis.keys.held_by(name)) for name in names))
        return {name: int(count) for name, count in zip(names, counts, strict=True)}

    def drop(self, held_by: str, entries: Iterable[tuple[str, float]]) -> None:
        """Remove tasks from a list, unless they were held again since it was read.

        Args:
            held_by: whose list.
            entries: as `first` returned them.
        """
        words: list[str | float] = [word for entry in entries for word in entry]
        if words:
            self._redis.run(self._redis.script("unlist", [self._redis.keys.held_by(held_by)], *words))

    def forget(self, held_by: str, last: float) -> None:
        """Remove the name of an empty list, unless a task was held since.

        Args:
            held_by: whose list.
            last: as `holders` returned it.
        """
        self._redis.run(self._redis.script("unlist", [self._redis.keys.held], held_by, last))


def _pairs(answer: list[str]) -> list[tuple[str, float]]:
    if answer and isinstance(answer[0], (list, tuple)):  # redis-py of a cluster
        return [(str(entry), float(score)) for entry, score in answer]
    return [(entry, float(score)) for entry, score in zip(answer[::2], answer[1::2], strict=True)]
