"""What a schedule does when it wakes up; see `dispatch.schedules.ticks` for the crash windows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Protocol

from dispatch.crashpoints import reach
from dispatch.errors import Throttled
from dispatch.protocol.schedules import LABEL, Overlap, Schedule, ScheduleTurn, turn
from dispatch.schedules.ticks import KEPT, Ticks
from dispatch.store.schedules import ScheduleEntry, ScheduleNote, ScheduleStore
from dispatch.store.tasks import TaskStore
from dispatch.submission.children import checked_payload, refusals
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submission
from dispatch.tasktypes.builtin import Tick
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger

log = logger(__name__)

#: What a wake-up has led to, in its result.
SUPERSEDED, SETTLED, WAITS, FIRED = "superseded", "settled", "waits", "fired"


#: Milliseconds by which the clocks of two machines may differ: a wait that ends earlier was ended by an operator, and is begun anew.
CLOCKS = 60_000


#: Times that a wake-up decides anew because another one was faster.
_TRIES = 5


class WakeUp(Protocol):
    """The part of a run's context that a wake-up needs."""

    @property
    def task_id(self) -> str:
        """The task that waited."""

    @property
    def traceparent(self) -> str:
        """Of its run."""


class WakeUps:
    """Carries wake-ups out. Thread-safe.

    Args:
        store: the schedules.
        tasks: the records.
        once: submits what has a derived id.
        ticks: submits waits.
        types: the task types.
        max_body: bytes of a payload's JSON.
    """

    def __init__(
        self,
        store: ScheduleStore,
        tasks: TaskStore,
        once: OnceSubmitter,
        ticks: Ticks,
        types: Mapping[str, TaskType],
        *,
        max_body: int,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._once = once
        self._ticks = ticks
        self._types = types
        self._max_body = max_body

    def __call__(self, order: Tick, ctx: WakeUp) -> dict[str, Any]:
        """Carry one out.

        Args:
            order: its payload.
            ctx: of its run.

        Returns:
            The result of the task that waited.

        Raises:
            Throttled: something can't be submitted now; the repeated step goes on.
        """
        schedule = Schedule.from_text(order.definition)
        with refusals(f"schedule {schedule.name}"):
            for _ in range(_TRIES):
                if (result := self._try(schedule, order, ctx)) is not None:
                    return result
        raise Throttled(f"schedule {schedule.name}: others settle its due times", type="schedule-busy")

    def _try(self, schedule: Schedule, order: Tick, ctx: WakeUp) -> dict[str, Any] | None:
        """The result; None where another wake-up was faster: what is left is decided anew."""
        entry = self._current(schedule, order.at)
        if entry is None:
            return {"outcome": SUPERSEDED}
        if order.early or order.at - time.time() * 1_000 > CLOCKS:
            self._store.waits(schedule.name, self._ticks.submit(schedule, order.at, leg=order.leg + 1), order.at)
            return {"outcome": WAITS}
        if entry.settled_at >= order.at:
            return {"outcome": SETTLED}
        return self._settle(schedule, entry, order.at, ctx)

    def _current(self, schedule: Schedule, at: int) -> ScheduleEntry | None:
        """The schedule's entry, restored where Redis has lost it; None where the schedule is another one by now."""
        entry = self._store.get(schedule.name)
        if entry is None or entry.revision < schedule.revision:
            log.warning("schedule restored from its wake-up", schedule=schedule.name, revision=schedule.revision)
            self._store.set(schedule, was=entry.revision if entry else 0, next_at=at)
            entry = self._store.get(schedule.name)
        if entry is None or entry.schedule is None or entry.revision != schedule.revision:
            return None
        return entry

    def _settle(self, schedule: Schedule, entry: ScheduleEntry, at: int, ctx: WakeUp) -> dict[str, Any] | None:
        # The due time that is waited for may be an earlier one, whose wake-up has come to no end.
        first = min(at, entry.next_at or at)
        due = turn(schedule, first, max(at, int(time.time() * 1_000)))
        tick = "" if due.following is None else self._ticks.submit(schedule, due.following)
        reach("tick.waited")
        note = self._fire(schedule, entry, due, tick, ctx)
        reach("tick.fired")
        noted = self._store.note(schedule, note)
        reach("tick.noted")
        if not noted:
            return None
        if note.error:
            log.error("schedule's task can't be submitted", schedule=schedule.name, error=note.error)
        return {"outcome": FIRED, "fired": note.fired, "skipped": note.skipped, "missed": note.missed}

    def _fire(
        self, schedule: Schedule, entry: ScheduleEntry, due: ScheduleTurn, tick: str, ctx: WakeUp
    ) -> ScheduleNote:
        former, note = (
            entry.fired_task,
            ScheduleNote(entry.settled_at, due.last, due.following, tick, missed=due.missed),
        )
        for at in due.fire:
            if (
                schedule.overlap is Overlap.SKIP
                and former
                and self._alive(former)
                and not self._submitted(schedule, at)
            ):
                note = dataclasses.replace(note, skipped=note.skipped + 1)
                continue
            submission = self._submission(schedule, at, ctx)
            if isinstance(submission, str):
                note = dataclasses.replace(note, error=submission, missed=note.missed + 1)
                continue
            former = self._once.submit(submission, family=submission.task_id, kept=KEPT)
            note = dataclasses.replace(note, fired=note.fired + 1, fired_at=at, fired_task=former)
        return note

    def _submitted(self, schedule: Schedule, at: int) -> bool:
        """Whether a wake-up that came to no end has submitted the task of a due time."""
        return self._tasks.get(schedule.firing_id(at)) is not None

    def _alive(self, task_id: str) -> bool:
        record = self._tasks.get(task_id)
        return record is not None and not record.state.terminal

    def _submission(self, schedule: Schedule, at: int, ctx: WakeUp) -> Submission | str:
        """What is submitted, or why it can't be."""
        task_type = self._types.get(schedule.type)
        if task_type is None:
            return f"there is no task type {schedule.type!r}"
        try:
            payload = checked_payload(task_type, schedule.payload, self._max_body)
        except ValueError as exc:
            return str(exc)
        wakes, now = at + 1_000 * schedule.jitter_of(at), int(time.time() * 1_000)
        return Submission(
            principal=schedule.principal,
            type=task_type,
            payload=payload,
            fingerprint="",
            idempotency_key=None,
            request_id="",
            traceparent=ctx.traceparent,
            wakes_at=wakes if schedule.jitter and wakes > now else 0,
            deadline=schedule.deadline,
            labels={**schedule.labels, LABEL: schedule.name},
            task_id=schedule.firing_id(at),
            parent_id=ctx.task_id,
        )
