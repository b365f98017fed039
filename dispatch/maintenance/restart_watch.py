"""Repeats what Redis lost with its last seconds, once it has started again or another server has taken over."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from dispatch.background import Background
from dispatch.errors import StoreUnavailable
from dispatch.store.scripts import RedisHandle
from dispatch.store.unsynced import LATER, Repeat, Unsynced
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds between two looks: less than the sweeper's grace by far, and than `dispatch.store.unsynced.KEPT`.
INTERVAL = 1.0


class RestartWatch(Background):
    """Asks Redis for its ``run_id``, which each start of a server makes anew; see `dispatch.store.unsynced`.

    Crash window: a process that dies with Redis repeats nothing. Then the sweeper has the task, after the work queue's time to live.

    Args:
        redis: the process's handle.
        others: what its other handles to the same Redis keep.
    """

    def __init__(self, redis: RedisHandle, *others: Unsynced) -> None:
        super().__init__("restart-watch", interval=INTERVAL)
        self._redis = redis
        self._kept = [redis.unsynced, *others]
        self._runs: frozenset[str] = frozenset()
        self._new_at = -math.inf  # of `time.monotonic`: when another server than before was first seen
        self._later: list[Repeat] = []  # tasks whose lease a worker seems to hold: it has lapsed soon
        for each in self._kept:
            each.wanted = True

    def step(self) -> None:
        """Look, and repeat where it is another server; a Redis that is away, which its handle has logged, is looked at again."""
        try:
            self._look()
        except StoreUnavailable:
            for each in self._kept:
                each.failed()  # also what a handle keeps that had nothing to ask meanwhile

    def steady(self, seconds: float) -> bool:
        """Whether no other server than before has answered for some time, in which each process has repeated what is its own.

        Args:
            seconds: the time.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._redis.run_ids() <= self._runs and time.monotonic() - self._new_at >= seconds

    def _look(self) -> None:
        failures = [each.failures for each in self._kept]
        runs = self._redis.run_ids()
        if self._runs and not runs <= self._runs:
            repeats = [repeat for each in self._kept for repeat in each.repeats()]
            log.warning("Redis has started again, or another server took over", repeating=len(repeats))
            self._new_at = time.monotonic()
            self._later = _again(repeats)
        elif self._later:
            self._later = _again(self._later)
        self._runs = runs
        for each, before in zip(self._kept, failures, strict=True):
            each.checked(before)


def _again(repeats: Sequence[Repeat]) -> list[Repeat]:
    """Repeat; those to be tried once more."""
    return [repeat for repeat in repeats if not _done(repeat)]


def _done(repeat: Repeat) -> bool:
    try:
        return repeat() is not LATER
    except StoreUnavailable:
        raise
    except Exception:  # one must not keep it from all others
        log.exception("what Redis may have lost was not repeated")
        return True
