"""The sweeper checks tasks without a sign of life, and does what is certain: reject, publish, send again.

It runs in every worker at once; each transition compares before it sets, so sweepers, gateways that were paused, clients
that repeat their Idempotency-Key, and late copies may all race.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from dispatch.background import Background
from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.protocol.copies import resent_copy, wait_of
from dispatch.protocol.message import Copy
from dispatch.protocol.record import ErrorInfo, Record, State
from dispatch.store.claims import Claims
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.handovers import DecisionAnswer, Handovers
from dispatch.store.reminders import Reminders
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Tasks that one sweep reads at once.
BATCH = 200

#: Pause between two full batches, as a multiple of the time that one took: a backlog of old tasks comes due at once.
REST = 9.0

#: The error in a record that the sweeper rejected.
NEVER_PUBLISHED = ErrorInfo("publish-unconfirmed", "RabbitMQ never confirmed the task; it was not run", retryable=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Nothing is left to check."""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckAt:
    """Nothing is certain yet: check again then."""

    at: float  #: epoch seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """Its publish was never confirmed and no worker has claimed it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """A copy was decided and never confirmed: send that one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resend:
    """The broker has lost it: no queue could have held it so long."""


SweepStep = Drop | CheckAt | Reject | Publish | Resend


def next_step(record: Record | None, *, leased: bool, now: float, settings: Settings) -> SweepStep:
    """What to do about a task. Pure.

    Args:
        record: as it was read; its messages are not asked for.
        leased: whether a worker holds its lease.
        now: epoch seconds.
        settings: grace, lease, queue TTL and margin.

    Returns:
        The step.
    """
    if record is None or record.state.terminal:
        return Drop()
    if leased:
        return CheckAt(now + settings.lease)
    changed = record.updated_at / 1_000
    if record.decided_seq is not None:
        at = changed + settings.lease + settings.unpublished_grace
        return Publish() if now >= at else CheckAt(at)
    if record.state is State.SCHEDULED and not record.published:
        at = changed + settings.unpublished_grace
        return Reject() if now >= at else CheckAt(at)
    at = (
        max(changed, _waits_until(record, settings.hold_ttl))
        + settings.lease
        + settings.queue_ttl
        + settings.sweep_margin
    )
    return Resend() if now >= at else CheckAt(at)


def _waits_until(record: Record, hold_ttl: float) -> float:
    """Epoch seconds until which its copy waits on a rung, in the delay levels or the hold queue; 0 where it does not."""
    if record.state is State.HELD:
        return record.updated_at / 1_000 + hold_ttl
    waits = {State.RETRY_WAIT: record.next_attempt_at, State.DELAYED: record.wakes_at, State.WAITING: record.wakes_at}
    return (waits.get(record.state) or 0) / 1_000


class Sweeper(Background):
    """Checks what is due.

    Args:
        tasks: the records.
        claims: which tasks are leased.
        handovers: from copy to copy.
        dead_letters: finishes a redrive.
        reminders: what is due.
        send: publishes a copy, confirmed; to the task exchange, a rung or the DLX.
        settings: grace, lease, queue TTL, margin.
        steady: see `dispatch.maintenance.restart_watch.RestartWatch.steady`.
        ended: announces the end of a task that was cancelled while no worker had a copy of it; safe to repeat.
    """

    def __init__(
        self,
        *,
        tasks: TaskStore,
        claims: Claims,
        handovers: Handovers,
        dead_letters: DeadLetterRecords,
        reminders: Reminders,
        send: Callable[[Copy], Any],
        settings: Settings,
        steady: Callable[[float], bool] = lambda _: True,
        ended: Callable[[Record], None] = lambda _: None,
    ) -> None:
        super().__init__("sweeper", interval=settings.sweep_interval)
        self._ended = ended
        self._settings = settings
        self._send = send
        self._tasks = tasks
        self._claims = claims
        self._handovers = handovers
        self._dead_letters = dead_letters
        self._reminders = reminders
        self._steady = steady

    def step(self) -> float | None:
        """Check once everything that is due; while there is more, the process's runs get most of its time."""
        began = time.monotonic()
        if self.sweep() < BATCH:
            return None
        self.pause(min(REST * (time.monotonic() - began), self._interval))
        return 0.0

    def sweep(self) -> int:
        """Check everything that is due, a batch at most.

        Most tasks only wait in a long queue: those of a batch take three round trips, however many they are.

        Returns:
            How many tasks were checked.

        Raises:
            StoreUnavailable: the rest is checked next time.
        """
        now = self._reminders.clock()  # records are dated by Redis's clock; this machine's may jump
        due = self._reminders.due(now, BATCH)
        steps = self._steps(due, now)
        waiting = {task_id: step.at for task_id, _, step in steps if isinstance(step, CheckAt)}
        self._reminders.postpone(
            {task_id: max(at, now + self._settings.sweep_interval) for task_id, at in waiting.items()}, now
        )
        for task_id, record, step in steps:
            if task_id not in waiting:
                self._try(task_id, record, step, now)
        return len(due)

    def _steps(self, due: Sequence[str], now: float) -> list[tuple[str, Record | None, SweepStep]]:
        """What to do about each task. Its lease is read after its record: a run that begins in between has changed it."""
        records = dict(zip(due, self._tasks.get_many(due), strict=True))
        living = [task_id for task_id, record in records.items() if record is not None and not record.state.terminal]
        leased = dict(zip(living, self._claims.leases(living), strict=True))
        return [
            (task_id, record, next_step(record, leased=leased.get(task_id, False), now=now, settings=self._settings))
            for task_id, record in records.items()
        ]

    def _try(self, task_id: str, record: Record | None, step: SweepStep, now: float) -> None:
        """Do it; only a Redis that is away ends the sweep."""
        try:
            self._do(task_id, record, step, now)
        except StoreUnavailable:
            raise
        except DispatchError as exc:
            log.warning("not swept yet", task_id=task_id, reason=f"{type(exc).__name__}: {exc}")
            self._reminders.set(task_id, now + self._settings.sweep_interval)
        except Exception:  # one task must not keep the sweeper from all that come after it
            log.exception("not swept", task_id=task_id)
            self._reminders.set(task_id, now + self._settings.sweep_margin)

    def _do(self, task_id: str, record: Record | None, step: SweepStep, now: float) -> None:
        match step:
            case Drop():
                if record is not None:  # its end may have been recorded and not counted
                    self._tasks.usage.settle(record)
                    if record.state is State.CANCELLED and record.webhook:
                        self._ended(record)
                self._reminders.drop(task_id, now)
            case Reject() | Publish() | Resend():
                self._mend(task_id, step, now)

    def _mend(self, task_id: str, step: Reject | Publish | Resend, now: float) -> None:
        """Do what needs the task's messages: few tasks come here, so only theirs are read."""
        record = self._tasks.whole(task_id)
        match step:
            case Reject() if record is not None:
                self._reject(record, now)
            case Publish() if record is not None and record.decision is not None:
                self._publish(record, Copy.from_json(record.decision), now)
            case Resend() if record is not None:
                self._resend(record, now)
            case _:  # it has changed since
                self._reminders.set(task_id, now + self._settings.sweep_interval)

    def _reject(self, record: Record, now: float) -> None:
        grace = self._settings.unpublished_grace
        # A Redis that has started again may lack a confirm that its process is about to repeat.
        if not self._steady(grace):
            self._reminders.set(record.task_id, now + self._settings.sweep_interval)
            return
        if record.message is None:
            self._reminders.drop(record.task_id, now)
            return
        rejected = self._tasks.reject(
            record.message, error=NEVER_PUBLISHED, idempotency_key=record.idempotency_key, silent_for=grace
        )
        log.info("swept: never published", task_id=record.task_id, rejected=rejected)
        if rejected:
            metrics.SWEEPS.inc("rejected")
            self._reminders.drop(record.task_id, now)
        else:
            self._reminders.set(record.task_id, now + grace)

    def _publish(self, record: Record, copy: Copy, now: float) -> None:
        reach("sweep.recorded")
        self._send(copy)
        reach("sweep.published")
        if record.before_redrive is not None:
            self._dead_letters.finish_redrive(copy)
        else:
            self._handovers.hand_over(copy, wait=wait_of(copy, self._settings.ladder))
        metrics.SWEEPS.inc("published")
        log.warning("swept: decided copy published", task_id=record.task_id, queue=copy.queue, seq=copy.message.seq)
        self._reminders.set(record.task_id, now + self._settings.lease)

    def _resend(self, record: Record, now: float) -> None:
        copy = resent_copy(record, self._settings.sealing)
        if copy is None:
            metrics.SWEEPS.inc("lost")
            log.error("swept: lost, its record has no message", task_id=record.task_id)
            self._reminders.set(record.task_id, now + self._settings.queue_ttl)
            return
        match self._handovers.resend(record, copy):
            case DecisionAnswer.OK:
                metrics.SWEEPS.inc("resent")
                log.warning("swept: in no queue any more, sent again", task_id=record.task_id, seq=copy.message.seq)
                self._publish(record, copy, now)
            case DecisionAnswer.CANCELLED:
                for ended in self._steps([record.task_id], now):
                    self._do(*ended, now)
            case _:  # it has changed since
                self._reminders.set(record.task_id, now + self._settings.sweep_interval)
