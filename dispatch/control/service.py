"""The operator's verbs on one task that has not ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from dispatch.control.refusals import TaskTerminal, UnknownTask, VerbRefused
from dispatch.control.send_now import SendNow
from dispatch.errors import PublishError, StoreError
from dispatch.protocol.record import Record, State
from dispatch.store.cancellations import CancelAnswer, Cancellations
from dispatch.store.tasks import TaskStore

#: The states whose wait an operator may end. A signal ends that of WAITING, a resume that of HELD.
RETRIED = frozenset({State.RETRY_WAIT, State.DELAYED})

#: The states in which a task that has begun waits for its next step, or attempt.
_BEGUN = frozenset({State.WAITING, State.RETRY_WAIT, State.HELD})

#: Seconds after which the sweeper looks whether the end of a task that was cancelled has been announced.
_ANNOUNCED = 5.0


class ControlService:
    """The verbs. Thread-safe.

    Args:
        tasks: reads records.
        cancellations: records them.
        sender: ends waits.
        ended: does what the end of a task asks for; where that fails, the sweeper does. Without it, the sweeper does it soon.
    """

    def __init__(
        self,
        tasks: TaskStore,
        cancellations: Cancellations,
        sender: SendNow,
        *,
        ended: Callable[[Record], None] | None = None,
    ) -> None:
        self._ended = ended
        self._tasks = tasks
        self._cancellations = cancellations
        self._sender = sender

    def retry_now(self, task_id: str, *, by: str) -> Record:
        """End a task's wait on a rung or in the delay levels: its next attempt begins as soon as a worker is free.

        Args:
            task_id: the task.
            by: who asked for it.

        Returns:
            The record afterwards; raised as by `SendNow.send`.
        """
        return self._sender.send(task_id, RETRIED, "sent-now", by=by)

    def cancel(self, task_id: str, *, by: str) -> Record:
        """Cancel a task: it is CANCELLED at once, or, where it has begun, asked to stop; safe to repeat.

        A task that waits between two steps is sent now, so that its handler undoes what it has begun. Where that fails, the
        sweeper sends it: the decision is recorded.

        Args:
            task_id: the task.
            by: who asked for it.

        Returns:
            The record afterwards.

        Raises:
            UnknownTask: it has no record.
            TaskTerminal: it has ended otherwise.
            StoreUnavailable: unknown; cancel again.
        """
        soon = 0.0 if self._ended is None else _ANNOUNCED
        answer = self._cancellations.cancel(task_id, by=by, announced_in=soon)
        if answer is CancelAnswer.WAKE:
            with contextlib.suppress(PublishError, VerbRefused):  # refused: it has gone on by itself
                self._sender.send(task_id, _BEGUN, "sent-now", by=by)
        record = self._tasks.get(task_id)
        if record is None or answer is CancelAnswer.MISSING:
            raise UnknownTask(f"there is no record of task {task_id}")
        if answer is CancelAnswer.TERMINAL:
            raise TaskTerminal(record)
        if record.state is State.CANCELLED and self._ended is not None:
            with contextlib.suppress(PublishError, StoreError):
                self._ended(record)
        return record
