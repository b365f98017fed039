"""A delivery in the worker's main process: how its run ended, and what follows."""

from __future__ import annotations

import secrets
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
from dispatch.protocol.copies import parked_copy
from dispatch.protocol.message import MAX_TRACEBACK, Copy, Message
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.store.claims import Ticket
from dispatch.telemetry import logger, task_log
from dispatch.worker.outcomes import (
    FENCE,
    OWNER,
    WIRE,
    ClaimUnanswered,
    DecidedBefore,
    LeaseTaken,
    NothingToDo,
    failure_of,
)
from dispatch.worker.router import Router
from dispatch.worker.run_metrics import Run

log = logger(__name__)

#: Seconds before a delivery whose claim Redis did not answer is tried again; doubles.
HOLD_PAUSE, LONGEST_HOLD = 0.5, 10.0

#: What Celery reads of a message's headers; other headers of a sender must not steer a run.
_FOR_CELERY = ("id", "task", "lang", "root_id", "parent_id", "group", "origin", "shadow", "argsrepr", "kwargsrepr")


def celery_headers(message: Message) -> dict[str, Any]:
    """The headers that a run may see: Celery's own as text, its counter, and ours."""
    own = {name: value for name, value in message.headers.items() if name.startswith(("x-", "trace"))}
    texts = {
        name: value if value is None else str(value) for name, value in message.headers.items() if name in _FOR_CELERY
    }
    return {**own, **texts, "retries": message.number("retries")}


class DeliveryRequest(Request):
    """A delivery in the main process. Celery calls the ``on_*`` methods on its event loop's thread."""

    acknowledged: bool

    def __init__(self, message: Any, **options: Any) -> None:
        self.wire = decode(message)
        # Parsed by `dispatch.worker.envelope`: kombu would turn {"__type__": …} in a payload into objects.
        decoded = {"headers": celery_headers(self.wire), "body": message.payload, "decoded": True}
        super().__init__(message, **{**options, **decoded})
        self._owner = secrets.token_hex(8)
        self._run = Run(self.wire)
        self._pause = HOLD_PAUSE
        self._stamp()

    @property
    def router(self) -> Router:
        """The worker's router."""
        router: Router = self._app.dispatch_worker.router
        return router

    def _stamp(self) -> None:
        """Pass the delivery's identity to the child; a new fence for each time that a child gets it."""
        self.ticket = Ticket(self._owner, secrets.token_hex(8), self._hostname)
        self._request_dict.update({OWNER: self._owner, FENCE: self.ticket.fence, WIRE: self.wire})

    # --- Celery's hooks ------------------------------------------------------------------------------
    def revoked(self) -> bool:
        """Never: a stock revoke would ack and lose the message. Tasks are cancelled through the API."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `celery inspect` shows of it: never its payload."""
        del safe
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A child has it: renew its lease from now on."""
        self._run.begin()
        self.router.leases.hold(self.ticket, self.wire, self.router.ladders.of(self.wire.type).attempts)
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Billiard has reported the hard limit to `on_failure` already; acking here would lose the message."""
        task_log(self.wire).warning("time limit", seconds=timeout, soft=soft)

    def acknowledge(self) -> None:
        """Ack, and renew the lease no longer; Celery calls it when a run has succeeded, too."""
        self._run.succeeded()
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
        self._run.failed(error, self.ticket.fence)
        gone = isinstance(error, Terminated | WorkerLostError | SystemExit | KeyboardInterrupt)
        match error:
            case _ if gone and (self._already_cancelled or state.should_terminate is not None):
                # This worker stopped the child (connection lost, cold shutdown): the broker delivers the message again.
                self._submit(lambda: self.router.release(self.wire, self.ticket, self.delivery_queue), ack=False)
            case ClaimUnanswered():
                self._hold()
            case NothingToDo():
                self.acknowledge()
            case LeaseTaken():
                self._submit(lambda: self.router.publish(parked_copy(self.wire)))
            case DecidedBefore():
                self._submit(lambda: self._publish_decided(error.copy))
            case _:
                self._fail(_failure(error), str(exc_info.traceback or "")[-MAX_TRACEBACK:])

    # --- what follows --------------------------------------------------------------------------------
    @property
    def delivery_queue(self) -> str:
        """The queue that the broker puts it back into."""
        return str(self._app.conf.task_default_queue)

    def _fail(self, failure: Failure, traceback: str) -> None:
        handover = self.router.decide(self.wire, self.ticket, failure)

        def carry_out() -> None:
            handover()
            self._run.handed_over(failure, handover.decision)

        self._submit(carry_out)
        text = f"{failure.type}: {failure.message}"
        self.send_event("task-failed" if handover.final else "task-retried", exception=text, traceback=traceback)

    def _publish_decided(self, copy: Copy) -> None:
        self.router.publish(copy)
        self.router.hand_over(copy, "")

    def _submit(self, job: Callable[[], None], *, ack: bool = True) -> None:
        """Run a job on another thread, then ack on the loop."""

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
            task_log(self.wire).warning("not handed over before the shutdown", reason=str(exc))
        else:
            if ack:
                self.acknowledge()

    def _hold(self) -> None:
        """Redis did not answer the claim: hold the delivery and give it to a child again later."""
        if _shutting_down():
            return
        consumer = self._app.dispatch_worker.consumer
        if consumer is None or consumer.hub is None:
            return
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_HOLD)
        task_log(self.wire).warning("held: Redis did not answer the claim", seconds=pause)
        self.router.leases.drop(self.ticket)
        consumer.hub.call_later(pause, self._run_again)

    def _run_again(self) -> None:
        consumer = self._app.dispatch_worker.consumer
        if _shutting_down() or consumer is None or getattr(self._message.channel, "connection", None) is None:
            return  # its channel is gone: the broker delivers it to another consumer
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
