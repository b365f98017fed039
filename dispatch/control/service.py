"""The operator's verbs on one task that has not ended."""

from __future__ import annotations

from dispatch.control.send_now import SendNow
from dispatch.protocol.record import Record, State

#: The states whose wait an operator may end. A signal ends that of WAITING, a resume that of HELD.
_RETRIED = frozenset({State.RETRY_WAIT, State.DELAYED})


class ControlService:
    """The verbs. Thread-safe.

    Args:
        sender: ends waits.
    """

    def __init__(self, sender: SendNow) -> None:
        self._sender = sender

    def retry_now(self, task_id: str, *, by: str) -> Record:
        """End a task's wait on a rung or in the delay levels: its next attempt begins as soon as a worker is free.

        Args:
            task_id: the task.
            by: who asked for it.

        Returns:
            The record afterwards; raised as by `SendNow.send`.
        """
        return self._sender.send(task_id, _RETRIED, "sent-now", by=by)
