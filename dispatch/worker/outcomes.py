"""What a worker's child reports to the main process instead of a result.

Exceptions, since that is the one channel from child to main that keeps its structure; each carries plain values
only, so that it survives pickling. A failed attempt is a `dispatch.protocol.retry.AttemptFailed`.
"""

from __future__ import annotations

from celery.exceptions import Ignore

from dispatch.errors import PermanentError, RetryableError, TaskError, Throttled
from dispatch.protocol.message import MAX_ERROR, MAX_ERROR_TYPE, Copy
from dispatch.protocol.retry import Failure, FailureKind

#: Fields of Celery's request in which the main process passes a delivery's identity to a child; never on the wire.
OWNER, FENCE, WIRE = "dispatch-owner", "dispatch-fence", "dispatch-wire"


class Outcome(Ignore):
    """Celery's tracer must not judge it: the main process decides."""


class ClaimUnanswered(Outcome):
    """Redis did not answer the claim: hold the delivery and try again later, never run unclaimed."""


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


def failure_of(error: BaseException) -> Failure:
    """The failure that a handler's exception stands for; unknown exceptions are retryable."""
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
