"""The worker's main process: carry out what became of a delivery, then ack it.

`DeliveryRequest` hears how the child's run ended (result, exception, time limit, lost child) and hands a job to the
`Router`'s crew: record the decision → publish the next copy, confirmed → hand over → ack. The job keeps its message
in hand and tries again while Redis or RabbitMQ is away; it never requeues for that and never runs the handler again.

Crash windows: see `dispatch.store.tasks.handovers`; every one leaves the message unacked, so a copy too many, never one too few.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Terminated
from celery.worker import state
from celery.worker.request import Request

from dispatch.broker.decoding import wire_message
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, PublishError, StoreError
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy, next_copy, parked_copy
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import ACCEPTED_AT, MAX_TRACEBACK, TRACEPARENT, Copy, Message
from dispatch.protocol.retry import Dead, Failure, FailureKind, Park, Retry, Rung, decide
from dispatch.store.claims import Claims, Ticket
from dispatch.store.handovers import DecisionAnswer, Handovers
from dispatch.telemetry import logger, metrics, task_log, tracing
from dispatch.worker.executor import LoopBridge, RetryingExecutor
from dispatch.worker.leases import Leases
from dispatch.worker.outcomes import (
    FENCE,
    OWNER,
    WIRE,
    AttemptFailed,
    ClaimUnanswered,
    DecidedBefore,
    LeaseTaken,
    NothingToDo,
    failure_of,
)
from dispatch.worker.run_metrics import Run

log = logger("dispatch.router")


#: Seconds before a delivery whose claim Redis did not answer is tried again; doubles.
HOLD_PAUSE, LONGEST_HOLD = 0.5, 10.0


#: What Celery reads of a message's headers; whatever else a sender put there must not steer a run.
_FOR_CELERY = ("id", "task", "lang", "root_id", "parent_id", "group", "origin", "shadow", "argsrepr", "kwargsrepr")


def celery_headers(message: Message) -> dict[str, Any]:
    """The headers that a run may see: Celery's own as text, its counter, and ours."""
    own = {name: value for name, value in message.headers.items() if name.startswith(("x-", "trace"))}
    texts = {
        name: value if value is None else str(value) for name, value in message.headers.items() if name in _FOR_CELERY
    }
    return {**own, **texts, "retries": message.number("retries")}


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the router must know about a task type."""

    ladder: Sequence[Rung]

    @property
    def max_attempts(self) -> int:
        """One more than the rungs."""
        return len(self.ladder) + 1


class Router:
    """Carries decisions out. One for each worker's main process.

    Args:
        settings: the worker's.
        plans: by task type.
    """

    def __init__(self, settings: Settings, plans: Mapping[str, Plan], *, publisher: Publisher) -> None:
        self._settings = settings
        self._plans = plans
        self._publisher = publisher
        self._handovers = Handovers(settings)
        self._claims = Claims(settings)
        self._crew = RetryingExecutor(min(8, settings.prefetch))
        self.leases = Leases(settings)
        self.loop = LoopBridge()

    def start(self) -> None:
        """Start threads and connections."""
        self._publisher.start()
        self._crew.start()
        self.leases.start()

    def stop(self) -> None:
        """Stop; unsettled messages stay unacked and are delivered again."""
        self._crew.stop()
        self.leases.stop()
        self._publisher.close()

    def plan(self, task_type: str) -> Plan:
        """The plan of a type; the whole ladder for one that isn't known."""
        return self._plans.get(task_type) or Plan(self._settings.ladder)

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done, tried again through outages."""
        self._crew.submit(job)

    # --- jobs (a crew thread) ----------------------------------------------------------------------
    def settle(self, message: Message, ticket: Ticket, failure: Failure) -> Settlement:
        """Decide a failed attempt; the job is called until its next copy is confirmed."""
        plan = self.plan(message.type)
        accepted = message.number(ACCEPTED_AT) / 1_000 or time.time()
        decision = decide(failure, message.attempt, plan.ladder, accepted + self._settings.deadline, time.time())
        return Settlement(self, message, ticket, failure, decision)

    def record(self, job: Settlement) -> Copy:
        """Record a settlement's decision; its copy, or the parked one when another run has taken over."""
        copy = next_copy(job.message, job.failure, job.decision, int(time.time() * 1_000))
        copy = dataclasses.replace(copy, message=tracing.stamped(copy.message, job.ticket.fence))
        max_attempts = self.plan(job.message.type).max_attempts
        decided = self._handovers.decide(
            job.message, job.ticket, copy, job.failure, job.decision, max_attempts=max_attempts
        )
        return parked_copy(job.message) if decided.word is DecisionAnswer.REFUSED or not decided.copy else decided.copy

    def send(self, copy: Copy) -> None:
        """Publish a copy, confirmed."""
        took = self._publisher.publish(
            copy.message, copy.exchange, copy.routing_key, timeout=self._settings.publish_timeout
        )
        metrics.CONFIRM.observe(took)

    def hand_over(self, copy: Copy, owner: str) -> None:
        """Finish a hand-over; the copy is confirmed, so an outage may not hold the ack up."""
        wait = next((rung.seconds for rung in self._settings.ladder if copy.queue.endswith(f".{rung.name}")), 0.0)
        try:
            self._handovers.hand_over(copy, owner=owner, wait=wait)
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

    def bury(self, message: Message, reason: str, error_type: str, error: str, done: Callable[[], None]) -> None:
        """Send a message that nobody can run to the DLQ, as it came, then call ``done`` on the loop."""
        # Killed between publish and ack, we see it again: the same id lets the janitor take the second letter out.
        dead_id = None if is_task_id(message.headers.get("id")) else message.letter_id
        copy = dead_copy(message, reason, error_type, error, dead_id)

        def job() -> None:
            self.send(copy)
            self.loop.call(done)

        log.error("poison message dead-lettered", reason=reason, error=error, task_id=copy.message.task_id)
        self.submit(job)


def _said(decision: Retry | Park | Dead) -> str:
    return (
        f"dead: {decision.reason}"
        if isinstance(decision, Dead)
        else f"{type(decision).__name__.lower()} {decision.rung.name}"
    )


class Settlement:
    """A failed attempt on its way to its next copy; called again and again until it is through.

    Args:
        router: does the steps.
        message: the copy that failed.
        ticket: the run's identity.
        failure: how it failed.
        decision: what happens next.
    """

    def __init__(
        self, router: Router, message: Message, ticket: Ticket, failure: Failure, decision: Retry | Park | Dead
    ) -> None:
        self._router = router
        self._copy: Copy | None = None
        self.message = message
        self.ticket = ticket
        self.failure = failure
        self.decision = decision
        self._span = tracing.begin(
            f"route {message.type}",
            parent=tracing.sibling(message.text(TRACEPARENT), ticket.fence),
            attributes=tracing.messaging(
                "settle", message, names.WORK_QUEUE, error=failure.type, decided=_said(decision)
            ),
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
            self._router.send(self._copy)
            reach("route.published")
            self._router.hand_over(self._copy, self.ticket.owner)
            reach("route.handed-over")
        self._span.end()
        task_log(self.message).info(
            "attempt settled", error_type=self.failure.type, decided=_said(self.decision), queue=self._copy.queue
        )


class DeliveryRequest(Request):
    """A delivery in the main process. Celery calls the ``on_*`` methods on its event loop's thread."""

    acknowledged: bool

    def __init__(self, message: Any, **options: Any) -> None:
        self.wire = wire_message(message)
        # Decoded by `dispatch.worker.bootstrap.consumer`: kombu would turn {"__type__": …} in a payload into objects.
        decoded = {"headers": celery_headers(self.wire), "body": message.payload, "decoded": True}
        super().__init__(message, **{**options, **decoded})
        self._owner = secrets.token_hex(8)
        self._tally = Run(self.wire)
        self._pause = HOLD_PAUSE
        self._stamp()

    @property
    def router(self) -> Router:
        """The worker's router."""
        router: Router = self._app.dispatch_router
        return router

    def _stamp(self) -> None:
        """Tell the child whose delivery it runs; a new fence for each time that a child gets it."""
        self.ticket = Ticket(self._owner, secrets.token_hex(8), self._hostname)
        self._request_dict.update({OWNER: self._owner, FENCE: self.ticket.fence, WIRE: self.wire})

    # --- Celery's hooks ------------------------------------------------------------------------------
    def revoked(self) -> bool:
        """Never: a stock revoke would ack and lose the message. Tasks are cancelled through the API."""
        return False

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A child has it: keep its lease from now on."""
        self._tally.begin()
        self.router.leases.hold(self.ticket, self.wire, self.router.plan(self.wire.type).max_attempts)
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Billiard has reported the hard limit to `on_failure` already; acking here would lose the message."""
        task_log(self.wire).warning("time limit", seconds=timeout, soft=soft)

    def acknowledge(self) -> None:
        """Ack, and stop keeping the lease; Celery calls it when a run has succeeded, too."""
        self._tally.succeeded()
        reach("ack.succeeded")
        self.router.leases.drop(self.ticket)
        if _shutting_down() and not self.acknowledged:
            # Celery would queue the ack on a loop that runs no callbacks any more.
            self._message.ack_log_error(log, self._connection_errors)
            self.acknowledged = True
        super().acknowledge()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Everything that isn't a recorded SUCCESS ends here."""
        del send_failed_event, return_ok
        state.task_ready(self)
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        self._tally.failed(error, self.ticket.fence)
        gone = isinstance(error, Terminated | WorkerLostError | SystemExit | KeyboardInterrupt)
        match error:
            case _ if gone and (self._already_cancelled or state.should_terminate is not None):
                # We stopped the child (connection lost, cold shutdown): the broker delivers the message again.
                self._do(lambda: self.router.release(self.wire, self.ticket, self.delivery_queue), ack=False)
            case ClaimUnanswered():
                self._hold()
            case NothingToDo():
                self.acknowledge()
            case LeaseTaken():
                self._do(lambda: self.router.send(parked_copy(self.wire)))
            case DecidedBefore():
                self._do(lambda: self._reroute(error.copy))
            case _:
                self._fail(_failure(error), str(exc_info.traceback or "")[-MAX_TRACEBACK:])

    # --- what follows --------------------------------------------------------------------------------
    @property
    def delivery_queue(self) -> str:
        """The queue that the broker puts it back into."""
        return str(self._app.conf.task_default_queue)

    def _fail(self, failure: Failure, traceback: str) -> None:
        settlement = self.router.settle(self.wire, self.ticket, failure)

        def carry_out() -> None:
            settlement()
            self._tally.settled(failure, settlement.decision)

        self._do(carry_out)
        text = f"{failure.type}: {failure.message}"
        self.send_event("task-failed" if settlement.final else "task-retried", exception=text, traceback=traceback)

    def _reroute(self, copy: Copy) -> None:
        self.router.send(copy)
        self.router.hand_over(copy, "")

    def _do(self, job: Callable[[], None], *, ack: bool = True) -> None:
        """Have a job done, then ack on the loop."""

        def whole() -> None:
            job()
            if ack:
                self.router.loop.call(self.acknowledge)

        if not _shutting_down():
            self.router.submit(whole)
            return
        # The loop runs no callbacks any more: do it here, once. What fails stays unacked and is delivered again.
        try:
            job()
        except (PublishError, StoreError, DispatchError) as exc:
            task_log(self.wire).warning("not settled before the shutdown", reason=str(exc))
        else:
            if ack:
                self.acknowledge()

    def _hold(self) -> None:
        """Redis did not answer the claim: keep the delivery in hand and give it to a child again later."""
        if _shutting_down():
            return
        consumer = self._app.dispatch_consumer
        if consumer is None or consumer.hub is None:
            return
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_HOLD)
        task_log(self.wire).warning("held: Redis did not answer the claim", seconds=pause)
        self.router.leases.drop(self.ticket)
        consumer.hub.call_later(pause, self._again)

    def _again(self) -> None:
        consumer = self._app.dispatch_consumer
        if _shutting_down() or consumer is None or getattr(self._message.channel, "connection", None) is None:
            return  # its channel is gone: the broker delivers it to somebody else
        self._stamp()
        self.time_start = None
        state.task_reserved(self)
        consumer.on_task_request(self)


def _shutting_down() -> bool:
    return state.should_stop is not None or state.should_terminate is not None


def _failure(error: BaseException) -> Failure:
    match error:
        case AttemptFailed():
            return error.failure
        case TimeLimitExceeded():
            return Failure(FailureKind.RETRYABLE, "time-limit", f"the attempt took longer than {error.args[0]} s")
        case WorkerLostError() | Terminated() | SystemExit() | KeyboardInterrupt():
            return Failure(FailureKind.RETRYABLE, "worker-lost", f"the worker process ended in the middle: {error}")
        case _:
            return failure_of(error)
