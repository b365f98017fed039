"""Sessions of the console that were ended before their time. Losing it lets a copied cookie live until its time is over."""

from __future__ import annotations

from dispatch.store.scripts import RedisHandle


class EndedSessions:
    """Reads and writes which sessions are over. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def add(self, session: str, seconds: float) -> None:
        """End a session.

        Args:
            session: its id.
            seconds: for which its cookie would be good.

        Raises:
            StoreError: Redis did not take it.
        """
        key = self._redis.keys.ended_session(session)
        self._redis.run(("SET", key, 1, "PX", max(1, int(seconds * 1_000))))

    def has(self, session: str) -> bool:
        """Whether a session was ended.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(self._redis.run(("EXISTS", self._redis.keys.ended_session(session)))[0])
