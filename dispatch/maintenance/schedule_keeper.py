"""The keeper of schedules looks at those whose due time was not handled in time, and has them wait again.

It runs in every worker at once: a wait that is submitted twice has one id, and due times are settled once.
"""

from __future__ import annotations

import time

from dispatch.background import Background
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.schedules.ticks import Ticks
from dispatch.store.schedules import OVERDUE, ScheduleEntry, ScheduleStore
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger

log = logger(__name__)

#: Schedules that one step looks at.
BATCH = 100

#: Milliseconds for which a wait that is still alive is waited for beyond its due time, whatever keeps it: a full queue, a failed
#: attempt, a pause. Doubles with each one that is begun anew.
PATIENCE = 600_000


class ScheduleKeeper(Background):
    """Has schedules wait again whose wait is lost.

    Args:
        store: the schedules.
        tasks: the records.
        ticks: submits waits.
        interval: seconds between two looks.
    """

    def __init__(self, store: ScheduleStore, tasks: TaskStore, ticks: Ticks, *, interval: float) -> None:
        super().__init__("schedule keeper", interval=interval)
        self._store = store
        self._tasks = tasks
        self._ticks = ticks

    def step(self) -> float | None:
        """Look once at every schedule that is overdue."""
        now = int(time.time() * 1_000)
        for name in self._store.overdue(now, BATCH):
            try:
                self._look(name, now)
            except StoreUnavailable:
                raise
            except DispatchError as exc:
                log.warning("schedule does not wait yet", schedule=name, reason=f"{type(exc).__name__}: {exc}")
                self._store.look_at(name, now)
        return None

    def _look(self, name: str, now: int) -> None:
        entry = self._store.get(name)
        if entry is None or entry.schedule is None:
            self._store.forget([name])
        elif entry.next_at is None:
            self._store.look_at(name, None)
        elif entry.next_at + OVERDUE > now and entry.tick:
            self._store.look_at(name, entry.next_at)
        elif not self._on_its_way(entry, now):
            leg = self._store.begin_leg(name) if entry.tick else entry.leg
            tick = self._ticks.submit(entry.schedule, entry.next_at, leg=leg)
            log.warning("schedule waits again", schedule=name, task_id=tick)
            self._store.waits(name, tick, now)
        else:
            self._store.look_at(name, now)

    def _on_its_way(self, entry: ScheduleEntry, now: int) -> bool:
        """Whether the wait is late and not lost."""
        record = self._tasks.get(entry.tick) if entry.tick else None
        alive = record is not None and not record.state.terminal
        return alive and now - (entry.next_at or 0) < PATIENCE << min(entry.leg, 8)
