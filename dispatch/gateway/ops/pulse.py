"""What all viewers of a process see of the system as a whole: read once for all of them, and only while there are viewers."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from dispatch.background import Background
from dispatch.broker.queue_stats import QueueView
from dispatch.gateway.ops.frame import Frame, Part
from dispatch.protocol.pauses import Pause
from dispatch.store.task_counts import TaskCounts
from dispatch.store.workers import WorkerInfo

#: Seconds between two readings: RabbitMQ measures as often.
INTERVAL = 5.0

#: Seconds after the last look at a reading until no more are taken.
IDLE = 15.0

#: Seconds after which a reading is too old to begin a page with.
OLD = 15.0

#: Seconds that a page waits for its first reading; where it takes longer, the page comes without, and gets it when it is there.
PATIENCE = 0.15


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The system at one time."""

    number: int  #: readings before it, and itself
    at: float  #: epoch seconds
    queues: Part[Sequence[QueueView]]
    workers: Part[Sequence[WorkerInfo]]
    counts: Part[TaskCounts]  #: of all principals' tasks
    ages: Part[Mapping[str, float]]  #: seconds for which the oldest message of a queue waits
    pauses: Part[Sequence[Pause]]  #: those in force
    recent: Part[Mapping[str, int]]  #: the figures of the last five minutes
    failures: Mapping[str, str | None]  #: of the readiness checks


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """What a reading is read from."""

    queues: Callable[[], Sequence[QueueView]]
    workers: Callable[[], Sequence[WorkerInfo]]
    counts: Callable[[], TaskCounts]
    ages: Callable[[], Mapping[str, float]]
    pauses: Callable[[], Sequence[Pause]]
    recent: Callable[[], Mapping[str, int]]
    failures: Callable[[], Mapping[str, str | None]]


class Pulse(Background):
    """Takes readings while they are wanted; starts with the first one that is.

    Args:
        sources: what to read.
        frame: knows what to show of a source that fails.
    """

    def __init__(self, sources: Sources, frame: Frame) -> None:
        super().__init__("console-pulse", interval=INTERVAL)
        self._sources, self._frame = sources, frame
        self._changed = threading.Condition()
        self._reading: Reading | None = None
        self._wanted = 0.0  # `time.monotonic` seconds
        self._started = False

    def latest(self) -> Reading | None:
        """A recent reading; None where one takes longer than a page can wait."""
        reading = self._want()
        if reading is None or time.time() - reading.at > OLD:
            reading = self.follow(reading.number if reading else 0, PATIENCE)
        return reading if reading is not None and time.time() - reading.at <= OLD else None

    def follow(self, number: int, seconds: float) -> Reading | None:
        """Wait for a reading.

        Args:
            number: of the one that is known; 0 for none.
            seconds: to wait at most.

        Returns:
            The latest one, known or not.
        """
        self._want()
        with self._changed:
            self._changed.wait_for(lambda: self._reading is not None and self._reading.number != number, seconds)
            return self._reading

    def step(self) -> float | None:
        """Take a reading, or rest until there is a viewer."""
        if time.monotonic() - self._wanted > IDLE:
            return 3_600.0
        sources, part, before = self._sources, self._frame.part, self._reading
        reading = Reading(
            before.number + 1 if before else 1,
            time.time(),
            part(sources.queues),
            part(sources.workers),
            part(sources.counts),
            part(sources.ages),
            part(sources.pauses),
            part(sources.recent),
            sources.failures(),
        )
        with self._changed:
            self._reading = reading
            self._changed.notify_all()
        return None

    def _want(self) -> Reading | None:
        with self._changed:
            rested = time.monotonic() - self._wanted > IDLE
            self._wanted = time.monotonic()
            if not self._started:
                self._started = True
                self.start()
            elif rested:
                self.wake()
            return self._reading
