"""Readiness: whether RabbitMQ and Redis take tasks now."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from dispatch.errors import StoreUnavailable
from dispatch.store.tasks import StoreHealth

PROBE = 0.5  #: seconds for each check


CACHED = 1.0  #: seconds a verdict is handed out again


#: A check returns what is wrong; None when nothing is.
Check = Callable[[], str | None]


#: What to answer when a check fails; the first one listed here wins.
_SLUGS = {"store": "store-unavailable", "broker": "broker-unavailable"}


class Probe(Protocol):
    """Asks the broker something; `dispatch.gateway.admission.depth.DepthReader` does."""

    def probe(self, timeout: float) -> bool:
        """Whether it answered within so many seconds."""


class Ready(Protocol):
    """Knows whether a publish could be written; `dispatch.broker.publisher.Publisher` does."""

    def ready(self) -> bool:
        """Whether it could."""


class Pings(Protocol):
    """Asks Redis how it is; `dispatch.store.tasks.TaskStore` does."""

    def ping(self) -> StoreHealth:
        """Raises StoreUnavailable when it does not answer."""


def broker_check(probe: Probe, publisher: Ready) -> Check:
    """RabbitMQ answers, has the work queue, and takes messages."""

    def check() -> str | None:
        if not probe.probe(PROBE):
            return "RabbitMQ did not tell the work queue's depth in time"
        return None if publisher.ready() else "RabbitMQ takes no messages (no connection, or an alarm)"

    return check


def store_check(store: Pings) -> Check:
    """Redis answers, and keeps what it is given."""

    def check() -> str | None:
        try:
            health = store.ping()
        except StoreUnavailable:
            return "Redis did not answer in time"
        return None if health.noeviction else "Redis may drop records: set maxmemory-policy noeviction"

    return check


class Readiness:
    """Runs the checks side by side, one round at a time, and remembers the verdict for a second.

    Args:
        checks: by name; `store` and `broker`.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._lock = threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(len(checks), thread_name_prefix="readiness")
        self._running: dict[str, concurrent.futures.Future[str | None]] = {}
        self._verdict: dict[str, str | None] = {}
        self._until = 0.0

    def verdict(self) -> Mapping[str, str | None]:
        """What is wrong with each, by name; None when nothing is."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._verdict = self._look()
                self._until = time.monotonic() + CACHED
            return self._verdict

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> dict[str, str | None]:
        # A check that hangs keeps its thread; it is not started a second time on top of that.
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = self._pool.submit(check)
        deadline = time.monotonic() + PROBE
        return {name: self._result(name, deadline) for name in self._checks}

    def _result(self, name: str, deadline: float) -> str | None:
        future = self._running[name]
        try:
            found = future.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            return f"no answer within {PROBE:g} s"
        except Exception as exc:  # noqa: BLE001 - a failing check is a verdict
            found = type(exc).__name__
        del self._running[name]
        return found
