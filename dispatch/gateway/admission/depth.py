"""A thread reads the depth of the work queue once a second, so that no request does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from dispatch.background import Background
from dispatch.errors import Trouble
from dispatch.gateway.admission.guard import FRESH, Guard
from dispatch.telemetry import logger, metrics

INTERVAL = 1.0  #: seconds between two reads
_RATE_EVERY = 5.0  #: seconds; RabbitMQ measures no more often

log = logger(__name__)


class Gauge(Protocol):
    """Reads the depth of the work queue."""

    def read(self) -> int:
        """Ready messages; any exception means that the read failed."""

    def close(self) -> None:
        """Drop the connection; never raises."""

    def trouble(self, exc: Exception) -> Trouble:
        """Why `read` failed."""


class DepthReader(Background):
    """Feeds the guard, and knows whether the broker answers.

    Args:
        guard: stores the readings.
        gauge: reads the depth.
        rate: returns the drain rate measured by RabbitMQ.
        of_all: the guard of all lanes, if it is not the guard itself.
    """

    def __init__(
        self, guard: Guard, gauge: Gauge, rate: Callable[[], float | None], *, of_all: Guard | None = None
    ) -> None:
        super().__init__("depth-reader", interval=INTERVAL)
        self._of_all = of_all or guard
        self._guard = guard
        self._gauge = gauge
        self._rate = rate
        self._rate_due = 0.0
        self._changed = threading.Condition()
        self._read_at: float | None = None
        self._failed_at: float | None = None
        self.trouble: Trouble | None = None  #: why the latest read failed; None when it did not

    def close(self) -> None:
        """Stop reading."""
        self.stop(wait=2.0)

    def probe(self, timeout: float) -> bool:
        """Read now.

        Args:
            timeout: seconds to wait for the result.

        Returns:
            Whether the broker responded in time.
        """
        with self._changed:
            asked = time.monotonic()
            self.wake()
            self._changed.wait_for(lambda: _since(asked, self._read_at) or _since(asked, self._failed_at), timeout)
            return _since(asked, self._read_at)

    @property
    def fresh(self) -> bool:
        """Whether the latest successful read is at most `FRESH` seconds old."""
        return self._read_at is not None and time.monotonic() - self._read_at <= FRESH

    def step(self) -> None:
        """Read the depth, and while the queue is deep the drain rate."""
        started = time.monotonic()
        try:
            ready = self._gauge.read()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the guard opens
            self._gauge.close()
            metrics.REFUSING.set(self._of_all.refuses())
            self._log_turn(self._gauge.trouble(exc))
            with self._changed:
                self._failed_at = started
                self._changed.notify_all()
            return
        self._guard.observe(ready)
        if self._of_all is self._guard:
            metrics.DEPTH.set(ready)
        metrics.REFUSING.set(self._of_all.refuses())
        with self._changed:
            self._read_at = started
            self._changed.notify_all()
        self._log_turn(None)
        if self._guard.busy and started >= self._rate_due:
            self._rate_due = started + _RATE_EVERY
            self._guard.measured(self._rate())

    def finish(self) -> None:
        """Drop the connection."""
        self._gauge.close()

    def _log_turn(self, trouble: Trouble | None) -> None:
        """Log when an outage begins, has another reason, and ends, not every second of it."""
        if trouble is not None and trouble != self.trouble:
            log.warning(
                "reading the work queue depth failed: the 429 guard admits all tasks",
                reason=trouble.reason,
                where=trouble.where,
                detail=trouble.detail or None,
            )
        elif self.trouble is not None and trouble is None:
            log.info("reading the work queue depth works again")
        self.trouble = trouble


def _since(asked: float, at: float | None) -> bool:
    return at is not None and at >= asked
