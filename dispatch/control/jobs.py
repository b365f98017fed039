"""Carries jobs out: in every worker, one of them at a time, task by task at each job's rate.

A worker that dies leaves its jobs as they are recorded after the last task; another one takes the turn when it lapses. What a
verb does to one task is that verb's own, with its crash windows.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from dispatch.background import Background
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, InDoubt, Nacked, NotSent, StoreError
from dispatch.protocol.audit import END, OK, START_JOB, AuditEntry, job_target
from dispatch.protocol.jobs import UNCOUNTED, BulkJob, JobState, JobVerb, canary_passed
from dispatch.protocol.record import Record
from dispatch.store.jobs import Jobs
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds that one job is carried out before the next one's turn.
SLICE = 1.0

#: Seconds between two looks at a canary.
CANARY_PAUSE = 1.0

#: These errors are the moment's: the task is tried again, and the next one would meet them, too.
_OF_THE_MOMENT = (StoreError, NotSent, Nacked, InDoubt)

#: Seconds to count the tasks of a job before it begins.
COUNTING = 5.0

#: Why a job was stopped whose first task has failed again.
CANARY_FAILED = "canary-failed"


class JobRunner(Background):
    """Carries jobs out.

    Args:
        jobs: where they are.
        tasks: reads canaries.
        verbs: does a verb to a task, by its id, for whom asked.
        changed: what a verb raises for a task that has changed since it was found.
        audit: takes the entry of a job's end; see `dispatch.store.audit.AuditLog.add`.
        interval: seconds between two looks for jobs.
    """

    def __init__(
        self,
        jobs: Jobs,
        tasks: TaskStore,
        verbs: Mapping[JobVerb, Callable[[str, str], object]],
        *,
        changed: tuple[type[Exception], ...],
        audit: Callable[[AuditEntry], object],
        interval: float,
    ) -> None:
        super().__init__("jobs", interval=interval)
        self._jobs = jobs
        self._tasks = tasks
        self._verbs = verbs
        self._changed = changed
        self._audit = audit
        self._token = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        self._pages: dict[str, tuple[collections.deque[Record], str | None]] = {}  # what is left of the page in hand
        self._next_at: dict[str, float] = {}  # of `time.monotonic`

    def step(self) -> float | None:
        """Carry each job out for a while.

        Raises:
            DispatchError: a server is away; the task is tried again.
        """
        running = [job for job in self._jobs.all() if job.running]
        if not running or not self._jobs.take_turn(self._token):
            self._pages.clear()
            return None
        return min(self._guarded(job) for job in reversed(running))

    def _guarded(self, job: BulkJob) -> float:
        """Carry a job out; one that can't be must not keep the others from their turn."""
        try:
            return self._carry_out(job if job.matched != UNCOUNTED else self._counted(job))
        except DispatchError:
            raise
        except Exception as exc:
            log.exception("job failed", job_id=job.id, verb=job.verb.value)
            self._end(dataclasses.replace(job, state=JobState.FAILED, reason=type(exc).__name__))
            return 0.0

    def _counted(self, job: BulkJob) -> BulkJob:
        """The job with the number of tasks that match now, for those who look how far it is."""
        matched, complete = self._jobs.count(job, COUNTING)
        counted = dataclasses.replace(job, matched=matched, matched_all=complete)
        self._jobs.write(counted)
        return counted

    def _carry_out(self, job: BulkJob) -> float:
        """Do what there is to do for a job now; seconds until there is more."""
        until = time.monotonic() + SLICE
        while not self.stopping and (now := time.monotonic()) < until:
            if (wait := self._next_at.get(job.id, 0.0) - now) > 0:
                return wait
            if (after := self._canary(job)) is None:
                return CANARY_PAUSE
            job = after
            job, record = self._next(job) if job.running and job.allowed > 0 else (job, None)
            if record is None:
                self._end(job)
                return 0.0
            job = self._act(job, record)
            if not self._jobs.write(job) or not self._jobs.take_turn(self._token):  # stopped, or another worker's
                self._forget(job)
                return 0.0
            reach("job.recorded")
        return 0.0

    def _next(self, job: BulkJob) -> tuple[BulkJob, Record | None]:
        """The next task of a job, which stays the next one until it was acted on; and the job at that place."""
        while True:
            if job.id not in self._pages:
                page = self._jobs.page(job)
                self._pages[job.id] = (collections.deque(page.items), page.next)
            items, following = self._pages[job.id]
            if items:
                return job, items[0]
            if following is None:
                return job, None
            del self._pages[job.id]
            job = dataclasses.replace(job, cursor=following)

    def _act(self, job: BulkJob, record: Record) -> BulkJob:
        if job.rate:
            self._next_at[job.id] = time.monotonic() + 1 / job.rate
        counted = self._done(job, record.task_id)
        items, _ = self._pages[job.id]
        items.popleft()
        first = {"canary_task": record.task_id} if job.canary and not job.canary_task and counted == "done" else {}
        changes: dict[str, Any] = {counted: getattr(job, counted) + 1, **first}
        return dataclasses.replace(job, **changes)

    def _done(self, job: BulkJob, task_id: str) -> str:
        """Do the verb to a task; the count that it belongs to."""
        try:
            self._verbs[job.verb](task_id, job.by)
        except self._changed:
            return "passed_over"
        except _OF_THE_MOMENT:
            raise
        except Exception as exc:  # noqa: BLE001 - one task must not keep a job from all that come after it
            log.warning("a job's verb failed", job_id=job.id, verb=job.verb.value, task_id=task_id, reason=repr(exc))
            return "failed"
        return "done"

    def _canary(self, job: BulkJob) -> BulkJob | None:
        """The job once its first task has gone well, or, stopped, has failed again; None while that is open."""
        if not job.canary_task or job.canary_passed:
            return job
        if job.verb in (JobVerb.CANCEL, JobVerb.DISCARD):
            return dataclasses.replace(job, canary_passed=True)
        passed = canary_passed(self._tasks.get(job.canary_task))
        if passed is None:
            return None
        if passed:
            return dataclasses.replace(job, canary_passed=True)
        return dataclasses.replace(job, state=JobState.STOPPED, reason=CANARY_FAILED)

    def _end(self, job: BulkJob) -> None:
        state = JobState.DONE if job.running else job.state
        ended = dataclasses.replace(job, state=state, finished_at=int(time.time() * 1_000))
        self._forget(job)
        if not self._jobs.write(ended):
            return
        reason = job.reason or None
        log.info("job ended", job_id=job.id, verb=job.verb.value, state=state.value, reason=reason, **_counts(job))
        self._audit(end_of(ended))

    def _forget(self, job: BulkJob) -> None:
        self._pages.pop(job.id, None)
        self._next_at.pop(job.id, None)


def end_of(job: BulkJob) -> AuditEntry:
    """The entry of a job's end in the audit log: that of its begin has the same verb and target.

    Args:
        job: as it has ended.
    """
    details = {"jobId": job.id, "state": job.state.value, **_counts(job)}
    result = job.reason or OK
    return AuditEntry(job.by, START_JOB, job_target(job), result, END, client=socket.gethostname(), details=details)


def _counts(job: BulkJob) -> dict[str, int]:
    return {"done": job.done, "failed": job.failed, "passedOver": job.passed_over}
