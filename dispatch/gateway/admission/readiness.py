"""Readiness: whether RabbitMQ and Redis accept tasks now."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from dispatch.errors import StoreUnavailable, Trouble
from dispatch.store.tasks import StoreHealth

CHECK_TIMEOUT = 0.5  #: seconds for each check
_PROBE_TIMEOUT = 0.8 * CHECK_TIMEOUT  #: seconds, so that a check whose probe fails still has the reason
CACHED = 1.0  #: seconds for which a result is reused

#: Returns the failure; None when the check passes.
Check = Callable[[], str | None]

#: Server by check.
SERVERS = {"store": "Redis", "broker": "RabbitMQ"}

#: RabbitMQ's failures where no reason is known.
_NO_DEPTH = "RabbitMQ: it did not return the depth of the work queue in time"
_NO_PUBLISH = "RabbitMQ: it accepts no messages"

#: Problem by failed check; the first one listed takes precedence.
SLUGS = {"store": "store-unavailable", "broker": "broker-unavailable", "keys": "keys-unavailable"}


class BrokerProbe(Protocol):
    """Sends the broker a request; implemented by `dispatch.gateway.admission.depth.DepthReader`."""

    @property
    def trouble(self) -> Trouble | None:
        """Why the latest request failed; None when it did not, or why is not known."""

    def probe(self, timeout: float) -> bool:
        """Whether the broker responded within `timeout` seconds."""


class PublisherState(Protocol):
    """Implemented by `dispatch.broker.publisher.Publisher`."""

    @property
    def trouble(self) -> Trouble | None:
        """What keeps it from publishing; None when nothing does, as far as is known."""

    def ready(self) -> bool:
        """Whether a publish could be written."""


class FollowedKeys(Protocol):
    """Implemented by `dispatch.gateway.http.key_source.KeySource`."""

    @property
    def follows_file(self) -> bool:
        """Whether there is a file of API keys."""

    @property
    def ready(self) -> bool:
        """Whether the API keys are known."""

    @property
    def failure(self) -> str:
        """Why the file can't be used now."""


class StoreProbe(Protocol):
    """Implemented by `dispatch.store.tasks.TaskStore`."""

    def ping(self) -> StoreHealth:
        """The health of Redis; raises StoreUnavailable when it does not respond."""


def broker_check(probe: BrokerProbe, publisher: PublisherState) -> Check:
    """RabbitMQ responds, has the work queue, and accepts messages."""

    def check() -> str | None:
        if not probe.probe(_PROBE_TIMEOUT):
            return _reason(probe.trouble or publisher.trouble, _NO_DEPTH)
        return None if publisher.ready() else _reason(publisher.trouble, _NO_PUBLISH)

    return check


def store_check(store: StoreProbe) -> Check:
    """Redis responds, accepts writes, and evicts nothing."""

    def check() -> str | None:
        try:
            health = store.ping()
        except StoreUnavailable as exc:
            return _reason(exc.trouble, "Redis: it did not answer in time")
        if health.full:
            return "Redis is full (maxmemory): no task can be accepted until tasks end or dead letters are discarded"
        return None if health.noeviction else "Redis may evict records: set maxmemory-policy noeviction"

    return check


def _reason(trouble: Trouble | None, otherwise: str) -> str:
    """What anyone may read: this check needs no API key, so the address and the server's own words are in the log only."""
    return otherwise if trouble is None else trouble.public


def key_checks(keys: FollowedKeys) -> dict[str, Check]:
    """Of a file of API keys; none without one.

    `keys` fails while no API key is known. `keysFile` alone fails while the file can't be used and the API keys that it held
    before stay in force: that is shown and makes no gateway unready, or one bad edit would take all of them away.
    """
    if not keys.follows_file:
        return {}
    return {
        "keys": lambda: None if keys.ready else keys.failure,
        "keysFile": lambda: keys.failure or None,
    }


class Readiness:
    """Runs the checks concurrently, one round at a time, and caches the results for `CACHED` seconds.

    Args:
        checks: by name; `store` and `broker`, perhaps `key_checks`. One that `SLUGS` lacks is shown only.
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
            return f"{SERVERS.get(name, name)}: no response within {CHECK_TIMEOUT:g} s"
        except Exception as exc:  # noqa: BLE001 - any exception is a failure
            failure = f"{SERVERS.get(name, name)}: {type(exc).__name__}"
        del self._running[name]
        return failure
