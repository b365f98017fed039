"""The 429 guard: refuse work that the queue has no room for, and say honestly when to come back.

The request path only looks at the latest `Reading`; `dispatch.gateway.admission.depth` takes it once a second. A
stale one lets requests in: with the broker away, the publish itself gives the verdict.

How fast the queue drains is the acknowledgement rate that RabbitMQ measured, when the management API told
it lately. Without that it is a lower bound from this process's own view: what it accepted, less what the
queue grew by. (What other gateways and returning retries added goes unseen, so the client waits rather
longer than needed; once the guard is shut everywhere the estimate is exact.)
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Sequence

from dispatch.gateway.http.problems import Problem

FRESH = 5.0  #: seconds a reading counts
WINDOW = 15.0  #: seconds of readings that the drain rate is taken from
RATE_FRESH = 15.0  #: seconds a rate measured by RabbitMQ counts; it measures every five
SHORTEST, LONGEST = 1, 300  #: seconds, bounds of Retry-After
UNMEASURED = 5  #: seconds to wait while the drain rate is unknown


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The work queue at one moment."""

    at: float  #: `time.monotonic` seconds
    ready: int  #: messages that wait
    accepted: int = 0  #: tasks that this process had accepted by then


def drain_rate(readings: Sequence[Reading]) -> float | None:
    """Messages a second that left the queue, at least.

    Args:
        readings: oldest first.

    Returns:
        Accepted tasks less growth, over the time between the first and the last; None when that is under a second.
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
    """Decides whether one more task fits. Thread-safe.

    Args:
        limit: ready messages above which it refuses.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._readings: collections.deque[Reading] = collections.deque()
        self._accepted = 0
        self._measured: tuple[float, float] | None = None  # when, messages a second

    @property
    def busy(self) -> bool:
        """Whether the queue is so deep that the drain rate may soon be asked for."""
        return bool(self._readings) and self._readings[-1].ready * 2 > self._limit

    def accepted(self) -> None:
        """Count a task that was published."""
        with self._lock:
            self._accepted += 1

    def observe(self, ready: int, at: float | None = None) -> None:
        """Take a reading in.

        Args:
            ready: messages that wait.
            at: `time.monotonic` seconds; now by default.
        """
        at = time.monotonic() if at is None else at
        with self._lock:
            self._readings.append(Reading(at, ready, self._accepted))
            while self._readings[0].at < at - WINDOW:
                self._readings.popleft()

    def measured(self, rate: float | None, at: float | None = None) -> None:
        """Take in how many messages a second RabbitMQ saw acknowledged; None when it could not be asked."""
        if rate is not None:
            self._measured = (time.monotonic() if at is None else at, rate)

    def full(self, now: float | None = None) -> bool:
        """Whether the latest reading is fresh and over the limit."""
        reading = self._latest(now)
        return reading is not None and reading.ready > self._limit

    def refusal(self, now: float | None = None) -> Problem:
        """The answer while the queue is full: from our reading, or because the broker refused."""
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
