"""A delivery in the worker's main process: how its run ended, and what follows."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Terminated
from celery.worker import state
from celery.worker.request import Request

from dispatch.broker.decoding import decode
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, PublishError, StoreError
from dispatch.protocol import delays, names, webhooks
from dispatch.protocol.concurrency import Limit
from dispatch.protocol.copies import parked_copy
from dispatch.protocol.dead_letters import CLAIMS_TOO_MUCH, Reason
from dispatch.protocol.message import CHECKPOINT, MAX_TRACEBACK, Copy, Message
from dispatch.protocol.rates import RateLimit
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.store.claims import ClaimAnswer, Claimed, Ticket, ToClaim, ToComplete, ToRelease
from dispatch.telemetry import logger, task_log
from dispatch.worker.handover import HandOver
from dispatch.worker.holding import MayUndo
from dispatch.worker.outcomes import (
    FENCE,
    OWNER,
    WIRE,
    ClaimUnanswered,
    DecidedBefore,
    Foreign,
    LeaseTaken,
    MayNotRun,
    NothingToDo,
    StepEnded,
    failure_of,
    outcome_of,
)
from dispatch.worker.router import Router
from dispatch.worker.run_metrics import Run, log_success

log = logger(__name__)

#: Seconds that a worker which ends waits for Redis to take a result.
LAST_WAIT = 2.0

#: Seconds before a delivery whose claim Redis did not take is tried again; doubles.
HOLD_PAUSE, LONGEST_HOLD = 0.5, 10.0

#: Seconds that may pass between the place in a rate and the claim of a run; beyond it takes another one, so many times.
LATE_PLACE, TRIES = 0.05, 3

#: In place of a result and of an error's message, in the events of a worker that encrypts them.
HIDDEN = "(encrypted)"

#: What Celery reads of a message's headers; other headers of a sender must not steer a run.
_FOR_CELERY = ("id", "task", "lang", "root_id", "parent_id", "group", "origin", "shadow", "argsrepr", "kwargsrepr")


def celery_headers(message: Message) -> dict[str, Any]:
    """The headers that a run may see: Celery's own as text, its counter, and ours."""
    headers = {name: value for name, value in message.headers.items() if name.startswith(("x-", "trace"))}
    headers.pop(CHECKPOINT, None)  # large, and in the message, which goes along
    for name in _FOR_CELERY:
        if name in message.headers:
            value = message.headers[name]
            headers[name] = value if value is None else str(value)
    headers["retries"] = message.number("retries")
    return headers


class DeliveryRequest(Request):
    """A delivery in the main process. Celery calls the ``on_*`` methods on its event loop's thread."""

    acknowledged: bool
    _begins = False  #: its claim is taken: its handler may begin, or has begun
    _paced = False  #: its type has a rate

    def __init__(
        self,
        message: Any,
        *,
        app: Any,
        task: Any,
        hostname: str,
        eventer: Any,
        connection_errors: Any,
        on_ack: Any,
        on_reject: Any,
    ) -> None:  # not Celery's own, which looks for what no message of ours may have; the same attributes
        self.wire = decode(message)
        self._message, self._app, self._task = message, app, task
        self._hostname, self._eventer, self._connection_errors = hostname, eventer, connection_errors
        self._on_ack, self._on_reject = on_ack, on_reject
        # Parsed by `dispatch.worker.envelope`: kombu would turn {"__type__": …} in a payload into objects.
        self._body = self._Request__payload = message.payload
        self._args, self._kwargs, _ = self._body
        headers = celery_headers(self.wire)
        self.id, self._type = headers["id"], headers["task"]
        self.name = headers.get("shadow") or self._type
        self._root_id, self._parent_id = headers.get("root_id"), headers.get("parent_id")
        self._argsrepr, self._kwargsrepr = headers.get("argsrepr", ""), headers.get("kwargsrepr", "")
        self._decoded, self._utc, self._ignore_result = True, True, True
        self._content_type = self._content_encoding = self._eta = self._expires = None
        delivered = message.delivery_info or {}
        self._delivery_info = {
            "exchange": delivered.get("exchange"),
            "routing_key": delivered.get("routing_key"),
            "priority": None,
            "redelivered": delivered.get("redelivered", False),
        }
        # Without the message's headers once more: Celery would look for them in each child.
        self._request_dict = {
            **headers, "properties": None, "headers": {}, "reply_to": None, "correlation_id": self.wire.correlation_id,
            "hostname": hostname, "delivery_info": self._delivery_info, "args": self._args, "kwargs": self._kwargs,
        }  # fmt: skip
        self._worker = app.dispatch_worker
        self._owner = os.urandom(8).hex()
        self.keys = self._worker.gate.keys_of(self.wire)  #: that it has to take before it is claimed
        self._paced = any(isinstance(key, RateLimit) for key in self.keys)
        self._run = Run(self.wire)
        self._pause = HOLD_PAUSE
        self._held_for = ""
        self._reported = False  # its handler has ended
        self.over = False  #: it needs no place any more
        self.undoing = False  #: no pause holds it
        self.seconds = 0.0  #: that it will take, as far as is known
        self._stamp()

    @property
    def router(self) -> Router:
        """The worker's router."""
        router: Router = self._worker.router
        return router

    def _stamp(self) -> None:
        """Pass the delivery's identity to the child; a new fence for each time that it is claimed."""
        self.ticket = Ticket(self._owner, os.urandom(8).hex(), self._hostname)
        self._request_dict.update({OWNER: self._owner, FENCE: self.ticket.fence, WIRE: self.wire})

    # --- from the delivery to its handler ------------------------------------------------------------
    @property
    def deliverable(self) -> bool:
        """Whether an ack of it would reach the broker; otherwise that delivers it again."""
        return getattr(self._message.channel, "connection", None) is not None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What a child needs; those of `dispatch.worker.tracer.trace`."""
        return self._type, self.id, self._request_dict, self._body

    def to_claim(self) -> ToClaim:
        """The step that asks to run it."""
        reach("run.delivered")
        self.over = False
        return ToClaim(self.wire, self.ticket, self._attempts)

    def claimed(self) -> None:
        """It may run: its lease is renewed from now on."""
        self._begins = True
        on_stop = functools.partial(self._stop_requested, self.ticket)
        self.router.leases.hold(self.ticket, self.wire, self._attempts, on_stop)

    def not_claimed(self, answer: Claimed | StoreError) -> None:
        """It may not. A claim that ends the attempt has the lease, until that is handed over."""
        if isinstance(answer, Claimed) and answer.answer in (ClaimAnswer.LOST, ClaimAnswer.OVERDUE):
            self.claimed()
        self._begins = False
        self._ended(outcome_of(answer, self.router.lost_runs), "")

    def hold(self, held_by: str) -> None:
        """It may not run yet: the hold queue takes it."""
        self._ended(MayNotRun(held_by), "")

    def take_keys(self, done: Callable[[Limit | None], None]) -> None:
        """Take its concurrency keys and its place in a rate; ``done`` is called on the loop, with what is missing, or None."""
        tries = TRIES

        def job() -> None:
            began = time.monotonic()
            others = self._worker.gate.take(self._owner, self.wire, self.keys)
            self.router.loop.call(functools.partial(answered, others, began))

        def answered(others: Limit | None, began: float) -> None:
            nonlocal tries
            tries -= 1
            # The loop was busy: by now the run would begin later than its place in the rate has it.
            if others is None and self._paced and tries and time.monotonic() - began > LATE_PLACE:
                self._worker.gate.submit(job)
            else:
                done(others)

        self._worker.gate.submit(job)

    def not_keyed(self, others: Limit | None) -> None:
        """Others hold one of its keys, or the rate is used up; or None: it can't start now, and its place in a rate is another's."""
        self.over = True
        self._worker.gate.renewals.drop(self._owner)
        if others is None:
            self._refund()
        if others is not None and self.deliverable:
            self._ended(MayNotRun(others), "")

    def unclaim(self) -> None:
        """It has not begun, and can't now: no attempt is used up, and no run lost."""
        self.over = True
        self._begins = False
        if self.keys:
            self._worker.gate.renewals.drop(self._owner)
            self._refund()
        self.router.leases.drop(self.ticket)
        self.router.batcher.ask(ToRelease(self.wire, self.ticket, self.delivery_queue), _nothing)
        self._stamp()

    @property
    def _attempts(self) -> int:
        return self.router.ladders.of(self.wire.type).attempts

    # --- Celery's hooks ------------------------------------------------------------------------------
    def revoked(self) -> bool:
        """Never: a stock revoke would ack and lose the message."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `celery inspect` shows of it: never its payload."""
        del safe
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Its handler begins."""
        if self._paced:
            self._worker.gate.submit(functools.partial(self._worker.gate.begun, self._owner, self.keys))
        self._run.begin()
        super().on_accepted(pid, time_accepted)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Celery ends what runs; a run whose handler has ended needs no child any more, and is recorded.

        A thread can't be ended, and goes on. Its lease is renewed as before, so the copy that the broker delivers again
        waits on the lease queue; how the run ends is recorded and handed over, and that copy finds DONE or STALE.
        """
        if not self._reported and pool.kills:
            super().cancel(pool, signal, emit_retry)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """The same."""
        if not self._reported:
            super().terminate(pool, signal)

    def _stop_requested(self, ticket: Ticket, seconds: float) -> None:
        """The task was cancelled, as the lease's renewal finds again and again: from the leases' thread to the loop."""
        self.router.loop.call(functools.partial(self._end_after_grace, ticket, seconds))

    def _end_after_grace(self, ticket: Ticket, seconds: float) -> None:
        """End the handler once its grace is over.

        A reconnect may drop the timer: then the next renewal ends it.

        Args:
            ticket: of the run that is meant.
            seconds: since the task was cancelled.
        """
        consumer = self._worker.consumer
        left = self.router.cancel_grace - min(
            seconds, self._run.seconds
        )  # a wait before this run is no part of the grace
        if self._reported or ticket != self.ticket or consumer is None or consumer.hub is None:
            return
        if left > 0:
            consumer.hub.call_later(left, self._end_after_grace, ticket, self.router.cancel_grace)
            return
        text = f"cancelled; the handler had not ended {self.router.cancel_grace:g} s later"
        if self._worker.starter.places.end(self, AttemptFailed.of(Failure(FailureKind.RETRYABLE, "cancelled", text))):
            task_log(self.wire).warning("cancelled run ended", grace=self.router.cancel_grace)

    def on_success(self, report: Any, **_: Any) -> None:
        """Its handler has returned, or it failed in a way that the child reports: see `dispatch.worker.tracer`."""
        failed, shown, seconds, *result = report
        if failed:
            self.on_failure(shown)
            return
        self._reported = self.over = True
        self.router.pace.ran(self._type, seconds)
        reach("run.reported")
        done = functools.partial(self._recorded, shown, seconds)
        if not result:  # the child has recorded it, before what follows in a chain
            done(True)
            return
        step = ToComplete(self.wire, self.ticket, self._attempts, result[0])
        self.router.batcher.ask(step, done, self._run.until(self.task.time_limit))
        if _shutting_down():
            self.router.settle(None if state.should_terminate is None else LAST_WAIT)

    def _recorded(self, shown: str, seconds: float, answer: bool | StoreError) -> None:
        """Its success is recorded, or it is not."""
        if isinstance(answer, StoreError):
            # The effect has happened: a later run repeats it with the same idempotency key.
            text = f"the result could not be recorded: {answer}"
            self._ended(AttemptFailed.of(Failure(FailureKind.OUTAGE, "store-unavailable", text)), "")
        elif answer:
            reach("run.completed")
            state.task_ready(self)
            log_success(self.wire, seconds, self.ticket.fence)
            self._finish(ended=True)
            self.send_event("task-succeeded", result=shown, runtime=seconds)
        else:  # the fence refused: another run has taken over
            self._ended(LeaseTaken(self.wire.task_id), "")

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Billiard has reported the hard limit to `on_failure` already; acking here would lose the message."""
        task_log(self.wire).warning("time limit", seconds=timeout, soft=soft)

    def send_event(self, type: str, **fields: Any) -> None:
        """To Flower, over RabbitMQ: without the result where results are encrypted."""
        if self._eventer is None or not self._eventer.enabled:
            return
        if "result" in fields and self.router.sealing.active:
            fields["result"] = HIDDEN
        self._eventer.send(type, uuid=self.id, **fields)

    def acknowledge(self) -> None:
        """Ack, and renew the lease no longer."""
        self._run.succeeded()
        reach("ack.succeeded")
        self.router.leases.drop(self.ticket)
        if self.keys:
            self._worker.gate.renewals.drop(self._owner)
        if _shutting_down() and not self.acknowledged:
            # Celery would queue the ack on a loop that runs no callbacks any more.
            self._message.ack_log_error(log, self._connection_errors)
            self.acknowledged = True
        super().acknowledge()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """A handler failed, a limit was over, or a child is gone."""
        del send_failed_event, return_ok
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        self.router.pace.ran(self._type, self._run.seconds)
        self._ended(error, str(exc_info.traceback or "")[-MAX_TRACEBACK:])

    def _ended(self, error: BaseException, traceback: str) -> None:
        """Everything that isn't a recorded SUCCESS ends here."""
        self.over = True
        state.task_ready(self)
        self._run.failed(error, self.ticket.fence)
        if not self._begins and not isinstance(error, ClaimUnanswered | MayNotRun):
            self._refund()
        gone = isinstance(error, Terminated | WorkerLostError | SystemExit | KeyboardInterrupt)
        match error:
            case _ if gone and (self._already_cancelled or state.should_terminate is not None):
                # This worker stopped the child (connection lost, cold shutdown): the broker delivers the message again.
                self._worker.gate.renewals.drop(self._owner)
                self._submit(lambda: self.router.release(self.wire, self.ticket, self.delivery_queue), ack=False)
            case ClaimUnanswered() as unanswered:
                self._worker.gate.renewals.drop(self._owner)
                self._hold(str(unanswered))
            case StepEnded() as ended:
                self._wait(ended)
            case NothingToDo() as nothing:
                self._finish(ended=nothing.ended, settled=False)
            case Foreign():
                self._submit(self.router.dead_lettering(self.wire, Reason.UNAUTHENTIC, CLAIMS_TOO_MUCH))
            case MayNotRun() as held:
                self._hold_back(held)
            case LeaseTaken():
                self._submit(lambda: self.router.publish(parked_copy(self.wire)))
            case DecidedBefore():
                self._submit(lambda: self._publish_decided(error.copy))
            case _:
                self._fail(_failure(error), traceback)

    def _refund(self) -> None:
        """Its run did not begin: its place in a rate is another's."""
        if self._paced:
            self._worker.gate.submit(functools.partial(self._worker.gate.refund, self._owner, self.keys))

    # --- what follows --------------------------------------------------------------------------------
    @property
    def delivery_queue(self) -> str:
        """The queue that the broker puts it back into."""
        return str(self._app.conf.task_default_queue)

    def _announce_end(self) -> None:
        if webhooks.asked(self.wire):
            self._worker.webhooks.ended(self.wire)

    def _fail(self, failure: Failure, traceback: str) -> None:
        handover = self.router.decide(self.wire, self.ticket, failure)

        def count() -> None:
            self._run.handed_over(failure, None if handover.cancelled else handover.decision)

        self._hand_over(handover, count)
        text = f"{failure.type}: {failure.message}"
        if self.router.sealing.active:
            text, traceback = f"{failure.type}: {HIDDEN}", ""
        self.send_event("task-failed" if handover.final else "task-retried", exception=text, traceback=traceback)

    def _wait(self, ended: StepEnded) -> None:
        handover = self.router.wait(self.wire, self.ticket, ended.wait)

        self._hand_over(handover, functools.partial(self._run.waited, ended.wait.until))
        # Flower knows no wait; of the events that it knows, this is the one of a task that goes on later.
        text = f"step {self.wire.step + 1} in {ended.wait.seconds:g} s"
        self.send_event("task-retried", exception=text, traceback="")

    def _hand_over(self, handover: HandOver, count: Callable[[], None]) -> None:
        """Carry a hand-over out, with those that come at the same time; then ack."""

        def job() -> None:
            self.router.carry_out(handover)
            if not handover.counted:
                handover.counted = True
                count()
            self._after(handover.copy)
            if handover.cancelled:
                self._announce_end()

        self._submit(job, handover=handover)

    def _hold_back(self, held: MayNotRun) -> None:
        then = None if held.key is None else functools.partial(self._worker.gate.held, held.key, self.wire)
        job = self._worker.holder.job(self.wire, held.held_by, then)

        def hold() -> None:
            try:
                job()
            except MayUndo:
                self.router.loop.call(functools.partial(self._undo, keyed=held.key is None))
            else:
                self.router.loop.call(self.acknowledge)

        if _shutting_down():
            self._submit(job)
        else:
            self._submit(hold, ack=False)

    def _undo(self, *, keyed: bool) -> None:
        """Run it now: neither a pause nor a concurrency key of others holds what undoes.

        Args:
            keyed: with its concurrency keys, which it has kept through its wait.
        """
        self.undoing = True
        if not keyed:
            self.keys = ()
        self._run_again()

    def _publish_decided(self, copy: Copy) -> None:
        self.router.publish(copy)
        self.router.hand_over(copy, "")
        self._after(copy)

    def _finish(self, *, ended: bool, settled: bool = True) -> None:
        """Ack, once the task's concurrency keys are given back, and what its end asks for is submitted.

        Args:
            ended: the task has ended, now or before.
            settled: this copy has recorded it.
        """
        if not self.keys and not (ended and webhooks.asked(self.wire)):
            self.acknowledge()
            return
        if ended:
            self.router.leases.drop(self.ticket)  # there is nothing to lose any more

        def job() -> None:
            if self.keys:
                self._worker.gate.give_back(self._owner, self.wire, self.keys, unused=not settled)
                if not settled:
                    self._worker.gate.settle(self.wire, self.keys)
            if ended:
                self._announce_end()

        self._submit(job)

    def _after(self, copy: Copy | None) -> None:
        """Of a task with concurrency keys: they are kept through a wait, and given back otherwise; None: it is cancelled."""
        if not self.keys or (
            copy is not None and copy.queue == names.LEASE_QUEUE
        ):  # another run has taken over, with its keys
            return
        gate = self._worker.gate
        if copy is not None and copy.message.step > self.wire.step:
            gate.keep(self._owner, copy.message, self.keys, delays.seconds_of(copy.message.headers))
            return
        gate.give_back(self._owner, self.wire, self.keys)
        if copy is not None and copy.queue == names.HOLD_QUEUE:
            gate.settle(self.wire, self.keys)

    def _submit(self, job: Callable[[], None], *, ack: bool = True, handover: HandOver | None = None) -> None:
        """Run a job on another thread, then ack on the loop; a hand-over's with others'."""

        def whole() -> None:
            job()
            if ack:
                self.router.loop.call(self.acknowledge)

        if not _shutting_down() and handover is not None:
            self.router.submit_together(handover, whole, brief=not self.keys)
            return
        if not _shutting_down():
            self.router.submit(whole)
            return
        # The loop runs no callbacks any more: do it here, once. What fails stays unacked and is delivered again.
        try:
            job()
        except (PublishError, StoreError, DispatchError, MayUndo) as exc:
            task_log(self.wire).warning("not handed over before the shutdown", reason=str(exc))
        else:
            if ack:
                self.acknowledge()

    def _hold(self, reason: str) -> None:
        """Redis did not take the claim: hold the delivery and give it to a child again later; a reason is logged once."""
        if _shutting_down():
            return
        consumer = self._worker.consumer
        if consumer is None or consumer.hub is None:
            return
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_HOLD)
        if reason != self._held_for:
            task_log(self.wire).warning("held: Redis did not take the claim", seconds=pause, reason=reason)
        self._held_for = reason
        consumer.hub.call_later(pause, self._run_again)

    def _run_again(self) -> None:
        if _shutting_down() or not self.deliverable:
            return
        self._stamp()
        self.time_start = None
        state.task_reserved(self)
        self._worker.starter.add(self)


def _nothing(_: object) -> None:
    """A claim that Redis did not take back lapses."""


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
