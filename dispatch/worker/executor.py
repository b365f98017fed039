"""Threads that carry settlements out, beside the worker's event loop, and tell the loop when one is finished."""

from __future__ import annotations

import collections
import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from dispatch.errors import DispatchError
from dispatch.telemetry import logger

log = logger("dispatch.crew")

#: Seconds between two tries of a settlement.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class RetryingExecutor:
    """Runs jobs on a few threads; a job that meets an outage is tried again later, for ever.

    A job holds its message unacked meanwhile, so there are never more of them than the prefetch.

    Args:
        size: threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ready = threading.Condition()
        self._heap: list[tuple[float, int, float, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        self._threads = [
            threading.Thread(target=self._work, name=f"crew-{number}", daemon=True) for number in range(self._size)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], None], *, after: float = 0.0, pause: float = FIRST_PAUSE) -> None:
        """Have a job done.

        Args:
            job: called until it returns without a `DispatchError`.
            after: seconds from now.
            pause: seconds before the next try.
        """
        with self._ready:
            heapq.heappush(self._heap, (time.monotonic() + after, next(self._order), pause, job))
            self._ready.notify()

    def stop(self) -> None:
        """Let the threads end; what isn't done stays unacked, and the broker delivers it again."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()

    def _next(self) -> tuple[float, Callable[[], None]] | None:
        with self._ready:
            while not self._stopping:
                now = time.monotonic()
                if self._heap and self._heap[0][0] <= now:
                    _, _, pause, job = heapq.heappop(self._heap)
                    return pause, job
                self._ready.wait(self._heap[0][0] - now if self._heap else None)
        return None

    def _work(self) -> None:
        while (item := self._next()) is not None:
            pause, job = item
            try:
                job()
            except DispatchError as exc:
                log.warning("settlement waits", reason=f"{type(exc).__name__}: {exc}", seconds=pause)
                self.submit(job, after=pause, pause=min(pause * 2, LONGEST_PAUSE))
            except Exception:
                # Given up, its message would stay unacked and its lease be kept for as long as this worker lives.
                log.exception("settlement failed: it is tried again", seconds=LONGEST_PAUSE)
                self.submit(job, after=LONGEST_PAUSE, pause=LONGEST_PAUSE)


class LoopBridge:
    """Calls functions on the worker's event loop from other threads.

    `hub.call_soon` alone would wait for the next poll, up to a second when idle; a pipe wakes the loop at once.
    """

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def register(self, hub: Any) -> None:
        """Have a hub listen; called anew after each reconnect, which resets the hub."""
        hub.add_reader(self._reader, self._run)
        self._run()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the loop's thread, soon."""
        self._calls.append(function)
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full: the loop will wake

    def _run(self) -> None:
        try:
            while os.read(self._reader, 4_096):
                pass
        except BlockingIOError:
            pass
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:
                log.exception("a call on the event loop failed")
