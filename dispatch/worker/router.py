"""The router carries out what follows a run: record the decision → publish the next copy, confirmed → hand over → ack.

A hand-over keeps its message in hand and tries again while Redis or RabbitMQ is away; it never requeues for that and
never runs the handler again.

Crash windows: see `dispatch.store.handovers`; every one leaves the message unacked, so a copy too many, never one too few.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from dispatch.broker.publisher import Publisher
from dispatch.crashpoints import reach
from dispatch.errors import Nacked, StoreError
from dispatch.protocol import delays, names
from dispatch.protocol.copies import dead_copy, next_copy, parked_copy, step_copy, wait_of
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import TRACEPARENT, Copy, Message
from dispatch.protocol.retry import Dead, Decision, Failure, decide
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.protocol.waits import SLACK, AskedWait
from dispatch.store.claims import Claims, Ticket
from dispatch.store.handovers import Decided, DecisionAnswer, Handovers, NextStep
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logger, metrics, task_log, tracing
from dispatch.worker.batcher import Batcher
from dispatch.worker.executor import RetryingExecutor
from dispatch.worker.leases import Leases
from dispatch.worker.loop import LoopBridge
from dispatch.worker.pace import Pace

log = logger(__name__)


class Router:
    """Carries decisions out. One for each worker's main process.

    Args:
        claims: releases leases.
        handovers: records decisions.
        publisher: may write to the retry exchange and the dead-letter exchange.
        later: may write to the delay levels and the task exchange; without them, or without the right to them, the broker ends its
            connection.
        batcher: claims and completes.
        pace: how long runs take.
        leases: renews those of the deliveries in hand.
        ladders: of the task types.
        executor: runs what blocks.
        loop: where acks are written.
        deadline: seconds after acceptance, the later time that it was submitted for, or the wait before its step, during which a task may
            wait without using up attempts.
        lost_runs: lapsed leases of one attempt before it counts as failed.
        longest_wait: seconds that the delay levels hold a copy.
        cancel_grace: seconds that a handler has to end after its task was cancelled.
        sealing: of errors, which may quote a payload, and of the state that a wait leaves.
        clock: the time by which deadlines go, epoch seconds.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        handovers: Handovers,
        publisher: Publisher,
        later: Publisher,
        batcher: Batcher,
        pace: Pace,
        leases: Leases,
        ladders: Ladders,
        executor: RetryingExecutor,
        loop: LoopBridge,
        deadline: float,
        lost_runs: int,
        cancel_grace: float,
        longest_wait: int = 0,
        sealing: Sealing = UNSEALED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._claims = claims
        self._handovers = handovers
        self._publisher = publisher
        self._later = later
        self._executor = executor
        self._deadline = deadline
        self._longest_wait = longest_wait
        self.batcher = batcher
        self.pace = pace
        self.lost_runs = lost_runs
        self.cancel_grace = cancel_grace
        self.leases = leases
        self.ladders = ladders
        self.loop = loop
        self.sealing = sealing

    def start(self) -> None:
        """Start threads and connections."""
        self._publisher.start()
        self._executor.start()
        self.batcher.start()
        self.leases.start()

    def stop(self) -> None:
        """Stop; messages whose hand-over is not done stay unacked and are delivered again."""
        self._executor.stop()
        self.batcher.stop()
        self.leases.stop()
        self._publisher.close()
        self._later.close()

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job on another thread, tried again through outages."""
        self._executor.submit(job)

    @property
    def idle(self) -> bool:
        """Whether Redis has answered everything, and every hand-over is through; what follows may still wait for the loop."""
        return self.batcher.idle and self._executor.idle

    def settle(self, seconds: float | None) -> None:
        """In a worker that ends, whose loop calls nothing any more: wait until Redis has answered, and go on from there.

        Args:
            seconds: to wait at most; None: as long as a run may take.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        self.batcher.kick()
        while not self.batcher.idle and time.monotonic() < until:
            self.batcher.wait(0.1)
            self.loop.run()
        self.loop.run()

    # --- jobs (on a thread of the executor) ---------------------------------------------------------
    def decide(self, message: Message, ticket: Ticket, failure: Failure) -> FailedHandOver:
        """Decide a failed attempt; the hand-over is called until its next copy is confirmed."""
        now = self._clock()
        accepted = message.step_due_at / 1_000 or now
        ladder = self.ladders.of(message.type)
        expires = message.deadline_at / 1_000 or math.inf
        decision = decide(failure, message.attempt, ladder, accepted + self._deadline, now, expires=expires)
        task_log(message).warning(
            "attempt failed",
            error_type=failure.type,
            error=failure.message,
            decided=describe(decision),
            queue=names.DEAD_QUEUE if isinstance(decision, Dead) else names.rung_queue(decision.rung.name),
        )
        return FailedHandOver(self, message, ticket, failure, decision)

    def wait(self, message: Message, ticket: Ticket, asked: AskedWait) -> WaitingHandOver:
        """Hand a step over to the next one, after a wait."""
        seconds = delays.whole_seconds(max(1.0, asked.seconds), SLACK, self._longest_wait)
        if message.deadline_at:  # nothing begins later: the task ends then, and not at the end of its wait
            seconds = min(seconds, max(1, math.ceil(message.deadline_at / 1_000 - self._clock()) + 1))
        task_log(message).info("task waits", seconds=seconds, step=message.step + 1, signals=list(asked.until) or None)
        return WaitingHandOver(self, message, ticket, asked, seconds)

    def record_failure(self, message: Message, ticket: Ticket, failure: Failure, decision: Decision) -> Copy | None:
        """Record a decision.

        Returns:
            The copy to publish; the parked one when another run has taken over; None when the task is CANCELLED.
        """
        like = self.sealing.error_fingerprint(failure.message)
        failure = dataclasses.replace(failure, message=self.sealing.seal_error(failure.message))
        now = int(time.time() * 1_000)
        copy = _stamped(next_copy(message, failure, decision, now, error_fingerprint=like), ticket)
        attempts = self.ladders.of(message.type).attempts
        return _published(
            message, self._handovers.decide(message, ticket, copy, failure, decision, max_attempts=attempts)
        )

    def record_wait(self, message: Message, ticket: Ticket, asked: AskedWait, seconds: int) -> Copy | None:
        """Record a wait; returns as `record_failure`."""
        checkpoint = None if asked.state is None else self.sealing.seal_text(asked.state)
        now, attempts = int(time.time() * 1_000), self.ladders.of(message.type).attempts
        attempt = message.attempt if asked.same_attempt else 1
        copies = [step_copy(message, checkpoint, delay, now, attempt=attempt) for delay in (seconds, 0)]
        copy, early = (_stamped(each, ticket) for each in copies)
        step = NextStep(copy, asked.until, early)
        decided = self._handovers.wait(message, ticket, step, max_attempts=attempts)
        return _published(message, decided)

    def publish(self, copy: Copy) -> None:
        """Publish a copy, confirmed. One that the full work queue refuses waits in the lease queue, and comes from there when there is room.

        Room comes of acks. Copies that wait for it in workers' hands, each with an unacked one, would keep the queue full for ever.

        Raises:
            PublishError: it may not be stored.
        """
        try:
            self._publish(copy)
        except Nacked:
            if copy.exchange != names.TASK_EXCHANGE:
                raise
            task_log(copy.message).warning("the work queue is full: the next copy waits in the lease queue")
            self._publish(parked_copy(copy.message))

    def _publish(self, copy: Copy) -> None:
        ours = (names.RETRY_EXCHANGE, names.DEAD_EXCHANGE)  # what the workers' own user may write to
        publisher = self._publisher if copy.exchange in ours else self._later
        metrics.CONFIRM.observe(publisher.publish(copy.message, copy.exchange, copy.routing_key))

    def hand_over(self, copy: Copy, owner: str) -> None:
        """Finish a hand-over; the copy is confirmed, so an outage may not hold the ack up."""
        try:
            self._handovers.hand_over(copy, owner=owner, wait=wait_of(copy, self.ladders.whole))
        except StoreError as exc:
            task_log(copy.message).warning("hand-over not recorded; the copy's claim mends it", reason=str(exc))

    def release(self, message: Message, ticket: Ticket, queue: str) -> None:
        """Give back the lease of a run that was stopped on purpose."""
        try:
            self._claims.release(message, ticket, queue)
        except StoreError as exc:
            task_log(message).warning("lease not released; it lapses", reason=str(exc))
        finally:
            self.leases.drop(ticket)

    def dead_letter(self, message: Message, reason: Reason, error: str, done: Callable[[], None]) -> None:
        """Send a message that no handler can run to the DLQ, as it came, then call ``done`` on the loop."""
        publish = self.dead_lettering(message, reason, error)

        def job() -> None:
            publish()
            self.loop.call(done)

        self.submit(job)

    def dead_lettering(self, message: Message, reason: Reason, error: str) -> Callable[[], None]:
        """The job that sends a message to the DLQ as it came, with the signature that it has."""
        # Killed between publish and ack, the worker gets it again: the same id lets the janitor remove the second one.
        dead_id = None if is_task_id(message.headers.get("id")) else message.dead_letter_id
        copy = dead_copy(message, reason, error, dead_id=dead_id)

        def job() -> None:
            self._publisher.publish_as_it_came(copy.message, copy.exchange, copy.routing_key)

        log.error("poison message dead-lettered", reason=reason, error=error, task_id=copy.message.task_id)
        return job


def describe(decision: Decision) -> str:
    """A decision in log lines and spans, e.g. ``retry 5m``."""
    if isinstance(decision, Dead):
        return f"dead: {decision.reason}"
    return f"{type(decision).__name__.lower()} {decision.rung.name}"


def _stamped(copy: Copy, ticket: Ticket) -> Copy:
    return dataclasses.replace(copy, message=tracing.stamped(copy.message, ticket.fence))


def _published(message: Message, decided: Decided) -> Copy | None:
    """The copy to publish; the parked one when another run has taken over; None when the task is CANCELLED."""
    if decided.answer is DecisionAnswer.CANCELLED:
        return None
    return parked_copy(message) if decided.answer is DecisionAnswer.REFUSED or not decided.copy else decided.copy


class HandOver(abc.ABC):
    """A run on its way to the task's next copy; called again and again until it is through.

    Args:
        router: does the steps.
        message: the copy that ran.
        ticket: the run's identity.
        decided: what happens next, for people.
        details: more for its span.
    """

    def __init__(self, router: Router, message: Message, ticket: Ticket, decided: str, **details: Any) -> None:
        self._router = router
        self._copy: Copy | None = None
        self._decided = decided
        self._error = {"error_type": details["error"]} if "error" in details else {}
        self.cancelled = False  #: the task has ended: it was cancelled
        self.message = message
        self.ticket = ticket
        attributes = tracing.messaging("settle", message, names.WORK_QUEUE, **details, decided=decided)
        self._span = tracing.begin(
            f"route {message.type}",
            parent=tracing.sibling(message.text(TRACEPARENT), ticket.fence),
            attributes=attributes,
        )

    @property
    def copy(self) -> Copy | None:
        """The next copy, once it is decided."""
        return self._copy

    @abc.abstractmethod
    def record(self) -> Copy | None:
        """Record what was decided.

        Returns:
            The copy to publish; None when the task is CANCELLED.
        """

    def __call__(self) -> None:
        """Go on from where the last try ended.

        Raises:
            StoreUnavailable: the decision may not be recorded.
            PublishError: the copy may not be stored; it is sent again, and extra copies are fenced.
        """
        with self._span.active():
            if self._copy is None:
                self._copy = self.record()
                reach("route.decided")
            self.cancelled = self._copy is None
            if self._copy is not None:
                self._router.publish(self._copy)
                reach("route.published")
                self._router.hand_over(self._copy, self.ticket.owner)
                reach("route.handed-over")
        self._span.end()
        decided = "cancelled" if self._copy is None else self._decided
        queue = self._copy and self._copy.queue
        task_log(self.message).debug("attempt handed over", **self._error, decided=decided, queue=queue)


class FailedHandOver(HandOver):
    """That of a failed attempt.

    Args:
        router: does the steps.
        message: the copy that failed.
        ticket: the run's identity.
        failure: how it failed.
        decision: what happens next.
    """

    def __init__(self, router: Router, message: Message, ticket: Ticket, failure: Failure, decision: Decision) -> None:
        super().__init__(router, message, ticket, describe(decision), error=failure.type)
        self.failure = failure
        self.decision = decision

    @property
    def final(self) -> bool:
        """Whether it ends in the DLQ."""
        return isinstance(self.decision, Dead)

    def record(self) -> Copy | None:
        """Record the failed attempt."""
        return self._router.record_failure(self.message, self.ticket, self.failure, self.decision)


class WaitingHandOver(HandOver):
    """That of a step which ended in a wait.

    Args:
        router: does the steps.
        message: the copy of the step.
        ticket: the run's identity.
        asked: what the handler asked for.
        seconds: the wait as the delay levels can keep it.
    """

    def __init__(self, router: Router, message: Message, ticket: Ticket, asked: AskedWait, seconds: int) -> None:
        super().__init__(router, message, ticket, f"wait {seconds} s")
        self._asked = asked
        self._seconds = seconds

    def record(self) -> Copy | None:
        """Record the wait."""
        return self._router.record_wait(self.message, self.ticket, self._asked, self._seconds)
