"""The sweeper: looks at tasks that nothing has been heard of, and settles what is certain.

Runs in every worker at once; each transition compares before it sets, so sweepers, gateways that were paused, clients
that repeat their key, and late copies may all race.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.protocol.copies import resent_copy
from dispatch.protocol.message import Copy
from dispatch.protocol.record import ErrorInfo, Record, State
from dispatch.store.handovers import Handovers
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger, metrics

log = logger("dispatch.sweeper")

#: Tasks that one look takes up.
BATCH = 200

#: What clients read in a record that the sweeper rejected.
NEVER_PUBLISHED = ErrorInfo("publish-unconfirmed", "RabbitMQ never confirmed the task; it was not run", retryable=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left to look after."""


@dataclasses.dataclass(frozen=True, slots=True)
class LookAt:
    """Nothing is certain yet: look again then."""

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


SweepStep = Forget | LookAt | Reject | Publish | Resend


def next_step(record: Record | None, *, leased: bool, now: float, settings: Settings) -> SweepStep:
    """What to do about a task. Pure.

    Args:
        record: as it was read.
        leased: whether a worker holds its lease.
        now: epoch seconds.
        settings: grace, lease, queue TTL and margin.

    Returns:
        The step.
    """
    if record is None or record.state.terminal:
        return Forget()
    if leased:
        return LookAt(now + settings.lease)
    heard = record.updated_at / 1_000
    if record.decision is not None:
        at = heard + settings.lease + settings.unpublished_grace
        return Publish() if now >= at else LookAt(at)
    if record.state is State.SCHEDULED and not record.published:
        at = heard + settings.unpublished_grace
        return Reject() if now >= at else LookAt(at)
    waits_until = (record.next_attempt_at or 0) / 1_000 if record.state is State.RETRY_WAIT else heard
    at = max(heard, waits_until) + settings.lease + settings.queue_ttl + settings.sweep_margin
    return Resend() if now >= at else LookAt(at)


class Sweeper:
    """Looks around on a thread of its own.

    Args:
        settings: the worker's.
        send: publishes a copy, confirmed; to the task exchange, a rung or the DLX.
    """

    def __init__(self, settings: Settings, *, send: Callable[[Copy], Any]) -> None:
        self._settings = settings
        self._send = send
        self._store = TaskStore(settings, timeout=1.0)
        self._handovers = Handovers(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current look."""
        self._stop.set()

    def sweep(self) -> int:
        """Look once at everything that is due.

        Returns:
            How many tasks were looked at.

        Raises:
            StoreUnavailable: the rest is looked at next time.
        """
        now = self._handovers.clock()  # records are dated by Redis's clock; this machine's may jump
        due = self._handovers.due(now, BATCH)
        for task_id, record in zip(due, self._store.get_many(due), strict=True):
            try:
                self._look(task_id, record, now)
            except StoreUnavailable:
                raise
            except DispatchError as exc:
                log.warning("not settled yet", task_id=task_id, reason=f"{type(exc).__name__}: {exc}")
                self._handovers.look_again(task_id, now + self._settings.sweep_interval)
            except Exception:  # one task's trouble must not keep the sweeper from all that come after it
                log.exception("not settled", task_id=task_id)
                self._handovers.look_again(task_id, now + self._settings.sweep_margin)
        return len(due)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                more = self.sweep() == BATCH
            except Exception as exc:  # noqa: BLE001 - the next look may go better
                log.warning("sweep cut short", reason=repr(exc))
                more = False
            if not more:
                self._stop.wait(self._settings.sweep_interval)

    def _look(self, task_id: str, record: Record | None, now: float) -> None:
        leased = record is not None and not record.state.terminal and self._handovers.leased(task_id)
        match next_step(record, leased=leased, now=now, settings=self._settings):
            case Forget():
                self._handovers.forget(task_id, now)
            case LookAt(at):
                self._handovers.look_again(task_id, max(at, now + self._settings.sweep_interval))
            case Reject() if record is not None:
                self._reject(record, now)
            case Publish() if record is not None and record.decision is not None:
                self._publish(record, Copy.from_json(record.decision), now)
            case Resend() if record is not None:
                self._resend(record, now)

    def _reject(self, record: Record, now: float) -> None:
        grace = self._settings.unpublished_grace
        if record.message is None:
            self._handovers.forget(record.task_id, now)
            return
        rejected = self._store.reject(record.message, error=NEVER_PUBLISHED, key=record.key, silent_for=grace)
        log.info("swept: never published", task_id=record.task_id, rejected=rejected)
        if rejected:
            metrics.SWEEPS.inc("rejected")
            self._handovers.forget(record.task_id, now)
        else:
            self._handovers.look_again(record.task_id, now + grace)

    def _publish(self, record: Record, copy: Copy, now: float) -> None:
        reach("sweep.recorded")
        self._send(copy)
        reach("sweep.published")
        if record.before_redrive is not None:
            self._handovers.finish_redrive(copy)
        else:
            rung = next((rung for rung in self._settings.ladder if rung.name == record.rung), None)
            self._handovers.hand_over(copy, wait=rung.seconds if rung else 0.0)
        metrics.SWEEPS.inc("published")
        log.warning("swept: decided copy published", task_id=record.task_id, queue=copy.queue, seq=copy.message.seq)
        self._handovers.look_again(record.task_id, now + self._settings.lease)

    def _resend(self, record: Record, now: float) -> None:
        copy = resent_copy(record)
        if copy is None:
            metrics.SWEEPS.inc("lost")
            log.error("swept: lost, its record has no message", task_id=record.task_id)
            self._handovers.look_again(record.task_id, now + self._settings.queue_ttl)
        elif self._handovers.resend(record, copy):
            metrics.SWEEPS.inc("resent")
            log.warning("swept: in no queue any more, sent again", task_id=record.task_id, seq=copy.message.seq)
            self._publish(record, copy, now)
        else:
            self._handovers.look_again(record.task_id, now + self._settings.sweep_interval)
