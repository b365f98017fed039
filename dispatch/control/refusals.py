"""Why a verb does not apply to a task."""

from __future__ import annotations

from dispatch.errors import DispatchError
from dispatch.protocol.record import Record


class UnknownTask(DispatchError):
    """There is no record of this task."""


class VerbRefused(DispatchError):
    """The task's state does not allow the verb.

    Args:
        record: the task's.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(f"the task is {record.state.value}")
        self.record = record


class TaskTerminal(VerbRefused):
    """The task has ended."""


class NotWaiting(VerbRefused):
    """No copy of the task waits where the verb could end its wait."""


class TooManySignals(VerbRefused):
    """The task has as many signals as a task may have."""


class SignalKeyReused(VerbRefused):
    """The Idempotency-Key came with another body before."""
