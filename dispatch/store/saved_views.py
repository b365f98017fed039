"""Filters of the console's list of tasks that principals have given a name. Losing it loses no task."""

from __future__ import annotations

from collections.abc import Mapping

from dispatch.store.scripts import RedisHandle

#: Views of one principal at most.
MOST = 50


class SavedViews:
    """Reads and writes views. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def all(self, principal: str) -> dict[str, str]:
        """The queries of a principal's views, by name.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        answer = self._redis.run(("HGETALL", self._redis.keys.views(principal)))[0]
        found = answer if isinstance(answer, Mapping) else dict(zip(answer[::2], answer[1::2], strict=True))
        return dict(sorted(found.items()))

    def put(self, principal: str, name: str, query: str) -> bool:
        """Save a view; one of the same name is replaced.

        Args:
            principal: whose.
            name: for people.
            query: of the URL.

        Returns:
            Whether there was room: `MOST` and the few that come at the same moment.

        Raises:
            StoreError: Redis did not take it.
        """
        if len(self.all(principal).keys() - {name}) >= MOST:
            return False
        self._redis.run(("HSET", self._redis.keys.views(principal), name, query))
        return True

    def remove(self, principal: str, name: str) -> bool:
        """Remove a view; returns whether there was one.

        Raises:
            StoreError: Redis did not take it.
        """
        return bool(self._redis.run(("HDEL", self._redis.keys.views(principal), name))[0])
