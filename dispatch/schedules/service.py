"""The verbs on schedules: create or change, delete, pause, resume, run now.

Crash windows of a change: after the schedule's new revision, before its wait is confirmed. The keeper submits the wait within half a minute
(`dispatch.maintenance.schedule_keeper`); until then the schedule is in Redis alone. The waits of the revision before end without an effect.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from dispatch.errors import DispatchError, PublishError, StoreError
from dispatch.protocol.schedules import LABEL, Schedule
from dispatch.schedules.ticks import Ticks
from dispatch.store.schedules import MAX_SCHEDULES, ScheduleEntry, ScheduleStore
from dispatch.submission.submitter import Accepted, Submission, Submitter

#: Tries of a change that another one has overtaken.
_TRIES = 5


class ScheduleError(DispatchError):
    """A verb on a schedule that is refused."""


class NoSuchSchedule(ScheduleError):
    """There is no schedule with that name, or it is another principal's."""


class ScheduleExists(ScheduleError):
    """There is a schedule with that name."""


class ScheduleChanged(ScheduleError):
    """The schedule has another revision than the request expects: read it again."""


class NeverFires(ScheduleError):
    """The cron expression has no due time within 50 years."""


class TooManySchedules(ScheduleError):
    """As many schedules as can be are there: delete some."""


class ScheduleUnconfirmed(ScheduleError):
    """The schedule is stored, and its next due time is not waited for yet: repeat the request, or a worker does it within a minute."""


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """What a request expects of the schedule that it changes."""

    revision: int | None = None  #: it has this one
    absent: bool = False  #: there is none


#: A request that expects nothing.
ANY = Expected()


class ScheduleService:
    """The verbs. Thread-safe.

    Args:
        store: the schedules.
        ticks: submits waits.
        submitter: the way that clients' tasks take.
    """

    def __init__(self, store: ScheduleStore, ticks: Ticks, submitter: Submitter) -> None:
        self._store = store
        self._ticks = ticks
        self._submitter = submitter

    def all(self, principal: str | None) -> list[ScheduleEntry]:
        """The schedules of a principal, or with None of all, by name."""
        return [entry for entry in self._store.all() if principal in (None, entry.principal)]

    def get(self, name: str, principal: str | None) -> ScheduleEntry:
        """A schedule.

        Args:
            name: which.
            principal: whose it must be; None: anyone's.

        Raises:
            NoSuchSchedule: see the class.
        """
        entry = self._store.get(name)
        if entry is None or entry.schedule is None or principal not in (None, entry.principal):
            raise NoSuchSchedule
        return entry

    def put(self, wanted: Schedule, expected: Expected = ANY) -> tuple[ScheduleEntry, bool]:
        """Create a schedule, or change it.

        Args:
            wanted: without revision and times.
            expected: of the one that is there.

        Returns:
            The schedule, and whether it is new.

        Raises:
            ScheduleExists: it is another principal's, or none was expected.
            ScheduleChanged: another revision was expected.
            NeverFires: see the class.
            TooManySchedules: see the class.
            ScheduleUnconfirmed: see the class.
            StoreUnavailable: unknown; repeat it.
        """
        for _ in range(_TRIES):
            entry = self._store.get(wanted.name)
            former = entry.schedule if entry else None
            _check(former, wanted, expected)
            if former is None and self._store.count() >= MAX_SCHEDULES:
                raise TooManySchedules
            if entry is not None and former is not None and former.same_as(wanted):
                return self._waiting(entry, former), False
            if (changed := self._set(wanted, entry)) is not None:
                return changed, former is None
        raise ScheduleChanged

    def delete(self, name: str, principal: str | None) -> None:
        """Delete a schedule; its tasks that were submitted go on.

        Raises:
            NoSuchSchedule: see the class.
            ScheduleChanged: others change it at the same time.
        """
        for _ in range(_TRIES):
            entry = self.get(name, principal)
            if self._store.delete(name, entry.principal, entry.revision):
                return
        raise ScheduleChanged

    def pause(self, name: str, principal: str | None) -> ScheduleEntry:
        """Submit nothing more until it is resumed; raises as `put` and `get`."""
        return self._change(name, principal, lambda schedule: dataclasses.replace(schedule, paused=True))

    def resume(self, name: str, principal: str | None) -> ScheduleEntry:
        """Go on with the next due time: those of the pause are not made up for; raises as `put` and `get`."""
        return self._change(name, principal, lambda schedule: dataclasses.replace(schedule, paused=False))

    def run_now(self, name: str, principal: str | None, request: Callable[[Schedule], Submission]) -> Accepted:
        """Submit its task now, whatever its due times are.

        Args:
            name: which.
            principal: whose it must be; None: anyone's.
            request: makes the submission; principal, labels and deadline are the schedule's.

        Raises:
            NoSuchSchedule: see the class.
            PublishError: as `Submitter.submit`, as all others.
        """
        schedule = self.get(name, principal).schedule
        assert schedule is not None  # noqa: S101 - for the type checker
        made = request(schedule)
        labels = {**schedule.labels, LABEL: schedule.name}
        made = dataclasses.replace(made, principal=schedule.principal, labels=labels, deadline=schedule.deadline)
        return self._submitter.submit(made)

    # --- changes -------------------------------------------------------------------------------------
    def _change(self, name: str, principal: str | None, how: Callable[[Schedule], Schedule]) -> ScheduleEntry:
        for _ in range(_TRIES):
            entry = self.get(name, principal)
            assert entry.schedule is not None  # noqa: S101 - for the type checker
            wanted = how(entry.schedule)
            if entry.schedule.same_as(wanted):
                return self._waiting(entry, entry.schedule)
            if (changed := self._set(wanted, entry)) is not None:
                return changed
        raise ScheduleChanged

    def _set(self, wanted: Schedule, entry: ScheduleEntry | None) -> ScheduleEntry | None:
        """Write a new revision and have it wait; None where another change was faster."""
        now, was = int(time.time() * 1_000), entry.revision if entry else 0
        former = entry.schedule if entry else None
        created = former.created_at if former else now
        # Later than every one before, also of a schedule that Redis has lost.
        schedule = dataclasses.replace(wanted, revision=max(was + 1, now), created_at=created, updated_at=now)
        next_at = schedule.next_time(now)
        if next_at is None and not schedule.paused:
            raise NeverFires
        if not self._store.set(schedule, was=was, next_at=next_at, fresh=former is None):
            return None
        if next_at is not None:
            self._wait(schedule, next_at)
        return self._store.get(schedule.name)

    def _waiting(self, entry: ScheduleEntry, schedule: Schedule) -> ScheduleEntry:
        """A schedule that need not change; the request before may have been cut off."""
        if entry.tick is None and entry.next_at is not None:
            self._wait(schedule, entry.next_at)
        return entry

    def _wait(self, schedule: Schedule, next_at: int) -> None:
        try:
            self._store.waits(schedule.name, self._ticks.submit(schedule, next_at), next_at)
        except (PublishError, StoreError) as exc:
            raise ScheduleUnconfirmed from exc


def _check(former: Schedule | None, wanted: Schedule, expected: Expected) -> None:
    if former is not None and (expected.absent or former.principal != wanted.principal):
        raise ScheduleExists
    revision = former.revision if former else None
    if expected.revision is not None and expected.revision != revision:
        raise ScheduleChanged
