"""Readiness: whether RabbitMQ and Redis accept tasks now."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from dispatch.errors import StoreUnavailable
from dispatch.store.tasks import StoreHealth

CHECK_TIMEOUT = 0.5  #: seconds for each check
CACHED = 1.0  #: seconds for which a result is reused

#: Returns the failure; None when the check passes.
Check = Callable[[], str | None]

#: Problem by failed check; the first one listed takes precedence.
SLUGS = {"store": "store-unavailable", "broker": "broker-unavailable"}


class BrokerProbe(Protocol):
    """Sends the broker a request; implemented by `dispatch.gateway.admission.depth.DepthReader`."""

    @property
    def failure(self) -> str:
        """Why the latest request failed, without a secret; empty when it did not."""

    def probe(self, timeout: float) -> bool:
        """Whether the broker responded within `timeout` seconds."""


class PublisherState(Protocol):
    """Implemented by `dispatch.broker.publisher.Publisher`."""

    @property
    def refusal(self) -> str:
        """Why TLS keeps it from connecting; empty when it does not."""

    def ready(self) -> bool:
        """Whether a publish could be written."""


class StoreProbe(Protocol):
    """Implemented by `dispatch.store.tasks.TaskStore`."""

    def ping(self) -> StoreHealth:
        """The health of Redis; raises StoreUnavailable when it does not respond."""


def broker_check(probe: BrokerProbe, publisher: PublisherState) -> Check:
    """RabbitMQ responds, has the work queue, and accepts messages."""

    def check() -> str | None:
        if not probe.probe(CHECK_TIMEOUT):
            return _with("RabbitMQ did not return the depth of the work queue in time", probe.failure)
        if publisher.ready():
            return None
        return _with("RabbitMQ accepts no messages (no connection, or an alarm)", publisher.refusal)

    return check


def store_check(store: StoreProbe) -> Check:
    """Redis responds, and evicts nothing."""

    def check() -> str | None:
        try:
            health = store.ping()
        except StoreUnavailable as exc:
            return _with("Redis did not respond in time", exc.refusal)
        return None if health.noeviction else "Redis may evict records: set maxmemory-policy noeviction"

    return check


def _with(failure: str, reason: str) -> str:
    reason = reason.partition(", certificate is not valid for ")[0]  # the check is open to everybody: no host
    return f"{failure}: {reason}" if reason else failure


class Readiness:
    """Runs the checks concurrently, one round at a time, and caches the results for `CACHED` seconds.

    Args:
        checks: by name; `store` and `broker`.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._lock = threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(len(checks), thread_name_prefix="readiness")
        self._running: dict[str, concurrent.futures.Future[str | None]] = {}
        self._failures: dict[str, str | None] = {}
        self._until = 0.0

    def failures(self) -> Mapping[str, str | None]:
        """The failure of each check by name; None for one that passes."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._failures = self._run()
                self._until = time.monotonic() + CACHED
            return self._failures

    def close(self) -> None:
        """Shut the thread pool down, without waiting for its checks."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> dict[str, str | None]:
        # A check that hangs holds its thread; the next rounds wait for it and start no second one.
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = self._pool.submit(check)
        deadline = time.monotonic() + CHECK_TIMEOUT
        return {name: self._result(name, deadline) for name in self._checks}

    def _result(self, name: str, deadline: float) -> str | None:
        future = self._running[name]
        try:
            failure = future.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            return f"no response within {CHECK_TIMEOUT:g} s"
        except Exception as exc:  # noqa: BLE001 - any exception is a failure
            failure = type(exc).__name__
        del self._running[name]
        return failure
