"""The right to walk through the DLQ: messages that one walk holds are invisible to every other."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

from dispatch.errors import DispatchError, StoreError
from dispatch.store.scripts import RedisHandle

#: Seconds that the lock lives without being kept, and between two tries to take it.
LOCK_TTL, TRY_INTERVAL = 15.0, 0.2


class WalkInProgress(DispatchError):
    """Another walk through the dead letters is under way: try again later."""


class WalkLock:
    """A lock in Redis that lapses when its holder dies.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis
        self._walker = secrets.token_hex(8)
        self._kept_at = 0.0

    @contextlib.contextmanager
    def held(self, patience: float = 0.0) -> Iterator[WalkLock]:
        """Hold the lock while the block lasts.

        Args:
            patience: seconds to wait for it.

        Raises:
            WalkInProgress: another walk holds it.
            StoreUnavailable: Redis did not answer.
        """
        deadline = time.monotonic() + patience
        while not self._set(LOCK_TTL):
            if time.monotonic() >= deadline:
                raise WalkInProgress
            time.sleep(TRY_INTERVAL)
        self._kept_at = time.monotonic()
        try:
            yield self
        finally:
            with contextlib.suppress(StoreError):  # it lapses by itself
                self._set(0)

    def keep(self) -> None:
        """Renew the lock; call it again and again.

        Raises:
            WalkInProgress: it lapsed, and another walk has taken it.
            StoreUnavailable: Redis did not answer.
        """
        if time.monotonic() - self._kept_at < LOCK_TTL / 3:
            return
        if not self._set(LOCK_TTL):
            raise WalkInProgress
        self._kept_at = time.monotonic()

    def _set(self, seconds: float) -> bool:
        command = self._redis.script("walk_lock", [self._redis.keys.walk], self._walker, int(seconds * 1_000))
        return bool(self._redis.run(command)[0] == "OK")
