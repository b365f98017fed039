"""A run on its way to the task's next copy: what was decided, the step that records it, and how far it is."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import time
from typing import Any, ClassVar

from dispatch.protocol import names
from dispatch.protocol.copies import next_copy, parked_copy, step_copy
from dispatch.protocol.message import TRACEPARENT, Copy, Message
from dispatch.protocol.retry import Dead, Decision, Failure
from dispatch.protocol.sealing import Sealing
from dispatch.protocol.waits import AskedWait
from dispatch.store.claims import Ticket
from dispatch.store.handovers import Decided, DecisionAnswer, EndedStep, FailedAttempt, NextStep, RunEnd
from dispatch.telemetry import task_log, tracing


def describe(decision: Decision) -> str:
    """A decision in log lines and spans, e.g. ``retry 5m``."""
    if isinstance(decision, Dead):
        return f"dead: {decision.reason}"
    return f"{type(decision).__name__.lower()} {decision.rung.name}"


class HandOver(abc.ABC):
    """A run's end, until the task's next copy is confirmed and handed over; `transition` is the script that records it.

    Args:
        message: the copy that ran.
        ticket: the run's identity.
        attempts: that its ladder allows, for a record that has to be rebuilt.
        sealing: of what records and copies keep.
        decided: what happens next, for people.
        details: more for its span.
    """

    transition: ClassVar[str]

    def __init__(
        self, message: Message, ticket: Ticket, attempts: int, sealing: Sealing, decided: str, **details: Any
    ) -> None:
        self.message = message
        self.ticket = ticket
        self.copy: Copy | None = None  #: the next one, once it is decided
        self.cancelled = False  #: the task has ended in its place: it was cancelled
        self.through = False  #: nothing is left to do
        self.counted = False  #: its caller has counted it
        self._attempts = attempts
        self._sealing = sealing
        self._decided = decided
        self._error = {"error_type": details["error"]} if "error" in details else {}
        attributes = tracing.messaging("settle", message, names.WORK_QUEUE, **details, decided=decided)
        self._span = tracing.begin(
            f"route {message.type}",
            parent=tracing.sibling(message.text(TRACEPARENT), ticket.fence),
            attributes=attributes,
        )

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Make its span the current one."""
        return self._span.active()

    @property
    def traceparent(self) -> str | None:
        """Its span's; None without traces."""
        return self._span.traceparent

    @abc.abstractmethod
    def end(self) -> RunEnd:
        """How the run ended, with the next copy, made now; for the thread whose current span is its own."""

    def take(self, decided: Decided) -> None:
        """What was recorded: the next copy, the parked one where another run has taken over, or the task's end."""
        if decided.answer is DecisionAnswer.CANCELLED:
            self.cancelled = True
        else:
            self.copy = decided.copy or parked_copy(self.message)

    @property
    def recorded(self) -> bool:
        """Whether Redis has what was decided."""
        return self.cancelled or self.copy is not None

    def finish(self) -> None:
        """Nothing is left to do."""
        self.through = True
        self._span.end()
        decided = "cancelled" if self.copy is None else self._decided
        queue = self.copy and self.copy.queue
        task_log(self.message).debug("attempt handed over", **self._error, decided=decided, queue=queue)

    def _stamped(self, copy: Copy) -> Copy:
        return dataclasses.replace(copy, message=tracing.stamped(copy.message, self.ticket.fence))


class FailedHandOver(HandOver):
    """That of a failed attempt.

    Args:
        message: the copy that failed.
        ticket: the run's identity.
        attempts: as of `HandOver`.
        sealing: the same.
        failure: how it failed.
        decision: what happens next.
    """

    transition = "decide"

    def __init__(
        self,
        message: Message,
        ticket: Ticket,
        attempts: int,
        sealing: Sealing,
        *,
        failure: Failure,
        decision: Decision,
    ) -> None:
        super().__init__(message, ticket, attempts, sealing, describe(decision), error=failure.type)
        self.failure = failure
        self.decision = decision

    @property
    def final(self) -> bool:
        """Whether it ends in the DLQ."""
        return isinstance(self.decision, Dead)

    def end(self) -> FailedAttempt:
        """As of `HandOver`."""
        like = self._sealing.error_fingerprint(self.failure.message)
        failure = dataclasses.replace(self.failure, message=self._sealing.seal_error(self.failure.message))
        now = int(time.time() * 1_000)
        copy = self._stamped(next_copy(self.message, failure, self.decision, now, error_fingerprint=like))
        return FailedAttempt(self.message, self.ticket, copy, failure, self.decision, self._attempts)


class WaitingHandOver(HandOver):
    """That of a step which ended in a wait.

    Args:
        message: the copy of the step.
        ticket: the run's identity.
        attempts: as of `HandOver`.
        sealing: the same.
        asked: what the handler asked for.
        seconds: the wait as the delay levels can keep it.
    """

    transition = "wait"

    def __init__(
        self, message: Message, ticket: Ticket, attempts: int, sealing: Sealing, *, asked: AskedWait, seconds: int
    ) -> None:
        super().__init__(message, ticket, attempts, sealing, f"wait {seconds} s")
        self._asked = asked
        self._seconds = seconds

    def end(self) -> EndedStep:
        """As of `HandOver`."""
        asked, now = self._asked, int(time.time() * 1_000)
        checkpoint = None if asked.state is None else self._sealing.seal_text(asked.state)
        attempt = self.message.attempt if asked.same_attempt else 1
        copy, early = (
            self._stamped(step_copy(self.message, checkpoint, delay, now, attempt=attempt))
            for delay in (self._seconds, 0)
        )
        return EndedStep(self.message, self.ticket, NextStep(copy, asked.until, early), self._attempts)
