"""Metrics of runs: the worker's main process sees the end of every delivery."""

from __future__ import annotations

import time
from collections.abc import Iterable

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Terminated

from dispatch.protocol import names
from dispatch.protocol.message import ACCEPTED_AT, QUEUED_AT, TRACEPARENT, Message
from dispatch.protocol.retry import AttemptFailed, Dead, Decision, Failure, Retry
from dispatch.store.claims import ClaimAnswer
from dispatch.telemetry import metrics, tracing
from dispatch.worker.outcomes import ClaimUnanswered, DecidedBefore, LeaseTaken, NothingToDo

#: Failures that are outcomes of their own, whatever is decided about them.
_LOST = ("worker-lost", "time-limit")

#: Celery's exceptions for a child that is gone.
CHILD_GONE = (WorkerLostError, TimeLimitExceeded, Terminated)


_OUTCOMES = ("succeeded", "retried", "parked", "dead", *_LOST)


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
        metrics.DURATION.initialise(name)
        metrics.QUEUE_TIME.initialise(name)
    for answer in (*ClaimAnswer, "UNKNOWN"):
        metrics.CLAIMS.initialise(str(answer))
    for reason in metrics.DEAD_REASONS:
        metrics.DEAD_LETTERS.initialise(reason)
    for action in ("rejected", "published", "resent", "lost"):
        metrics.SWEEPS.initialise(action)
    for instrument in (metrics.LEASES_LOST, metrics.IN_FLIGHT, metrics.CONFIRM):
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
        self._counted = False

    def begin(self) -> None:
        """A child has it."""
        self.began, self._counted = time.time(), False

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

    def handed_over(self, failure: Failure, decision: Decision) -> None:
        """The failed attempt's next copy is confirmed."""
        outcome = "dead" if isinstance(decision, Dead) else "retried" if isinstance(decision, Retry) else "parked"
        metrics.ATTEMPTS.inc(self._type, failure.type if failure.type in _LOST else outcome)
        if not isinstance(decision, Dead):
            metrics.RETRIES.inc(self._type, decision.rung.name)

    def _ended(self, answer: str) -> None:
        self._counted = True
        metrics.CLAIMS.inc(answer)
        trace = tracing.exemplar(self._message.text(TRACEPARENT))
        metrics.DURATION.observe(time.time() - self.began, self._type, trace=trace)
        since = queued_since(self._message)
        if since is not None:
            metrics.QUEUE_TIME.observe(self.began - since, self._type, trace=trace)


def claim_answer(error: object) -> str:
    """The claim's answer to a run that ended in an error."""
    match error:
        case ClaimUnanswered():
            return "UNKNOWN"
        case LeaseTaken():
            return ClaimAnswer.BUSY.value
        case DecidedBefore():
            return ClaimAnswer.ROUTE.value
        case NothingToDo():
            return str(error.args[0])
        case AttemptFailed() if error.failure.type == "worker-lost":
            return ClaimAnswer.LOST.value
        case _:
            return ClaimAnswer.RUN.value


def queued_since(message: Message) -> float | None:
    """Epoch seconds since when a copy can have been in the work queue; None when its headers have no time."""
    millis = message.number(QUEUED_AT) or message.number(ACCEPTED_AT)
    return millis / 1_000 if millis else None
