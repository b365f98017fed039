"""The 429 guard: rejects tasks while the work queue is over its depth limit, with an estimated Retry-After.

The request path only reads the latest `Reading`; `dispatch.gateway.admission.depth` takes one a second. With a stale
reading the guard admits requests: while the broker is unreachable, the publish itself fails.

The drain rate is the acknowledgement rate measured by RabbitMQ, if the management API returned it recently. Otherwise it
is a lower bound from this process's counts: tasks accepted minus growth of the queue. (Messages that other gateways and
retries added are not counted, so Retry-After is too long rather than too short; once every gateway rejects, the estimate
is exact.)
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Sequence

from dispatch.gateway.http.problems import Problem

FRESH = 5.0  #: seconds for which a reading is valid
WINDOW = 15.0  #: seconds of readings used for the drain rate
RATE_FRESH = 15.0  #: seconds for which a rate from RabbitMQ is valid; it measures every five
SHORTEST, LONGEST = 1, 300  #: seconds: bounds of Retry-After
UNMEASURED = 5  #: seconds: Retry-After while the drain rate is unknown


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The depth of the work queue at one time."""

    at: float  #: `time.monotonic` seconds
    ready: int  #: ready messages
    accepted: int = 0  #: tasks accepted by this process until then


def drain_rate(readings: Sequence[Reading]) -> float | None:
    """A lower bound of the messages a second that left the queue.

    Args:
        readings: oldest first.

    Returns:
        Accepted tasks minus growth, over the time between first and last; None when that is under a second.
    """
    if not readings or readings[-1].at - readings[0].at < 1:
        return None
    first, last = readings[0], readings[-1]
    left = (last.accepted - first.accepted) - (last.ready - first.ready)
    return max(0.0, left / (last.at - first.at))


def retry_after(excess: int, rate: float | None) -> int:
    """Seconds until the excess has drained.

    Args:
        excess: messages over the limit.
        rate: messages a second; None when it is not known.

    Returns:
        Whole seconds between `SHORTEST` and `LONGEST`.
    """
    if rate is None:
        return UNMEASURED
    excess = max(1, excess)
    if rate * LONGEST <= excess:
        return LONGEST
    return max(math.ceil(excess / rate), SHORTEST)


class Guard:
    """Decides whether a task is admitted. Thread-safe.

    Args:
        limit: ready messages above which it rejects.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._readings: collections.deque[Reading] = collections.deque()
        self._accepted = 0
        self._measured: tuple[float, float] | None = None  # `time.monotonic` seconds, messages a second

    @property
    def busy(self) -> bool:
        """Whether the queue is over half its limit, so that the drain rate may soon be needed."""
        return bool(self._readings) and self._readings[-1].ready * 2 > self._limit

    def accepted(self) -> None:
        """Count a task that was published."""
        with self._lock:
            self._accepted += 1

    def observe(self, ready: int, at: float | None = None) -> None:
        """Store a reading.

        Args:
            ready: ready messages.
            at: `time.monotonic` seconds; now by default.
        """
        at = time.monotonic() if at is None else at
        with self._lock:
            self._readings.append(Reading(at, ready, self._accepted))
            while self._readings[0].at < at - WINDOW:
                self._readings.popleft()

    def measured(self, rate: float | None, at: float | None = None) -> None:
        """Store the acknowledgement rate of RabbitMQ, messages a second; None when it is unavailable."""
        if rate is not None:
            self._measured = (time.monotonic() if at is None else at, rate)

    def full(self, now: float | None = None) -> bool:
        """Whether the latest reading is valid and over the limit."""
        reading = self._latest(now)
        return reading is not None and reading.ready > self._limit

    def refusal(self, now: float | None = None) -> Problem:
        """The 429 problem, for a reading over the limit or a rejection by the broker."""
        now = time.monotonic() if now is None else now
        reading = self._latest(now)
        wait = retry_after(reading.ready - self._limit, self._rate(now)) if reading else UNMEASURED
        return Problem("queue-depth-exceeded", retry_after=wait)

    def _latest(self, now: float | None) -> Reading | None:
        now = time.monotonic() if now is None else now
        with self._lock:
            reading = self._readings[-1] if self._readings else None
        return reading if reading is not None and now - reading.at <= FRESH else None

    def _rate(self, now: float) -> float | None:
        measured = self._measured
        if measured is not None and now - measured[0] <= RATE_FRESH:
            return measured[1]
        with self._lock:
            return drain_rate(list(self._readings))
