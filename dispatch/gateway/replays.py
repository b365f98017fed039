"""Whether a request repeats one that was made before; asked only while the queue is full.

A full queue refuses new tasks with "it never runs". Said to a repeat of an accepted task that would be a lie,
so a repeat passes the guard: it is answered from its record, or goes on with the same task id.
"""

from __future__ import annotations

from dispatch.config.settings import Settings
from dispatch.store.keys import idempotency_key
from dispatch.store.scripts import Scripts


class Replays:
    """Looks Idempotency-Keys up. Thread-safe.

    Args:
        settings: where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.redis_prefix
        self._redis = Scripts(settings, timeout=settings.store_timeout, names=())

    def known(self, principal: str, key: str) -> bool:
        """Whether a principal's key is in use.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(self._redis.run(("EXISTS", idempotency_key(self._prefix, principal, key)))[0])

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
