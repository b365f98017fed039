"""The router carries out what follows a run: record the decision → publish the next copy, confirmed → hand over → ack.

A hand-over keeps its message in hand and tries again while Redis or RabbitMQ is away; it never requeues for that and
never runs the handler again.

Crash windows: see `dispatch.store.handovers`; every one leaves the message unacked, so a copy too many, never one too few.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from dispatch.broker.publisher import Publisher
from dispatch.errors import StoreError
from dispatch.protocol import delays, names
from dispatch.protocol.copies import dead_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import Copy, Message
from dispatch.protocol.retry import Dead, Failure, decide
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.protocol.waits import SLACK, AskedWait
from dispatch.store.claims import Claims, Ticket
from dispatch.store.handovers import Handovers
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logger, task_log
from dispatch.worker.batcher import Batcher
from dispatch.worker.executor import RetryingExecutor
from dispatch.worker.handing_over import HandingOver, HandOverBatcher
from dispatch.worker.handover import FailedHandOver, HandOver, WaitingHandOver, describe
from dispatch.worker.leases import Leases
from dispatch.worker.loop import LoopBridge
from dispatch.worker.pace import Pace
from dispatch.worker.run_metrics import log_failure

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
        self._publisher = publisher
        self._later = later
        self._executor = executor
        self._steps = HandingOver(claims, handovers, publisher, later, ladders.whole)
        self._together = HandOverBatcher(self._steps, executor)
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
        self._together.start()
        self.batcher.start()
        self.leases.start()

    def stop(self) -> None:
        """Stop; messages whose hand-over is not done stay unacked and are delivered again."""
        self._together.stop()
        self._executor.stop()
        self.batcher.stop()
        self.leases.stop()
        self._publisher.close()
        self._later.close()

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job on another thread, tried again through outages."""
        self._executor.submit(job)

    def submit_together(self, handover: HandOver, job: Callable[[], None], *, brief: bool) -> None:
        """Carry a hand-over out with those that come at the same time; see `HandOverBatcher.submit`."""
        self._together.submit(handover, job, brief=brief)

    @property
    def idle(self) -> bool:
        """Whether Redis has answered everything, and every hand-over is through; what follows may still wait for the loop."""
        return self.batcher.idle and self._together.idle and self._executor.idle

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

    # --- hand-overs ----------------------------------------------------------------------------------
    def decide(self, message: Message, ticket: Ticket, failure: Failure) -> FailedHandOver:
        """Decide a failed attempt; the hand-over is carried out until its next copy is confirmed."""
        now = self._clock()
        accepted = message.step_due_at / 1_000 or now
        ladder = self.ladders.of(message.type)
        expires = message.deadline_at / 1_000 or math.inf
        decision = decide(failure, message.attempt, ladder, accepted + self._deadline, now, expires=expires)
        queue = names.DEAD_QUEUE if isinstance(decision, Dead) else names.rung_queue(decision.rung.name)
        log_failure(message, failure, decided=describe(decision), queue=queue)
        return FailedHandOver(message, ticket, ladder.attempts, self.sealing, failure=failure, decision=decision)

    def wait(self, message: Message, ticket: Ticket, asked: AskedWait) -> WaitingHandOver:
        """Hand a step over to the next one, after a wait."""
        seconds = delays.whole_seconds(max(1.0, asked.seconds), SLACK, self._longest_wait)
        if message.deadline_at:  # nothing begins later: the task ends then, and not at the end of its wait
            seconds = min(seconds, max(1, math.ceil(message.deadline_at / 1_000 - self._clock()) + 1))
        task_log(message).info("task waits", seconds=seconds, step=message.step + 1, signals=list(asked.until) or None)
        attempts = self.ladders.of(message.type).attempts
        return WaitingHandOver(message, ticket, attempts, self.sealing, asked=asked, seconds=seconds)

    def carry_out(self, handover: HandOver) -> None:
        """Go on with a hand-over from where its last try ended; see `HandingOver.one`."""
        self._steps.one(handover)

    def publish(self, copy: Copy) -> None:
        """Publish a copy, confirmed; see `HandingOver.publish`."""
        self._steps.publish(copy)

    def hand_over(self, copy: Copy, owner: str) -> None:
        """Finish a hand-over; see `HandingOver.hand_over`."""
        self._steps.hand_over(copy, owner)

    # --- jobs (on a thread of the executor) ---------------------------------------------------------
    def release(self, message: Message, ticket: Ticket, queue: str) -> None:
        """Give back the lease of a run that was stopped on purpose."""
        self.leases.drop(ticket)  # first: a renewal that finds no claim would claim again
        try:
            self._claims.release(message, ticket, queue)
        except StoreError as exc:
            task_log(message).warning("lease not released; it lapses", reason=str(exc))

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
