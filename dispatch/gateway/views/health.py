"""``/livez`` and ``/readyz``: is the process there, can it accept tasks."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from flask import Response

from dispatch.errors import StoreUnavailable
from dispatch.gateway.contract import models
from dispatch.gateway.http.context import json_response
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
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


class HealthViews:
    """For load balancers and orchestrators; open to everybody.

    Args:
        readiness: what `/readyz` asks.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    @operation(
        Operation(
            "GET", "/livez", "isAlive", "Health", "Whether the process answers; touches nothing",
            (ResponseSpec(200, "It does.", models.AliveModel),),
        )
    )  # fmt: skip
    def livez(self) -> Response:
        """The process answers."""
        return json_response({"status": "ok"})

    @operation(
        Operation(
            "GET", "/readyz", "isReady", "Health", "Whether tasks can be accepted",
            (ResponseSpec(200, "They can.", models.ReadyModel),),
            description="Asks RabbitMQ and Redis, 500 ms each, and remembers the verdict for a second. "
            "503 names what is down in `checks`.",
            problems=("broker-unavailable", "store-unavailable"),
        )
    )  # fmt: skip
    def readyz(self) -> Response:
        """RabbitMQ and Redis answer, and Redis keeps what it is given."""
        verdict = self._readiness.verdict()
        checks = {name: {"ok": wrong is None, "detail": wrong or "ok"} for name, wrong in verdict.items()}
        down = [name for name in _SLUGS if verdict.get(name) is not None]
        if down:
            detail = "; ".join(f"{name}: {verdict[name]}" for name in down)
            raise Problem(_SLUGS[down[0]], detail, retry_after=1, checks=checks)
        return json_response({"status": "ok", "checks": checks})
