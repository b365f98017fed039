"""How a delivery ends in the main process other than by a success.

Exceptions, since that is the one channel from child to main that keeps its structure; what a child reports carries plain
values only, so that it survives pickling. A failed attempt is a `dispatch.protocol.retry.AttemptFailed`.
"""

from __future__ import annotations

import traceback

from billiard.einfo import ExceptionInfo
from celery.exceptions import Ignore

from dispatch.errors import PermanentError, RetryableError, StoreError, TaskError, Throttled
from dispatch.protocol.concurrency import Limit
from dispatch.protocol.message import MAX_ERROR, MAX_ERROR_TYPE, MAX_TRACEBACK, Copy
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.protocol.waits import AskedWait
from dispatch.store.claims import ClaimAnswer, Claimed

#: Fields of Celery's request in which the main process passes a delivery's identity to a child; never on the wire.
OWNER, FENCE, WIRE = "dispatch-owner", "dispatch-fence", "dispatch-wire"

#: The field in which a pool of threads passes the `dispatch.worker.limits.RunLimits` of a run.
LIMITS = "dispatch-limits"

#: The field in which a child's runner leaves the JSON of a result that the main process is to record: a list of one.
RESULT = "dispatch-result"


class Outcome(Ignore):
    """Celery's tracer must not judge it: the main process decides."""


class ClaimUnanswered(Outcome):
    """Redis did not answer the claim: hold the delivery and try again later, never run unclaimed."""


class LeaseTaken(Outcome):
    """Another delivery holds the lease or has taken over: park the copy on the lease queue."""


class MayNotRun(Outcome):
    """The copy may not run yet: the hold queue takes it. Its argument is a pause's name, the key that others hold, or the used-up rate."""

    @property
    def held_by(self) -> str:
        """As the task shows it."""
        return str(self.args[0]) if self.key is None else self.key.held_by

    @property
    def key(self) -> Limit | None:
        """The key or the rate; None for a pause."""
        return self.args[0] if isinstance(self.args[0], Limit) else None


class NothingToDo(Outcome):
    """The copy is done, cancelled or stale: ack it. Its argument is the claim's answer."""

    @property
    def ended(self) -> bool:
        """Whether the copy's task has ended."""
        return self.args[0] in (ClaimAnswer.DONE.value, ClaimAnswer.CANCELLED.value)


class Foreign(Outcome):
    """The copy claims more than its record allows: nothing of ours wrote it. The DLQ takes it as it came."""


class DecidedBefore(Outcome):
    """The copy failed and was decided before: publish what was decided. Its argument is that `Copy`."""

    @property
    def copy(self) -> Copy:
        """The decided copy."""
        copy: Copy = self.args[0]
        return copy


class StepEnded(Outcome):
    """The handler asked for a wait: hand over to the next step. Its argument is that `AskedWait`."""

    @property
    def wait(self) -> AskedWait:
        """The wait."""
        wait: AskedWait = self.args[0]
        return wait


def outcome_of(answer: Claimed | StoreError, lost_runs: int) -> Outcome | AttemptFailed:
    """What a claim's answer other than RUN stands for.

    Args:
        answer: the answer, or the error that took its place.
        lost_runs: lapsed leases of one attempt before it counts as failed.
    """
    if isinstance(answer, StoreError):
        return ClaimUnanswered(str(answer))
    match answer.answer:
        case ClaimAnswer.LOST | ClaimAnswer.OVERDUE:
            return AttemptFailed.of(_not_run(answer.answer, lost_runs))
        case ClaimAnswer.ROUTE if answer.copy is not None:
            return DecidedBefore(answer.copy)
        case ClaimAnswer.FOREIGN:
            return Foreign()
        case ClaimAnswer.BUSY:
            return LeaseTaken()
        case other:
            return NothingToDo(other.value)


def _not_run(answer: ClaimAnswer, lost_runs: int) -> Failure:
    if answer is ClaimAnswer.OVERDUE:
        text = "its deadline had passed when this attempt could begin"
        return Failure(FailureKind.OVERDUE, "deadline-exceeded", text)
    return Failure(FailureKind.RETRYABLE, "worker-lost", f"the worker was lost {lost_runs} times during this attempt")


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


def reported(error: AttemptFailed) -> ExceptionInfo:
    """What a child reports of a failed attempt: the text of the traceback, made once, and no copies of its frames.

    Billiard's own has each frame with the positions of every byte code, and makes the text of what is pickled once more.
    """
    report = traceback.TracebackException.from_exception(error)
    _without_marks(report)
    text = "".join(report.format())
    if len(text) > MAX_TRACEBACK:  # the log has it, cut
        text = "".join(report.format(chain=False))[-MAX_TRACEBACK:]
    info: ExceptionInfo = ExceptionInfo.__new__(ExceptionInfo)
    info.type, info.exception, info.traceback = type(error), error, text
    error.__traceback__ = error.__cause__ = error.__context__ = None  # all that the handler had
    return info


def _without_marks(report: traceback.TracebackException) -> None:
    """Take away the marks below the part of a line that failed: Python parses each line for them, in half of a failing run's time."""
    chain: list[traceback.TracebackException | None] = [report]
    while chain:
        part = chain.pop()
        if part is not None:
            for frame in part.stack:
                frame.colno = None
            chain += [part.__cause__, part.__context__, *(part.exceptions or ())]


def info_of(error: Exception) -> ExceptionInfo:
    """As `on_failure` takes it; without the frames, which would keep all that the handler had."""
    try:
        raise error  # noqa: TRY301 - billiard takes the one that is being handled
    except Exception:  # noqa: BLE001 - the same
        info = ExceptionInfo(internal=True)
    info.tb = error.__traceback__ = None
    return info
