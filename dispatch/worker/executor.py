"""Threads that do what blocks, beside the worker's event loop; a job that meets an outage is tried again."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from dispatch.errors import DispatchError
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds between two tries of a job.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class RetryingExecutor:
    """Runs jobs on a few threads; a job that raises is tried again later, for ever.

    A job holds its message unacked meanwhile, so there are never more jobs than the prefetch.

    Args:
        size: threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ready = threading.Condition()
        self._heap: list[tuple[float, int, float, Callable[[], None]]] = []
        self._order = itertools.count()
        self._running = 0
        self._stopping = False

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._size):
            threading.Thread(target=self._work, name=f"executor-{number}", daemon=True).start()

    def submit(self, job: Callable[[], None], *, after: float = 0.0, pause: float = FIRST_PAUSE) -> None:
        """Run a job.

        Args:
            job: called until it returns without an error.
            after: seconds from now.
            pause: seconds before the next try.
        """
        with self._ready:
            heapq.heappush(self._heap, (time.monotonic() + after, next(self._order), pause, job))
            self._ready.notify()

    @property
    def idle(self) -> bool:
        """Whether every job is done."""
        with self._ready:
            return not (self._heap or self._running)

    def stop(self) -> None:
        """Let the threads end; the messages of jobs that aren't done stay unacked, and the broker delivers them again."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()

    def _next(self) -> tuple[float, Callable[[], None]] | None:
        with self._ready:
            while not self._stopping:
                now = time.monotonic()
                if self._heap and self._heap[0][0] <= now:
                    _, _, pause, job = heapq.heappop(self._heap)
                    self._running += 1
                    return pause, job
                self._ready.wait(self._heap[0][0] - now if self._heap else None)
        return None

    def _work(self) -> None:
        while (item := self._next()) is not None:
            pause, job = item
            try:
                job()
            except DispatchError as exc:
                log.warning("hand-over waits", reason=f"{type(exc).__name__}: {exc}", seconds=pause)
                self.submit(job, after=pause, pause=min(pause * 2, LONGEST_PAUSE))
            except Exception:
                # Given up, its message would stay unacked and its lease be renewed for as long as this worker lives.
                log.exception("hand-over failed: it is tried again", seconds=LONGEST_PAUSE)
                self.submit(job, after=LONGEST_PAUSE, pause=LONGEST_PAUSE)
            finally:
                with self._ready:
                    self._running -= 1
