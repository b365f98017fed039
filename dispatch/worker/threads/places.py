"""Threads as `dispatch.worker.starter.Places`: some forty handlers that wait for others, in one process.

Everything that a delivery leads to happens on the event loop's thread; a pool's thread runs it and nothing else. What the loop
gives stands in one line, from which every thread that is awake takes the next; so as many are woken as the work needs
(`dispatch.worker.pace`), and more when something has been left there for long. What ended is put into another line, and one wake-up
of the loop takes all that this has then.

A thread cannot be killed. So a run beyond its hard limit is *fenced*: its attempt is counted as failed (`time-limit`) and handed
over, which takes the record's fence away, so that Redis refuses whatever it reports later; its slot gets a new thread. It is a
*runaway* from then on. A worker with too many of them finishes what else it has, and ends: they end with the process.

Crash windows: those of `dispatch.store.claims`, for as many runs at once as the pool has; and

- the run ends while its fence falls: one lock decides. Ended first, its report counts; fenced first, none does;
- its success is being recorded while the fence falls: the decision of the time limit is refused (the record has ended), and the
  parked copy finds DONE.
"""

from __future__ import annotations

import collections
import functools
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dispatch.telemetry import logger, metrics
from dispatch.worker.loop import LoopBridge
from dispatch.worker.pace import AHEAD
from dispatch.worker.threads.job import ThreadJob

log = logger(__name__)

#: Seconds between two looks at the limits of what runs; so much later may one take effect.
LOOK = 0.25

#: Seconds that a delivery may stand in the line behind one that takes longer than its type did before.
PATIENCE = 0.02

#: Seconds between two looks at the end of what runs, during a shutdown.
_END_LOOK = 0.02

#: The share of its slots that a worker has runaways beside: each holds memory, a connection, and perhaps the interpreter's lock.
RUNAWAY_SHARE = 4


def most_runaways(slots: int) -> int:
    """Runaways that a worker goes on with.

    Args:
        slots: its threads.
    """
    return max(1, slots // RUNAWAY_SHARE)


def threads_for(seconds: Sequence[float]) -> int:
    """The threads that deliveries need to begin soon.

    Args:
        seconds: that each will take, as far as is known.
    """
    count, load = 0, AHEAD
    for each in seconds:
        if load + each > AHEAD:
            count, load = count + 1, 0.0
        load += each
    return count


class ThreadPlaces:
    """The threads, what they run, and what stands in the line. For the event loop's thread.

    Args:
        size: threads.
        loop: takes what has ended.
        soft: seconds of the soft limit of runs whose type has none; None for none.
        hard: the same of the hard limit.
        too_many: called with the reason when there are too many runaways.
    """

    def __init__(
        self, size: int, loop: LoopBridge, *, soft: float | None, hard: float | None, too_many: Callable[[str], None]
    ) -> None:
        self._size = size
        self._loop = loop
        self._soft, self._hard = soft, hard
        self._too_many = too_many
        self.give_back: Callable[[Sequence[Any]], None] = lambda _: None  #: gets what could not start
        self._reserved = 0  #: deliveries to come
        self._held: set[ThreadJob] = set()  #: those that run, or stand in the line
        self._runaways: set[ThreadJob] = set()
        self._line: collections.deque[ThreadJob] = collections.deque()
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()  #: each wakes one thread
        self._ended: collections.deque[tuple[ThreadJob, bool]] = collections.deque()
        self._announced = False  #: the loop will take what has ended
        self._hub: Any = None
        self._watching = False  #: a timer will look at the limits
        self._spreading = False  #: a timer will look at the line
        self._numbers = 0
        for _ in range(size):
            self._add_thread()

    @property
    def busy(self) -> int:
        """Deliveries that run, or are about to."""
        return len(self._held)

    @property
    def runaways(self) -> int:
        """Runs beyond their hard limit."""
        return len(self._runaways)

    def register(self, hub: Any) -> None:
        """Attach to a hub; called anew after each reconnect, which may have dropped the timers."""
        self._hub, self._watching, self._spreading = hub, False, False
        self._watch()
        if self._line:
            self._spread_later()

    # --- places, see `dispatch.worker.starter` ---------------------------------------------------------
    def take(self, seconds: float) -> ThreadPlaces | None:
        """Reserve a thread."""
        del seconds
        if len(self._held) + self._reserved >= self._size:
            return None
        self._reserved += 1
        return self

    def leave(self, place: ThreadPlaces, seconds: float) -> None:
        """Give a reservation back."""
        del place, seconds
        self._reserved -= 1

    def start(self, place: ThreadPlaces, requests: Sequence[Any]) -> None:
        """Run deliveries for which threads are reserved."""
        del place
        self._reserved -= len(requests)
        now = time.monotonic()
        for request in requests:
            job = self._job(request)
            job.accept(now)
            self._held.add(job)
            self._line.append(job)
        called = threads_for([request.seconds for request in requests])
        self._call_threads(called)
        if called < len(requests):
            self._spread_later()
        self._watch()

    def recall(self) -> None:
        """Give back what no thread has begun."""
        recalled = []
        while self._line:
            try:
                recalled.append(self._line.popleft())
            except IndexError:  # a thread was faster
                break
        self._held.difference_update(recalled)
        self.give_back([job.request for job in recalled])

    def end(self, request: Any, error: Exception) -> bool:
        """Fence a run, as at its hard limit."""
        job = next((job for job in self._held if job.request is request and job.begun), None)
        if job is None or not job.fence():
            return False
        self._abandon(job, functools.partial(job.fail, error))
        self._check_runaways("were cancelled or run beyond their time limits")
        return True

    def wait(self, seconds: float, *others: int) -> None:
        """Wait until a descriptor is readable; in a shutdown, in place of the event loop."""
        select.select(others, [], [], seconds)
        self._enforce_limits()

    # --- the end of the worker -------------------------------------------------------------------------
    def go_on(self) -> None:
        """In place of the event loop, which has ended: take what has ended, and keep limits and heartbeats."""
        self._loop.run()
        self._enforce_limits()
        if self._hub is not None:
            self._hub.fire_timers()
        time.sleep(_END_LOOK)

    def give_up(self) -> None:
        """Give up what runs: the leases are dropped, and with them the fences of runs that go on until the process ends."""
        self.recall()
        self._loop.run()
        for job in tuple(self._held):
            if job.fence():
                self._held.discard(job)
                self._runaways.add(job)
                _pass_on(job.give_up)
        self._loop.run()

    # --- what runs -------------------------------------------------------------------------------------
    def _job(self, request: Any) -> ThreadJob:
        task = request.task
        return ThreadJob(request, soft=task.soft_time_limit or self._soft, hard=task.time_limit or self._hard)

    def _spread_later(self) -> None:
        if not self._spreading and self._hub is not None:
            self._spreading = True
            self._hub.call_later(PATIENCE, self._spread)

    def _spread(self) -> None:
        """What stands in the line is behind a run that takes long after all."""
        self._spreading = False
        self._call_threads(len(self._line))

    def _watch(self) -> None:
        if self._held and not self._watching and self._hub is not None:
            self._watching = True
            self._hub.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._watching = False
        self._enforce_limits()
        self._watch()

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        overdue = [job for job in self._held if job.overdue(now)]
        for job in filter(ThreadJob.fence, overdue):
            self._abandon(job, job.time_out)
        if overdue:
            self._check_runaways("run beyond their time limits")

    def _abandon(self, job: ThreadJob, pass_on: Callable[[], None]) -> None:
        """A run has been fenced: it is a runaway."""
        self._held.discard(job)
        self._runaways.add(job)
        metrics.RUNAWAYS.set(self.runaways)
        self._replace_thread()
        _pass_on(pass_on)

    def _check_runaways(self, why: str) -> None:
        if self.runaways > most_runaways(self._size):
            self._too_many(f"{self.runaways} threads {why}")

    def _take_ended(self) -> None:
        """Pass on everything that has ended."""
        self._announced = False  # first: what ends from here on is announced anew
        while self._ended:
            job, in_time = self._ended.popleft()
            self._held.discard(job)
            if in_time:
                _pass_on(job.deliver)
            else:
                self._runaways.discard(job)
                metrics.RUNAWAYS.set(self.runaways)
                log.warning("a run beyond its time limit has ended", runaways=self.runaways)

    # --- threads ---------------------------------------------------------------------------------------
    def _add_thread(self) -> None:
        self._numbers += 1
        threading.Thread(target=self._work, name=f"run-{self._numbers}", daemon=True).start()

    def _replace_thread(self) -> None:
        """A place has lost its thread to a runaway."""
        try:
            self._add_thread()
        except RuntimeError as exc:  # the machine has no more
            self._size -= 1
            self._too_many(f"a thread could not be replaced: {exc}")

    def _call_threads(self, count: int) -> None:
        for _ in range(count):
            self._calls.put(None)

    def _work(self) -> None:
        in_time = True
        while in_time:
            self._calls.get()
            in_time = self._run_line()

    def _run_line(self) -> bool:
        """Run what stands in the line, until nothing does; whether the thread still has a place."""
        while True:
            try:
                job = self._line.popleft()
            except IndexError:
                return True
            in_time = job.run()
            self._ended.append((job, in_time))
            if not self._announced:
                self._announced = True
                self._loop.call(self._take_ended)
            if not in_time:
                return False


def _pass_on(end: Callable[[], None]) -> None:
    """One whose end can't be handled costs no other its own."""
    try:
        end()
    except Exception:
        log.exception("the end of a run could not be handled")
