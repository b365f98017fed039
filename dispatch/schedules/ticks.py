"""The task by which a schedule waits for a due time: a delayed task, whose message has the whole schedule.

When it runs it submits the one that waits for the next due time, then the tasks of the due times that have come. All of them have derived ids,
so a wake-up that is repeated, or of which there are two, submits nothing twice.

Crash windows of a wake-up, each of which ends with its repeated step:

- before the next wait: the due times of meanwhile are due as well;
- after the next wait, before the tasks: the next due time comes by itself; the repeated step submits those of this one;
- after the tasks, before the note: the same ids again; due times that became late meanwhile count as missed though they were submitted.

A wake-up ends without an effect when its schedule was changed, paused or deleted (it has another revision, or a tombstone), and when a later one
has settled its due time. Where Redis has lost the schedule, the message restores it.
"""

from __future__ import annotations

import time

from dispatch.protocol.ids import child_traceparent
from dispatch.protocol.schedules import LABEL, LONGEST_WAIT, Schedule
from dispatch.store.children import DAY
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submission
from dispatch.tasktypes.builtin import TICK, Tick

#: Milliseconds for which it is noted that a due time was waited for, and that its task was submitted.
KEPT = 2 * DAY


class Ticks:
    """Submits waits. Thread-safe.

    Args:
        once: submits what has a derived id.
        longest_delay: seconds.
    """

    def __init__(self, once: OnceSubmitter, *, longest_delay: int) -> None:
        self._once = once
        self._longest = 1_000 * min(LONGEST_WAIT, longest_delay)

    def submit(self, schedule: Schedule, at: int, *, leg: int = 0) -> str:
        """Have a schedule wait for a due time.

        Args:
            schedule: which.
            at: the due time, epoch milliseconds.
            leg: as in `Tick`.

        Returns:
            The id of the task that waits.

        Raises:
            PublishError: as `Submitter.submit`.
            StoreUnavailable: the same.
        """
        now = int(time.time() * 1_000)
        wakes = min(at, now + self._longest)
        payload = Tick(definition=schedule.to_text(), at=at, leg=leg, early=wakes < at)
        task_id = schedule.tick_id(at, leg)
        submission = Submission(
            principal=schedule.principal,
            type=TICK,
            payload=payload.model_dump(mode="json", by_alias=True, exclude_unset=True),
            fingerprint="",
            idempotency_key=None,
            request_id="",
            traceparent=child_traceparent(None),
            wakes_at=wakes if wakes > now else 0,
            labels={LABEL: schedule.name},
            task_id=task_id,
        )
        return self._once.submit(submission, family=task_id, kept=KEPT, free=True)
