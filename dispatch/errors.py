"""What can go wrong, split by what the caller must do about it.

::

    DispatchError
    ├── ConfigurationError          mend the environment; nothing has started
    ├── StoreError
    │   └── StoreUnavailable        Redis did not answer: the outcome of a write is unknown
    ├── PublishError                RabbitMQ did not confirm a message
    │   ├── NotSent                 nothing was written: provably never stored
    │   ├── Nacked                  refused (queue full): not stored
    │   ├── Unroutable              returned: stored nowhere
    │   └── InDoubt                 perhaps stored: only the same task id may be sent again
    └── TaskError                   what a handler raises
        ├── PermanentError          dead-letter queue at once
        ├── RetryableError          next rung of the ladder, an attempt is used up
        └── Throttled               a rung, no attempt is used up (bounded by the task's deadline)

An exception's docstring tells its reader what to do and is its default message.
"""

from __future__ import annotations


class DispatchError(Exception):
    """Something went wrong in Robot Dispatch."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class ConfigurationError(DispatchError):
    """The settings are wrong: mend every problem listed, then start again."""


class StoreError(DispatchError):
    """Redis could not do what was asked."""


class StoreUnavailable(StoreError):
    """Redis did not answer in time: the outcome of a write is unknown, repeat it."""


class PublishError(DispatchError):
    """RabbitMQ did not confirm the message."""


class NotSent(PublishError):
    """Nothing was written to the broker: the message is stored nowhere, try again later."""


class Nacked(PublishError):
    """The broker refused the message (queue full): it is not stored, try again later."""


class Unroutable(PublishError):
    """The broker returned the message: no queue is bound for it, apply the topology."""


class InDoubt(PublishError):
    """No verdict came: the message may be stored, so only the same task id may be sent again."""

    task_id: str | None = None  #: of the task that is in doubt, where it is known


class TaskError(DispatchError):
    """A handler could not do its work; raise one of its subclasses to say what to do next.

    Args:
        message: for people; ends in the record, the DLQ headers and the API.
        type: short machine-readable name, e.g. ``upstream-timeout``; the class's own by default.
    """

    default_type = "task-error"

    def __init__(self, message: str | None = None, *, type: str | None = None) -> None:
        super().__init__(message)
        self.type = type or self.default_type


class PermanentError(TaskError):
    """Trying again can't help: the task goes to the dead-letter queue at once."""

    default_type = "permanent"


class RetryableError(TaskError):
    """Trying again may help: the task climbs the ladder.

    Args:
        retry_after: seconds the other side asked us to wait; picks the first rung long enough.
            Beyond the longest rung the task waits on that one and no attempt is used up.
    """

    default_type = "retryable"

    def __init__(
        self, message: str | None = None, *, type: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, type=type)
        self.retry_after = retry_after


class Throttled(RetryableError):
    """The other side is busy: wait on a rung without using up an attempt."""

    default_type = "throttled"
