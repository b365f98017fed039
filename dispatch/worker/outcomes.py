"""What a worker's child hands back to the main process instead of a result.

Exceptions, since that is the one channel from child to main that keeps its structure; each carries plain values
only, so that it survives pickling.
"""

from __future__ import annotations

from celery.exceptions import Ignore

from dispatch.errors import PermanentError, RetryableError, TaskError, Throttled
from dispatch.protocol.message import MAX_ERROR, MAX_ERROR_TYPE, Copy
from dispatch.protocol.retry import Failure, FailureKind

#: Headers in which the main process tells a child whose delivery it runs; never on the wire.
OWNER, FENCE, WIRE = "dispatch-owner", "dispatch-fence", "dispatch-wire"


class Outcome(Ignore):
    """Celery's tracer must not judge it: the main process decides."""


class ClaimUnanswered(Outcome):
    """Redis did not answer at the claim: keep the delivery and try again later, never run unclaimed."""


class LeaseTaken(Outcome):
    """Another delivery holds the lease or has taken over: park the copy on the lease queue."""


class NothingToDo(Outcome):
    """The copy is done, cancelled or stale: ack it. Its argument is the claim's answer."""


class DecidedBefore(Outcome):
    """The copy failed and was decided before: publish what was decided. Its argument is that `Copy` as JSON."""

    @property
    def copy(self) -> Copy:
        """The decided copy."""
        return Copy.from_json(self.args[0])


class AttemptFailed(Exception):
    """An attempt failed; the arguments are the fields of a `Failure`."""

    @classmethod
    def of(cls, failure: Failure) -> AttemptFailed:
        """Wrap a failure for the way to the main process."""
        return cls(failure.kind.value, failure.type, failure.message, failure.retry_after)

    @property
    def failure(self) -> Failure:
        """The failure."""
        kind, type_, message, retry_after = self.args
        return Failure(FailureKind(kind), type_, message, retry_after)

    def __str__(self) -> str:
        return f"{self.args[1]}: {self.args[2]}"


def failure_of(error: BaseException) -> Failure:
    """How an exception that came out of a handler counts: unknown ones are retryable."""
    text = str(error)[:MAX_ERROR]
    name = (error.type if isinstance(error, TaskError) else type(error).__name__)[:MAX_ERROR_TYPE]
    match error:
        case PermanentError():
            return Failure(FailureKind.PERMANENT, name, text)
        case Throttled():
            return Failure(FailureKind.THROTTLED, name, text, error.retry_after)
        case RetryableError():
            return Failure(FailureKind.RETRYABLE, name, text, error.retry_after)
        case TaskError():
            return Failure(FailureKind.RETRYABLE, name, text)
        case _:
            return Failure(FailureKind.RETRYABLE, name, text or name)
