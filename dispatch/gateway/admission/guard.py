"""The 429 guard: rejects tasks while the work queue is over its depth limit, with an estimated Retry-After.

The request path only reads the latest `DepthReading`; `dispatch.gateway.admission.depth` takes one a second. With a stale
reading the guard admits requests: while the broker is unreachable, the publish itself fails.

The drain rate is what this process saw leave the queue: tasks accepted minus growth of the queue, over the time in which there
was something to leave. While the queue is over its limit every gateway rejects, so that is exact (but for what retries add);
before, others add tasks, so it is a lower bound, and the acknowledgement rate of RabbitMQ comes first. A rate of 0 is none:
RabbitMQ's may be of the idle time before a burst. Without any, Retry-After is as long as the queue has not been seen to drain.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Mapping, Sequence

from dispatch.gateway.http.problems import Problem
from dispatch.protocol import names
from dispatch.protocol.lanes import Lanes

FRESH = 5.0  #: seconds for which a reading is valid
WINDOW = 15.0  #: seconds of readings used for the drain rate
RATE_FRESH = 15.0  #: seconds for which a rate from RabbitMQ is valid; it measures every five
SHORTEST, LONGEST = 1, 300  #: seconds: bounds of Retry-After
UNMEASURED = 5  #: seconds: Retry-After while the drain rate is unknown, at first


@dataclasses.dataclass(frozen=True, slots=True)
class DepthReading:
    """The depth of the work queue at one time."""

    at: float  #: `time.monotonic` seconds
    ready: int  #: ready messages
    accepted: int = 0  #: tasks accepted by this process until then


def drain_rate(readings: Sequence[DepthReading], over: int = 0) -> float | None:
    """A lower bound of the messages a second that left the queue while it was deep.

    Args:
        readings: oldest first.
        over: ready messages; only what began with more is counted, since a queue that is empty shows no rate.

    Returns:
        Accepted tasks minus growth, over their time; None when that is under a second.
    """
    deep = [(first, then) for first, then in itertools.pairwise(readings) if first.ready > over]
    seconds = sum(then.at - first.at for first, then in deep)
    if seconds < 1:
        return None
    return max(0.0, sum(_left(first, then) for first, then in deep) / seconds)


def _left(first: DepthReading, then: DepthReading) -> int:
    """How many messages left the queue between two readings, at least; negative when others filled it."""
    return (then.accepted - first.accepted) - (then.ready - first.ready)


def retry_after(excess: int, rate: float | None, stalled: float = 0.0) -> int:
    """Seconds until the excess has drained.

    Args:
        excess: messages over the limit.
        rate: messages a second; 0 and None when it is not known.
        stalled: seconds for which the queue has not been seen to drain.

    Returns:
        Whole seconds between `SHORTEST` and `LONGEST`.
    """
    if not rate:
        return min(max(math.ceil(stalled), UNMEASURED), LONGEST)
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
        self._readings: collections.deque[DepthReading] = collections.deque()
        self._accepted = 0
        self._drained_at = 0.0  # `time.monotonic` seconds: something left the queue, or it was not over the limit
        self._measured: tuple[float, float] | None = None  # `time.monotonic` seconds, messages a second

    def of(self, task_type: str) -> Guard:
        """The guard of a task type's lane."""
        del task_type
        return self

    def of_queue(self, queue: str) -> Guard:
        """The guard of a work queue."""
        del queue
        return self

    def refuses(self) -> bool:
        """Whether any lane is full."""
        return self.full()

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
            reading = DepthReading(at, ready, self._accepted)
            if ready <= self._limit or not self._readings or _left(self._readings[-1], reading) > 0:
                self._drained_at = at
            self._readings.append(reading)
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
        wait = retry_after(reading.ready - self._limit, *self._drain(now)) if reading else UNMEASURED
        return Problem("queue-depth-exceeded", retry_after=wait)

    def _latest(self, now: float | None) -> DepthReading | None:
        now = time.monotonic() if now is None else now
        with self._lock:
            reading = self._readings[-1] if self._readings else None
        return reading if reading is not None and now - reading.at <= FRESH else None

    def _drain(self, now: float) -> tuple[float | None, float]:
        """Messages a second that leave the queue, if known; seconds since it was seen to drain."""
        measured_at, measured = self._measured or (now, 0.0)
        with self._lock:
            readings, stalled = list(self._readings), now - self._drained_at
        fresh = measured if now - measured_at <= RATE_FRESH else 0.0
        return drain_rate(readings, over=self._limit) or fresh or drain_rate(readings), stalled


class LaneGuards(Guard):
    """A guard for each lane: a flood of one refuses no other. This one is the default lane's. Thread-safe.

    Args:
        limits: ready messages above which each rejects, by the lane's queue.
        lanes: the others.
    """

    def __init__(self, limits: Mapping[str, int], lanes: Lanes) -> None:
        super().__init__(limits[names.WORK_QUEUE])
        self._lanes = lanes
        self._others = {lane.name: Guard(limits[lane.queue]) for lane in lanes}

    def of(self, task_type: str) -> Guard:
        """As in `Guard`."""
        return self._others.get(self._lanes.lane_of(task_type), self)

    def of_queue(self, queue: str) -> Guard:
        """As in `Guard`."""
        return self._others.get(self._lanes.lane_with(queue) or "", self)

    def refuses(self) -> bool:
        """As in `Guard`."""
        return self.full() or any(guard.full() for guard in self._others.values())
