"""The prefork pool: Celery's processes, given jobs by us.

Celery gives a job to a process when its pipe is writable, gets a report that the job has begun, and sets a timer for each. Here
the main process chooses the process, so it knows what runs in it: the first job that was given and not reported. Short jobs
come several in one write (`dispatch.worker.pace`); those that have not begun behind one that takes long after all are
taken back (`dispatch.worker.child`) and start elsewhere.

Crash windows: a process that dies with several jobs costs the one that it had begun, by the permits that it took; the others
are given back (`Starter.give_back`). What it reported before is read first.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from billiard.pool import READY, RUN, ApplyResult
from celery.concurrency import prefork

from dispatch.telemetry import logger
from dispatch.worker.child import DROPPED, Worker, framed
from dispatch.worker.outcomes import info_of
from dispatch.worker.pace import AHEAD
from dispatch.worker.patches.pool import MendedPool, ResultHandler

log = logger(__name__)

#: Jobs that a process may have at a time.
MOST = 16

#: Seconds that a job may take until those behind it are taken back, and between two looks.
PATIENCE = 0.02


class Job(ApplyResult):
    """A delivery in a process. billiard reads and calls what has an underscore.

    Args:
        pool: whose process it is.
        child: the process.
        request: the delivery.
    """

    def __init__(
        self, pool: Pool, child: PoolProcess, request: Any
    ) -> None:  # not billiard's own, which makes a threading.Event
        task = request.task
        self.pool, self.child, self.request = pool, child, request
        self._job, self._cache = pool.next_number(), pool._cache  # noqa: SLF001
        self.correlation_id = request.id
        self._timeout = task.time_limit or pool.timeout
        self._soft_timeout = task.soft_time_limit or pool.soft_timeout
        self._lost_worker_timeout = pool.lost_worker_timeout
        self._done = self._accepted = self._cancelled = False
        self._worker_pid: int | None = None
        self._time_accepted: float | None = None
        self._terminated: int | None = None
        self._write_to = self._scheduled_for = child.process
        self._cache[self._job] = self

    @property
    def message(self) -> tuple[int, Any]:
        """What its process reads."""
        return self._job, self.request.arguments

    def ready(self) -> bool:
        """Whether it has ended."""
        return self._done

    def discard(self) -> None:
        """It ends without an outcome: it was given back."""
        self._done = True
        super().discard()

    def begin(self) -> None:
        """It is the first in its process: it runs now."""
        self._accepted, self._time_accepted, self._worker_pid = True, time.monotonic(), self.child.process.pid
        self.child.since = self._time_accepted
        if self._soft_timeout:
            self.pool.on_timeout_set(self, self._soft_timeout, self._timeout)
        elif self._timeout:
            self.pool.limit(self.child, self._timeout)
        self.safe_apply_callback(self.request.on_accepted, self._worker_pid, self._time_accepted)

    def handle_timeout(self, soft: bool = False) -> None:
        """Billiard has a limit to report."""
        limit = self._soft_timeout if soft else self._timeout
        self.safe_apply_callback(self.request.on_timeout, soft=soft, timeout=limit)

    def _set(self, _: Any, outcome: tuple[bool, Any]) -> None:
        self._done = True
        if self._soft_timeout:
            self.pool.on_timeout_cancel(self)
        self._cache.pop(self._job, None)
        self.child.ended(self)
        succeeded, value = outcome
        self.safe_apply_callback(self.request.on_success if succeeded else self.request.on_failure, value)


class PoolProcess:
    """A process of the pool, and the jobs that it has. For the event loop's thread.

    Args:
        process: billiard's.
    """

    def __init__(self, process: Any) -> None:
        self.process = process
        self.jobs: collections.deque[Job] = collections.deque()  #: given and not reported, in order: the first one runs
        self.reserved = 0  #: jobs to come
        self.load = 0.0  #: seconds that all of these take, as far as is known
        self.given = self.reported = 0
        self.owed = 0  #: jobs that were taken back and that it has not found so yet
        self.gone = False  #: it is about to end: it gets no more jobs
        self.since = 0.0  #: when its first job began
        self.unsent = memoryview(b"")  #: what its pipe had no room for
        self.timer: Any = None  #: of the time limit
        self.timer_at = 0.0

    def room(self, seconds: float, most: int) -> bool:
        """Whether one more job could start now."""
        if self.gone or self.owed or self.unsent or getattr(self.process, "_controlled_termination", False):
            return False
        count = len(self.jobs) + self.reserved
        return not count or (count < most and self.load + seconds <= AHEAD)

    def ended(self, job: Job) -> None:
        """A job has ended: the next one begins."""
        self.reported += 1
        with contextlib.suppress(ValueError):
            self.jobs.remove(job)
        self.load = self.load - job.request.seconds if self.jobs or self.reserved else 0.0
        if self.jobs and not self.gone and not self.jobs[0]._accepted:  # noqa: SLF001
            self.jobs[0].begin()

    def take_back(self) -> list[Job]:
        """The jobs that have not begun."""
        count = 0
        while self.process.permits.acquire(False):
            count += 1
        self.given -= count
        self.owed += count
        taken = [self.jobs.pop() for _ in range(min(count, len(self.jobs)))]
        return taken[::-1]

    @property
    def runs(self) -> bool:
        """Whether it has begun a job that it has not reported."""
        waiting: int = self.process.permits._semlock._get_value()  # noqa: SLF001 - the public one is missing in billiard
        return self.given - waiting > self.reported


class Pool(MendedPool):
    """The pool of the event loop."""

    Worker = Worker
    ResultHandler = ResultHandler

    def __init__(self, *args: Any, **options: Any) -> None:
        self._children: dict[int, PoolProcess] = {}  # by pid
        self._numbers = iter(range(1, 2**62))
        self._hub: Any = None
        self.on_process_down: Any = None
        self._looking = False
        self.give_back: Callable[[Sequence[Any]], None] = lambda _: None  #: gets what could not start
        super().__init__(*args, **options)
        handlers = self._result_handler.state_handlers
        handlers[READY], handlers[DROPPED] = self._ready, self._dropped
        # A process that ends after some jobs, or for its memory, would leave behind those that it has.
        self._most = 1 if self._maxtasksperchild or self._max_memory_per_child else MOST

    def next_number(self) -> int:
        """The number of a job."""
        return next(self._numbers)

    # --- places, see `dispatch.worker.starter` ---------------------------------------------------------
    def take(self, seconds: float) -> PoolProcess | None:
        """Reserve room in the process that has the least to do."""
        if self._state != RUN:
            return None
        found: PoolProcess | None = None
        for child in self._children.values():
            if (found is None or child.load < found.load) and child.room(seconds, self._most):
                found = child
        if found is not None:
            found.reserved += 1
            found.load += seconds
        return found

    def leave(self, child: PoolProcess, seconds: float) -> None:
        """Give a reservation back."""
        child.reserved -= 1
        child.load = child.load - seconds if child.jobs or child.reserved else 0.0

    def start(self, child: PoolProcess, requests: Sequence[Any]) -> None:
        """Give deliveries to a process."""
        child.reserved -= len(requests)
        if child.gone or self._children.get(child.process.pid) is not child:
            self.give_back(requests)
            return
        jobs = [Job(self, child, request) for request in requests]
        idle = not child.jobs
        child.jobs.extend(jobs)
        child.given += len(jobs)
        if idle:
            jobs[0].begin()
        for _ in jobs:
            child.process.permits.release()
        self._write(child, framed(pickle.dumps([job.message for job in jobs], pickle.HIGHEST_PROTOCOL)))
        self.write_stats[child.process.index] += len(jobs)
        if len(child.jobs) > 1:
            self._look_later()

    def recall(self) -> None:
        """Give back what has not begun in any process."""
        for child in self._children.values():
            self._take_back(child)

    # --- what processes report ----------------------------------------------------------------------------
    def _ready(self, number: int, _: Any, outcome: tuple[bool, Any], __: Any) -> None:
        job = self._cache.get(number)
        if job is not None and not job.ready():
            self.restart_state.R = 0
            job._set(None, outcome)  # noqa: SLF001

    def _dropped(self, pid: int, count: int) -> None:
        if child := self._children.get(pid):
            child.owed -= count

    def read(self, child: PoolProcess) -> bool:
        """Handle what a process has reported by now; False where nothing more can come."""
        fd = child.process.outqR_fd
        return self._fileno_to_outq.get(fd) is child.process and self._result_handler.take(fd)

    def wait(self, seconds: float, *others: int) -> None:
        """Wait for a report, or until another descriptor is readable, and handle what processes have reported."""
        by_fd = {child.process.outqR_fd: child for child in self._children.values()}
        with contextlib.suppress(OSError, ValueError):
            readable, _, _ = select.select([*by_fd, *others], [], [], seconds)
            for fd in readable:
                if fd in by_fd:
                    self.read(by_fd[fd])

    # --- jobs that wait behind one that takes long ----------------------------------------------------------
    def _look_later(self) -> None:
        if not self._looking and self._hub is not None:
            self._looking = True
            self._hub.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        self._looking = False
        late = time.monotonic() - PATIENCE
        for child in list(self._children.values()):
            if len(child.jobs) > 1 and child.since <= late:
                self.read(child)
            if len(child.jobs) > 1 and child.since <= late:
                self._take_back(child)
        if any(len(child.jobs) > 1 for child in self._children.values()):
            self._look_later()

    def _take_back(self, child: PoolProcess) -> None:
        if taken := child.take_back():
            for job in taken:
                job.discard()
            child.load = sum(job.request.seconds for job in child.jobs)
            self.give_back([job.request for job in taken])

    # --- writing ----------------------------------------------------------------------------------------------
    def _write(self, child: PoolProcess, data: bytes) -> None:
        child.unsent = memoryview(data)
        self._write_rest(child)
        if child.unsent and self._hub is not None:
            self._hub.add_writer(child.process.inqW_fd, self._write_rest, child)

    def _write_rest(self, child: PoolProcess) -> None:
        fd = child.process.inqW_fd
        try:
            child.unsent = child.unsent[os.write(fd, child.unsent) :]
        except BlockingIOError:
            return
        except OSError:  # it has ended: what it had is given back when that is noticed
            child.unsent = memoryview(b"")
        if not child.unsent and self._hub is not None and fd in self._hub.writers:
            self._hub.remove_writer(fd)

    # --- time limits --------------------------------------------------------------------------------------------
    def limit(self, child: PoolProcess, seconds: float) -> None:
        """Have a process looked at when its first job's limit may be over; one timer serves many jobs."""
        at = time.monotonic() + seconds
        if self._hub is not None and (child.timer is None or at < child.timer_at):
            if child.timer is not None:
                child.timer.cancel()
            child.timer, child.timer_at = self._hub.call_later(seconds, self._on_limit, child), at

    def _on_limit(self, child: PoolProcess) -> None:
        child.timer = None
        self.read(child)
        job = child.jobs[0] if child.jobs else None
        if job is None or job._soft_timeout or not job._timeout:  # noqa: SLF001
            return
        left = job._time_accepted + job._timeout - time.monotonic()  # noqa: SLF001
        if left > 0:
            self.limit(child, left)
        else:
            self._expire(job)

    def _on_soft_timeout(self, number: int, soft: float, hard: float, hub: Any) -> None:
        if job := self._cache.get(number):
            self.read(job.child)  # the signal must not hit the job that follows it
        super()._on_soft_timeout(number, soft, hard, hub)

    def _on_hard_timeout(self, number: int) -> None:
        job = self._cache.get(number)
        if job is not None:
            self._expire(job)
        self._discard_tref(number)

    def _expire(self, job: Job) -> None:
        self._end(job.child)
        self.on_hard_timeout(job)

    def end(self, request: Any, error: Exception) -> bool:
        """Kill the process that runs a delivery, as at its hard limit."""
        for child in list(self._children.values()):
            if child.jobs and child.jobs[0].request is request:
                self.read(child)  # it may have ended
                job = child.jobs[0] if child.jobs else None
                if job is None or job.request is not request:
                    return False
                self._end(child)
                job._set(None, (False, info_of(error)))  # noqa: SLF001
                self._timeout_handler._trywaitkill(child.process)  # noqa: SLF001
                return True
        return False

    def _end(self, child: PoolProcess) -> None:
        """A process is about to be ended for the job that it runs: the others are given back."""
        child.gone = True
        self._take_back(child)

    def terminate_job(self, pid: int, sig: Any = None) -> None:
        """End a process."""
        if child := self._children.get(pid):
            self._end(child)
        super().terminate_job(pid, sig)

    # --- processes that come and go -----------------------------------------------------------------------------
    def WorkerProcess(self, worker: Any) -> Any:  # noqa: N802 - billiard's
        """A process, with the semaphore that it shares."""
        worker.permits = self._ctx.Semaphore(0)
        process = super().WorkerProcess(worker)
        process.permits = worker.permits
        return process

    def register_with_event_loop(self, hub: Any) -> None:
        """Called after each (re)connect, which has reset the loop."""
        self._hub = hub
        self._looking = False
        super().register_with_event_loop(hub)
        for child in self._children.values():
            if child.unsent:
                hub.add_writer(child.process.inqW_fd, self._write_rest, child)

    def _create_write_handlers(self, hub: Any, **options: Any) -> None:
        super()._create_write_handlers(hub, **options)
        self.on_poll_start = _nothing  # a delivery is written when it is claimed
        self._put_back = _nothing

    def _create_process_handlers(self, hub: Any) -> None:
        super()._create_process_handlers(hub)
        down: Callable[[Any], None] = self.on_process_down

        def on_process_down(process: Any) -> None:
            down(process)
            self._children.pop(process.pid, None)

        self.on_process_down = on_process_down

    def on_process_alive(self, pid: int) -> None:
        """A process has started."""
        super().on_process_alive(pid)
        process = next((each for each in self._pool if each.pid == pid), None)
        if process is not None:
            self._children[pid] = PoolProcess(process)

    def _process_cleanup_queues(self, process: Any) -> None:
        # Its pipes may hold jobs that were taken back: the next process gets new ones.
        process.dead = True
        with contextlib.suppress(ValueError):
            queues = self._find_worker_queues(process)
            if self.destroy_queues(queues, process):
                self._queues[self.create_process_queues()] = None

    def on_job_process_down(self, job: Job, _pid: int) -> None:
        """A job's process has ended."""
        child = job.child
        child.gone = True
        if not child.runs:  # neither had this one begun, nor any that follows
            self._given_back(job)

    def _worker_active(self, process: Any) -> bool:
        child = self._children.get(process.pid)
        return bool(child and (child.jobs or child.reserved))

    def process_flush_queues(self, process: Any) -> None:
        """Handle all that a process has reported, before it is missed; also between two connections, when no loop reads its pipe."""
        child = self._children.get(process.pid)
        fd = process.outqR_fd
        while child is not None and self._fileno_to_outq.get(fd) is process and select.select([fd], [], [], 0)[0]:
            if not self.read(child):
                return

    def _given_back(self, job: Job) -> None:
        job.discard()
        with contextlib.suppress(ValueError):
            job.child.jobs.remove(job)
        self.give_back([job.request])


def _nothing(*_: Any) -> None:
    """Celery's pool does it otherwise."""


class TaskPool(prefork.TaskPool):
    """The value of ``worker_pool``."""

    Pool = Pool
    kills = True  #: whether it ends a run, see `dispatch.worker.request.DeliveryRequest.cancel`

    @property
    def num_processes(self) -> int:
        """How many there are to be; none once it has stopped, while other threads still ask."""
        return int(self._pool._processes) if self._pool is not None else 0  # noqa: SLF001

    @property
    def places(self) -> Any:
        """Where handlers run; a `dispatch.worker.starter.Places`."""
        return self._pool
