"""A thread reads the depth of the work queue once a second, so that no request does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import amqp.exceptions
import kombu
import structlog

from dispatch.broker import provision
from dispatch.broker import queue_stats as queues
from dispatch.broker.management import Management, ManagementUnavailable
from dispatch.config.settings import Settings
from dispatch.gateway.admission.guard import FRESH, Guard
from dispatch.protocol import names
from dispatch.telemetry import metrics

INTERVAL = 1.0  #: seconds between two reads
_SOCKET = 1.0  #: seconds: timeout of connect, of each read and each write
_RATE_EVERY = 5.0  #: seconds; RabbitMQ measures no more often
_RATE_BUDGET = 0.5  #: seconds: timeout of the management API

_log = structlog.get_logger("dispatch.gateway.depth")


class Gauge(Protocol):
    """Reads the depth of the work queue."""

    def read(self) -> int:
        """Ready messages; any exception means that the read failed."""

    def close(self) -> None:
        """Close the connection; never raises."""


class DepthGauge:
    """Reads the depth by a passive declaration of the work queue, on a dedicated connection.

    The connection never publishes, so a memory alarm does not block it; it has no heartbeat, since it reads
    once a second and each read has a timeout.

    Args:
        settings: broker URL of the gateway's user.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection = kombu.Connection(
            settings.broker("gateway"),
            connect_timeout=_SOCKET,
            heartbeat=0,
            transport_options={"read_timeout": _SOCKET, "write_timeout": _SOCKET},
        )
        self._channel: Any = None

    def read(self) -> int:
        """Ready messages."""
        if self._channel is None:
            provision.connect(self._connection)
            self._channel = self._connection.channel()
        return queues.depth(self._channel, names.WORK_QUEUE).ready

    def close(self) -> None:
        """Close the connection; the next read opens a new one."""
        self._channel = None
        with contextlib.suppress(Exception):
            self._connection.collect()


def ack_rate(settings: Settings) -> float | None:
    """Messages a second that workers acknowledged recently, measured by RabbitMQ.

    Args:
        settings: the management API.

    Returns:
        The rate; None when the management API is unreachable: the guard then estimates.
    """
    try:
        with Management(settings, budget=_RATE_BUDGET) as management:
            queue = management.get("queues", management.vhost, names.WORK_QUEUE)
    except ManagementUnavailable:
        return None
    rate: float | None = queue.get("message_stats", {}).get("ack_details", {}).get("rate")
    return rate


class DepthReader:
    """Passes readings to the guard, and checks that the broker responds.

    Args:
        guard: stores the readings.
        gauge: reads the depth.
        rate: returns the drain rate measured by RabbitMQ.
    """

    def __init__(self, guard: Guard, gauge: Gauge, rate: Callable[[], float | None]) -> None:
        self._guard = guard
        self._gauge = gauge
        self._rate = rate
        self._rate_due = 0.0
        self._changed = threading.Condition()
        self._asked = False
        self._stopping = False
        self._read_at: float | None = None
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="depth-reader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(2 * _SOCKET)

    def probe(self, timeout: float) -> bool:
        """Read now.

        Args:
            timeout: seconds to wait for the result.

        Returns:
            Whether the broker responded in time.
        """
        with self._changed:
            asked = time.monotonic()
            self._asked = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._read_at is not None and self._read_at >= asked, timeout)

    @property
    def fresh(self) -> bool:
        """Whether the latest successful read is at most `FRESH` seconds old."""
        return self._read_at is not None and time.monotonic() - self._read_at <= FRESH

    def _run(self) -> None:
        while not self._stopping:
            self._read()
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._stopping, INTERVAL)
                self._asked = False
        self._gauge.close()

    def _read(self) -> None:
        started = time.monotonic()
        try:
            ready = self._gauge.read()
        except Exception as exc:  # noqa: BLE001 - the thread must survive; the guard admits requests meanwhile
            self._gauge.close()
            metrics.REFUSING.set(self._guard.full())
            self._note(failing=True, reason=_reason(exc))
            return
        self._guard.observe(ready)
        metrics.DEPTH.set(ready)
        metrics.REFUSING.set(self._guard.full())
        with self._changed:
            self._read_at = started
            self._changed.notify_all()
        self._note(failing=False, reason="")
        if self._guard.busy and started >= self._rate_due:
            self._rate_due = started + _RATE_EVERY
            self._guard.measured(self._rate())

    def _note(self, *, failing: bool, reason: str) -> None:
        """Log changes only, not every second of an outage."""
        if failing and not self._failing:
            _log.warning("reading the work queue depth failed: the 429 guard admits all tasks", reason=reason)
        elif self._failing and not failing:
            _log.info("reading the work queue depth works again")
        self._failing = failing


def _reason(exc: Exception) -> str:
    """The failure for the log, without the broker URL, which contains a password."""
    if isinstance(exc, amqp.exceptions.NotFound):
        return f"{names.WORK_QUEUE} is missing: run `celery -A celery_app topology apply`"
    return type(exc).__name__
