"""The router carries out what follows a run: record the decision → publish the next copy, confirmed → hand over → ack.

A hand-over keeps its message in hand and tries again while Redis or RabbitMQ is away; it never requeues for that and
never runs the handler again.

Crash windows: see `dispatch.store.handovers`; every one leaves the message unacked, so a copy too many, never one too few.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from dispatch.broker.publisher import Publisher
from dispatch.crashpoints import reach
from dispatch.errors import StoreError
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy, next_copy, parked_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import ACCEPTED_AT, TRACEPARENT, Copy, Message
from dispatch.protocol.retry import Dead, Decision, Failure, decide
from dispatch.store.claims import Claims, Ticket
from dispatch.store.handovers import DecisionAnswer, Handovers
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logger, metrics, task_log, tracing
from dispatch.worker.executor import RetryingExecutor
from dispatch.worker.leases import Leases
from dispatch.worker.loop import LoopBridge

log = logger(__name__)


class Router:
    """Carries decisions out. One for each worker's main process.

    Args:
        claims: releases leases.
        handovers: records decisions.
        publisher: may write to the retry exchange and the dead-letter exchange.
        leases: renews those of the deliveries in hand.
        ladders: of the task types.
        executor: runs what blocks.
        loop: where acks are written.
        deadline: seconds after acceptance during which a task may wait without using up attempts.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        handovers: Handovers,
        publisher: Publisher,
        leases: Leases,
        ladders: Ladders,
        executor: RetryingExecutor,
        loop: LoopBridge,
        deadline: float,
    ) -> None:
        self._claims = claims
        self._handovers = handovers
        self._publisher = publisher
        self._executor = executor
        self._deadline = deadline
        self.leases = leases
        self.ladders = ladders
        self.loop = loop

    def start(self) -> None:
        """Start threads and connections."""
        self._publisher.start()
        self._executor.start()
        self.leases.start()

    def stop(self) -> None:
        """Stop; messages whose hand-over is not done stay unacked and are delivered again."""
        self._executor.stop()
        self.leases.stop()
        self._publisher.close()

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job on another thread, tried again through outages."""
        self._executor.submit(job)

    # --- jobs (on a thread of the executor) ---------------------------------------------------------
    def decide(self, message: Message, ticket: Ticket, failure: Failure) -> HandOver:
        """Decide a failed attempt; the hand-over is called until its next copy is confirmed."""
        accepted = message.number(ACCEPTED_AT) / 1_000 or time.time()
        ladder = self.ladders.of(message.type)
        decision = decide(failure, message.attempt, ladder, accepted + self._deadline, time.time())
        return HandOver(self, message, ticket, failure, decision)

    def record(self, handover: HandOver) -> Copy:
        """Record a decision.

        Returns:
            The copy to publish; the parked one when another run has taken over.
        """
        message, ticket = handover.message, handover.ticket
        copy = next_copy(message, handover.failure, handover.decision, int(time.time() * 1_000))
        copy = dataclasses.replace(copy, message=tracing.stamped(copy.message, ticket.fence))
        decided = self._handovers.decide(
            message,
            ticket,
            copy,
            handover.failure,
            handover.decision,
            max_attempts=self.ladders.of(message.type).attempts,
        )
        return parked_copy(message) if decided.answer is DecisionAnswer.REFUSED or not decided.copy else decided.copy

    def publish(self, copy: Copy) -> None:
        """Publish a copy, confirmed."""
        metrics.CONFIRM.observe(self._publisher.publish(copy.message, copy.exchange, copy.routing_key))

    def hand_over(self, copy: Copy, owner: str) -> None:
        """Finish a hand-over; the copy is confirmed, so an outage may not hold the ack up."""
        rung = next((rung for rung in self.ladders.whole.rungs if copy.queue == names.rung_queue(rung.name)), None)
        try:
            self._handovers.hand_over(copy, owner=owner, wait=rung.seconds if rung else 0.0)
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
        # Killed between publish and ack, the worker gets it again: the same id lets the janitor remove the second one.
        dead_id = None if is_task_id(message.headers.get("id")) else message.dead_letter_id
        copy = dead_copy(message, reason, error, dead_id=dead_id)

        def job() -> None:
            self.publish(copy)
            self.loop.call(done)

        log.error("poison message dead-lettered", reason=reason, error=error, task_id=copy.message.task_id)
        self.submit(job)


def describe(decision: Decision) -> str:
    """A decision in log lines and spans, e.g. ``retry 5m``."""
    if isinstance(decision, Dead):
        return f"dead: {decision.reason}"
    return f"{type(decision).__name__.lower()} {decision.rung.name}"


class HandOver:
    """A failed attempt on its way to its next copy; called again and again until it is through.

    Args:
        router: does the steps.
        message: the copy that failed.
        ticket: the run's identity.
        failure: how it failed.
        decision: what happens next.
    """

    def __init__(self, router: Router, message: Message, ticket: Ticket, failure: Failure, decision: Decision) -> None:
        self._router = router
        self._copy: Copy | None = None
        self.message = message
        self.ticket = ticket
        self.failure = failure
        self.decision = decision
        attributes = tracing.messaging(
            "settle", message, names.WORK_QUEUE, error=failure.type, decided=describe(decision)
        )
        self._span = tracing.begin(
            f"route {message.type}",
            parent=tracing.sibling(message.text(TRACEPARENT), ticket.fence),
            attributes=attributes,
        )

    @property
    def final(self) -> bool:
        """Whether it ends in the DLQ."""
        return isinstance(self.decision, Dead)

    def __call__(self) -> None:
        """Go on from where the last try ended.

        Raises:
            StoreUnavailable: the decision may not be recorded.
            PublishError: the copy may not be stored; it is sent again, and extra copies are fenced.
        """
        with self._span.active():
            if self._copy is None:
                self._copy = self._router.record(self)
                reach("route.decided")
            self._router.publish(self._copy)
            reach("route.published")
            self._router.hand_over(self._copy, self.ticket.owner)
            reach("route.handed-over")
        self._span.end()
        task_log(self.message).info(
            "attempt handed over",
            error_type=self.failure.type,
            decided=describe(self.decision),
            queue=self._copy.queue,
        )
