"""The errors, grouped by what the caller must do.

::

    DispatchError
    ├── ConfigurationError          correct the environment; nothing has started
    ├── StoreError
    │   └── StoreUnavailable        Redis did not respond: the outcome of a write is unknown
    │       └── StoreFull           Redis has no memory left: nothing new is accepted
    ├── PublishError                RabbitMQ did not confirm a message
    │   ├── NotSent                 nothing was written: certainly not stored
    │   ├── Nacked                  refused (queue full): not stored
    │   ├── Unroutable              returned: stored nowhere
    │   └── InDoubt                 perhaps stored: only the same task id may be published again
    └── TaskError                   raised by handlers
        ├── PermanentError          dead-letter queue at once
        │   └── Cancelled           the handler stopped, as its task was asked to
        ├── RetryableError          next rung of the ladder, an attempt is used up
        └── Throttled               a rung, no attempt is used up (bounded by the task's deadline)

The docstring of an exception states what to do and is its default message.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """Why a server can't be used now. Two are the same when an operator would do the same about them."""

    server: str  #: ``RabbitMQ`` or ``Redis``
    reason: str  #: for anyone: names no host, user, vhost or key
    where: str = ""  #: for operators: address, user, vhost or database; no password
    detail: str = dataclasses.field(default="", compare=False)  #: for operators: the words of the server or the library
    refuses: bool = False  #: there is a connection, over which commands are refused

    @property
    def public(self) -> str:
        """What anyone may read."""
        return f"{self.server}: {self.reason}"

    def __str__(self) -> str:
        at = f" at {self.where}" if self.where else ""
        return f"{self.server}{at}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class DispatchError(Exception):
    """An error of Robot Dispatch."""

    trouble: Trouble | None = None  #: why a server can't be used, where that is the reason

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class ConfigurationError(DispatchError):
    """The settings are invalid: correct every problem listed, then start again."""


class StoreError(DispatchError):
    """Redis could not execute a command."""


class StoreUnavailable(StoreError):
    """Redis did not respond in time: the outcome of a write is unknown, repeat it.

    Args:
        message: the reason of `trouble` by default, which names no host: the text may become part of a record.
        trouble: why, where it is known.
    """

    def __init__(self, message: str | None = None, trouble: Trouble | None = None) -> None:
        if message is None and trouble is not None:
            message = f"{trouble.public} ({trouble.detail})" if trouble.refuses and trouble.detail else trouble.public
        super().__init__(message)
        self.trouble = trouble


class StoreFull(StoreUnavailable):
    """Redis's memory is full: nothing new is accepted until tasks end or dead letters are discarded."""


class PublishError(DispatchError):
    """RabbitMQ did not confirm the message."""


class NotSent(PublishError):
    """Nothing was written to the broker: the message is stored nowhere, try again later."""


class Nacked(PublishError):
    """The broker refused the message (queue full): it is not stored, try again later."""


class Unroutable(PublishError):
    """The broker returned the message: no queue is bound for it, apply the topology."""


class InDoubt(PublishError):
    """No confirm arrived: the message may be stored, so only the same task id may be published again."""

    task_id: str | None = None  #: of the task in doubt, where known


class TaskError(DispatchError):
    """A handler failed; the subclass that it raises determines what happens next.

    Args:
        message: human-readable; part of the record, the DLQ headers and the API.
        type: short machine-readable name, e.g. ``upstream-timeout``; the class's own by default.
    """

    default_type = "task-error"

    def __init__(self, message: str | None = None, *, type: str | None = None) -> None:
        super().__init__(message)
        self.type = type or self.default_type


class PermanentError(TaskError):
    """Another attempt cannot succeed: the task is dead-lettered at once."""

    default_type = "permanent"


class Cancelled(PermanentError):
    """The handler has stopped because its task was cancelled: the task ends CANCELLED; without such a request, as any permanent error."""

    default_type = "cancelled"


class RetryableError(TaskError):
    """Another attempt may succeed: the task moves to the next rung of the ladder.

    Args:
        retry_after: seconds that the upstream asked to wait; selects the first rung that is long enough.
            Beyond the longest rung the task waits on that one and no attempt is used up.
    """

    default_type = "retryable"

    def __init__(
        self, message: str | None = None, *, type: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, type=type)
        self.retry_after = retry_after


class Throttled(RetryableError):
    """The upstream is busy: the task waits on a rung without using up an attempt."""

    default_type = "throttled"
