"""Signal a task: the signal is recorded, and where the task waits for it a copy of the next seq goes to the work queue.

Crash windows: those of `dispatch.control.send_now`. The signal and the decision are one step, so none is recorded and not acted on.
"""

from __future__ import annotations

import dataclasses

from dispatch.control.refusals import SignalKeyReused, TaskTerminal, TooManySignals, UnknownTask
from dispatch.control.send_now import SendNow
from dispatch.errors import PublishError
from dispatch.protocol.copies import resent_copy
from dispatch.protocol.message import Copy
from dispatch.protocol.record import Record, State
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.store.signals import NewSignal, Recorded, SignalAnswer, Signals
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Times that a record is read again which changes between being read and being decided.
_TRIES = 5


#: What became of a signal, in metrics.
OUTCOMES = (ENDED_WAIT, KEPT) = ("ended-wait", "kept")


@dataclasses.dataclass(frozen=True, slots=True)
class Signalled:
    """A task that was signalled."""

    record: Record
    replayed: bool  #: with the same Idempotency-Key before


class Signaller:
    """Signals tasks. Thread-safe.

    Args:
        tasks: reads records.
        signals: records signals.
        sender: carries decisions out.
        sealing: of errors in headers.
    """

    def __init__(self, tasks: TaskStore, signals: Signals, sender: SendNow, sealing: Sealing = UNSEALED) -> None:
        self._tasks = tasks
        self._signals = signals
        self._sender = sender
        self._sealing = sealing

    def signal(self, task_id: str, signal: NewSignal) -> Signalled:
        """Record a signal, and end the wait that is for it.

        Args:
            task_id: the task.
            signal: what came.

        Returns:
            The record afterwards, and whether this is a repeat. A copy that RabbitMQ did not take is recorded: the sweeper publishes it.

        Raises:
            UnknownTask: it has no record.
            TaskTerminal: it has ended.
            TooManySignals: it has as many as a task may have.
            SignalKeyReused: the Idempotency-Key came with another body before.
            StoreUnavailable: unknown; repeat it with its Idempotency-Key.
        """
        record = self._tasks.whole(task_id)
        for left in reversed(range(_TRIES)):
            recorded = Recorded(SignalAnswer.MISSING) if record is None else self._add(record, signal, last=not left)
            if recorded.answer is not SignalAnswer.AGAIN:
                break
            record = self._tasks.whole(task_id)
        if record is None or recorded.answer is SignalAnswer.MISSING:
            raise UnknownTask(f"there is no record of task {task_id}")
        _refuse(recorded.answer, record)
        replayed = recorded.answer is SignalAnswer.REPLAYED
        if not replayed:
            metrics.SIGNALS.inc(metrics.type_label(record.type), ENDED_WAIT if recorded.copy else KEPT)
        return Signalled(self._tasks.get(task_id) or record, replayed)

    def _add(self, record: Record, signal: NewSignal, *, last: bool) -> Recorded:
        """The last try only records: a task that changes as fast as it is read does not wait."""
        recorded = Recorded(SignalAnswer.AGAIN)

        def decide(copy: Copy | None) -> Copy | None:
            nonlocal recorded
            recorded = self._signals.add(record.task_id, signal, copy, last=last)
            return recorded.copy

        waits = record.state is State.WAITING and signal.name in record.waiting_for and not last
        copy = resent_copy(record, self._sealing) if waits else None
        try:
            if copy is not None:
                self._sender.carry_out(record.type, copy, decide)
            elif (decided := decide(None)) is not None:  # a repeat of one that was cut off
                self._sender.carry_out(record.type, decided, lambda _: decided)
        except PublishError as exc:
            log.warning("signal recorded, its copy not published yet", task_id=record.task_id, reason=str(exc))
        return recorded


def _refuse(answer: SignalAnswer, record: Record) -> None:
    match answer:
        case SignalAnswer.TERMINAL:
            raise TaskTerminal(record)
        case SignalAnswer.FULL:
            raise TooManySignals(record)
        case SignalAnswer.REUSED:
            raise SignalKeyReused(record)
        case _:
            return
