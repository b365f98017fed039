"""Metrics of runs, and the line of those that went well: the worker's main process sees the end of every delivery."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Terminated

from dispatch.protocol import names
from dispatch.protocol.message import ACCEPTED_AT, QUEUED_AT, TRACEPARENT, Message
from dispatch.protocol.retry import AttemptFailed, Dead, Decision, Failure, FailureKind, Retry
from dispatch.store.claims import ClaimAnswer
from dispatch.telemetry import logs, metrics, tracing
from dispatch.worker.outcomes import ClaimUnanswered, DecidedBefore, Foreign, LeaseTaken, MayNotRun, NothingToDo

#: Failures that are outcomes of their own, whatever is decided about them.
_LOST = ("worker-lost", "time-limit")

#: Celery's exceptions for a child that is gone.
CHILD_GONE = (WorkerLostError, TimeLimitExceeded, Terminated)


#: Seconds before the hard limit at which recording the result gives up.
GIVE_UP = 5.0

_SUCCEEDED = logs.FrequentLine("dispatch.task", "task succeeded")
_FAILED = logs.FrequentLine("dispatch.task", "attempt failed", "warning")

_OUTCOMES = ("succeeded", "waited", "retried", "parked", "dead", "cancelled", *_LOST)


def create_series(rungs: Iterable[str]) -> None:
    """Create every series at 0: rate() cannot see the jump from absent to 1.

    Args:
        rungs: the names of all rungs.
    """
    rungs = tuple(rungs)
    for name in metrics.known_types():
        for outcome in _OUTCOMES:
            metrics.ATTEMPTS.initialise(name, outcome)
        for rung in rungs:
            metrics.RETRIES.initialise(name, rung)
        metrics.SIGNAL_WAITS.initialise(name)
        metrics.DURATION.initialise(name)
        metrics.QUEUE_TIME.initialise(name)
    for answer in (*ClaimAnswer, "UNKNOWN"):
        metrics.CLAIMS.initialise(str(answer))
    for reason in metrics.DEAD_REASONS:
        metrics.DEAD_LETTERS.initialise(reason)
    for action in ("rejected", "published", "resent", "lost"):
        metrics.SWEEPS.initialise(action)
    for instrument in (metrics.LEASES_LOST, metrics.IN_FLIGHT, metrics.RUNAWAYS, metrics.CONFIRM, metrics.AUDIT_LOST):
        instrument.initialise()


class Run:
    """One delivery that a child runs.

    Args:
        message: the copy.
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        self._type = metrics.type_label(message.type)
        self.began = time.time()  #: epoch seconds
        self._since = 0.0  # of `time.monotonic`
        self._counted = False

    def begin(self) -> None:
        """A child has it."""
        self.began, self._since, self._counted = time.time(), time.monotonic(), False

    @property
    def seconds(self) -> float:
        """How long a child has had it; 0 before."""
        return time.monotonic() - self._since if self._since else 0.0

    def until(self, time_limit: float) -> float:
        """When recording the result gives up, by `time.monotonic`.

        Args:
            time_limit: seconds of a run.
        """
        return (self._since or time.monotonic()) + time_limit - GIVE_UP

    def succeeded(self) -> None:
        """Its success is recorded; only the first call for a run counts."""
        if not self._counted:
            self._ended(ClaimAnswer.RUN.value)
            metrics.ATTEMPTS.inc(self._type, "succeeded")

    def failed(self, error: object, fence: str) -> None:
        """It ended in something else.

        Args:
            error: what.
            fence: the run's, which is its span's id.
        """
        if self._counted:
            return
        if isinstance(error, CHILD_GONE):  # and the run's span with it
            tracing.record(
                f"run/{self._message.type}", self.began, time.time(), kind="consumer", span_id=fence,
                parent=self._message.text(TRACEPARENT), failed=type(error).__name__,
                attributes=tracing.messaging("process", self._message, names.WORK_QUEUE),
            )  # fmt: skip
        answer = claim_answer(error)
        if answer == ClaimAnswer.RUN.value:
            self._ended(answer)
        else:
            self._counted = True
            metrics.CLAIMS.inc(answer)

    def handed_over(self, failure: Failure, decision: Decision | None) -> None:
        """The failed attempt's next copy is confirmed; or, without a decision, the task has ended as cancelled."""
        if decision is None:
            metrics.ATTEMPTS.inc(self._type, "cancelled")
            return
        outcome = "dead" if isinstance(decision, Dead) else "retried" if isinstance(decision, Retry) else "parked"
        metrics.ATTEMPTS.inc(self._type, failure.type if failure.type in _LOST else outcome)
        if not isinstance(decision, Dead):
            metrics.RETRIES.inc(self._type, decision.rung.name)

    def waited(self, until: Collection[str]) -> None:
        """The next step's copy is confirmed.

        Args:
            until: the signals that end the wait early.
        """
        metrics.ATTEMPTS.inc(self._type, "waited")
        if until:
            metrics.SIGNAL_WAITS.inc(self._type)

    def _ended(self, answer: str) -> None:
        self._counted = True
        metrics.CLAIMS.inc(answer)
        trace = tracing.exemplar(self._message.text(TRACEPARENT))
        metrics.DURATION.observe(time.time() - self.began, self._type, trace=trace)
        since = queued_since(self._message)
        if since is not None:
            metrics.QUEUE_TIME.observe(self.began - since, self._type, trace=trace)


def log_success(message: Message, seconds: float, fence: str) -> None:
    """The one line of a run that went well; of its fields only the request id is anything that a client chose.

    Args:
        message: the copy.
        seconds: how long it took.
        fence: the run's, which is its span's id where there is one.
    """
    fields = logs.task_fields(message)
    if tracing.enabled():
        fields["span_id"] = fence
    fields["request_id"] = logs.shortened(fields["request_id"] or "") or None
    _SUCCEEDED.write({"seconds": round(seconds, 6), **fields})


def log_failure(message: Message, failure: Failure, *, decided: str, queue: str) -> None:
    """The line of an attempt that failed.

    Args:
        message: the copy.
        failure: how it failed.
        decided: what happens next.
        queue: that of the next copy.
    """
    fields = {
        **logs.task_fields(message),
        "error_type": failure.type,
        "error": failure.message,
        "decided": decided,
        "queue": queue,
    }
    _FAILED.write({name: logs.shortened(value) if isinstance(value, str) else value for name, value in fields.items()})


_ANSWERS: dict[type, str] = {
    ClaimUnanswered: "UNKNOWN",
    LeaseTaken: ClaimAnswer.BUSY.value,
    DecidedBefore: ClaimAnswer.ROUTE.value,
    Foreign: ClaimAnswer.FOREIGN.value,
    MayNotRun: "HELD",
}


def claim_answer(error: object) -> str:
    """The claim's answer to a run that ended in an error."""
    match error:
        case ClaimUnanswered() | LeaseTaken() | DecidedBefore() | Foreign() | MayNotRun():
            return _ANSWERS[type(error)]
        case NothingToDo():
            return str(error.args[0])
        case AttemptFailed() if error.failure.type == "worker-lost":
            return ClaimAnswer.LOST.value
        case AttemptFailed() if error.failure.kind is FailureKind.OVERDUE:
            return ClaimAnswer.OVERDUE.value
        case _:
            return ClaimAnswer.RUN.value


def queued_since(message: Message) -> float | None:
    """Epoch seconds since when a copy can have been in the work queue; None when its headers have no time."""
    millis = message.moment(QUEUED_AT) or message.moment(ACCEPTED_AT)
    return millis / 1_000 if millis else None
