"""A worker's heartbeats."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from dispatch.background import Background
from dispatch.errors import StoreError
from dispatch.store.workers import WorkerInfo, WorkerRegistry

#: Seconds between two heartbeats.
BEAT = 3.0


class Heartbeat(Background):
    """Writes a worker's heartbeats; leaves the registry when it stops, as far as Redis answers.

    Args:
        registry: of all workers.
        inspect: the worker as it is now.
    """

    def __init__(self, registry: WorkerRegistry, inspect: Callable[[], WorkerInfo]) -> None:
        super().__init__("heartbeat", interval=BEAT)
        self._registry = registry
        self._inspect = inspect
        self._worker = inspect().name

    def step(self) -> None:
        """One heartbeat."""
        self._registry.beat(self._inspect())

    def finish(self) -> None:
        """Leave the registry."""
        with contextlib.suppress(StoreError):
            self._registry.leave(self._worker)
