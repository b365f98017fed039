"""One delivery in a worker's child, or thread: the handler is called, and its result checked.

The main process has claimed the delivery before, and records the result afterwards (`dispatch.worker.request`); it decides,
publishes and acks what ends otherwise (`dispatch.worker.outcomes`). A child needs Redis only for what a handler asks for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dispatch.config.groups import HandlerSettings
from dispatch.crashpoints import reach
from dispatch.errors import PermanentError, StoreError
from dispatch.protocol import names
from dispatch.protocol.callbacks import CallbackUrls
from dispatch.protocol.message import (
    ACCEPTED_AT,
    CHECKPOINT,
    FAILED_AT,
    LAST_SPAN,
    QUEUED_AT,
    RETRY_QUEUE,
    TRACEPARENT,
    WAITING_SINCE,
    WAKES_AT,
    Message,
)
from dispatch.protocol.retry import HOLD_RUNG, LEASE_RUNG, AttemptFailed, Failure, FailureKind
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.store.claims import Claims, Ticket
from dispatch.store.signals import Signals
from dispatch.submission.children import ChildSubmitter
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import secrets_of
from dispatch.tasktypes.registry import TaskType
from dispatch.tasktypes.waiting import Wait
from dispatch.telemetry import logs, tracing
from dispatch.worker.context import RunContext
from dispatch.worker.limits import UNLIMITED_RUN
from dispatch.worker.outcomes import FENCE, LIMITS, OWNER, RESULT, WIRE, LeaseTaken, Outcome, StepEnded, failure_of
from dispatch.worker.run_metrics import GIVE_UP
from dispatch.worker.steps import asked_wait, restored, validated_or_dead

#: Seconds: a time in a header that lies further back was not written by us.
_LONGEST_WAIT = 40 * 86_400.0

#: Bytes of JSON that a handler may return.
MAX_RESULT = 262_144

#: Objects, lists and commas in a body beside its payload, which is a request's or, in a chain, a result.
_OWN_VALUES = 1_000

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def most_values(max_body: int) -> int:
    """Objects, lists and commas that a body may have.

    Args:
        max_body: bytes of a request's body.
    """
    return max(max_body, MAX_RESULT) + _OWN_VALUES


#: No handlers of internal types.
_NONE: Mapping[str, Callable[[Any, Any], dict[str, Any]]] = {}


class Runner:
    """Runs deliveries in one process.

    Args:
        claims: for progress, and for the results of chains.
        ladders: of the task types, for records that have to be rebuilt.
        settings: what handlers may read.
        children: submits what handlers submit.
        signals: of tasks.
        callbacks: makes callback URLs.
        sealing: of the state that a wait leaves.
        longest_wait: seconds.
        internal: handlers of internal task types, by name.
    """

    def __init__(
        self,
        claims: Claims,
        ladders: Ladders,
        settings: HandlerSettings,
        children: ChildSubmitter | None = None,
        *,
        signals: Signals | None = None,
        internal: Mapping[str, Callable[[Any, Any], dict[str, Any]]] = _NONE,
        callbacks: CallbackUrls | None = None,
        sealing: Sealing = UNSEALED,
        longest_wait: int = 0,
    ) -> None:
        self._claims = claims
        self._ladders = ladders
        self._settings = settings
        self._children = children
        self._signals = signals
        self._callbacks = callbacks
        self._sealing = sealing
        self._longest_wait = longest_wait
        self._internal = internal

    def run(self, task_type: TaskType, request: Any, payload: Any) -> dict[str, Any]:
        """Run one delivery.

        Args:
            task_type: what to run.
            request: Celery's context, with our message and ticket in it.
            payload: the message's one argument.

        Returns:
            The result without the payload's secrets: Celery puts it into events.

        Raises:
            Outcome: the delivery isn't finished here; the main process decides, or hands it over to the next step.
            AttemptFailed: the handler failed.
        """
        message: Message = request.get(WIRE)
        ticket = Ticket(request.get(OWNER), request.get(FENCE), request.hostname or "")
        if task_type.name in self._internal:
            task_type = dataclasses.replace(task_type, handler=self._internal[task_type.name])
        secrets = secrets_of(task_type.payload, payload)
        logs.begin(message)
        if not secrets:
            return self._run(task_type, message, ticket, payload, request)
        with logs.hiding(secrets):
            return dict(logs.hidden(self._run(task_type, message, ticket, payload, request), secrets))

    def _run(self, task_type: TaskType, message: Message, ticket: Ticket, payload: Any, request: Any) -> dict[str, Any]:
        began = time.monotonic()
        _trace(message)
        limits = request.get(LIMITS) or UNLIMITED_RUN
        context = RunContext(
            message,
            ticket,
            self._claims,
            self._settings,
            limits,
            children=self._children,
            signals=self._signals,
            callbacks=self._callbacks,
        )
        reach("run.claimed")
        with _same_process():
            result, text = call_handler(
                task_type, payload, context, message, sealing=self._sealing, longest_wait=self._longest_wait
            )
        reach("run.handled")
        if request.get("callbacks") or request.get("chain"):
            # What follows in a chain is published when this returns: recorded before, a refused result starts nothing.
            self._complete(message, ticket, result, began + task_type.time_limit - GIVE_UP)
        else:
            request.get(RESULT).append(text)
        return result

    def _complete(self, message: Message, ticket: Ticket, result: dict[str, Any], until: float) -> None:
        """Record SUCCESS from here; while Redis is away try again until shortly before the hard limit, then park.

        The effect has happened: a later run repeats it with the same idempotency key.
        """
        pause = 0.2
        while True:
            try:
                if self._claims.complete(message, ticket, result, self._ladders.of(message.type).attempts):
                    return
            except StoreError as exc:
                if time.monotonic() + pause >= until:
                    failure = Failure(
                        FailureKind.OUTAGE, "store-unavailable", f"the result could not be recorded: {exc}"
                    )
                    raise AttemptFailed.of(failure) from exc
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
            else:
                raise LeaseTaken(message.task_id)  # the fence refused: another run has taken over


@contextlib.contextmanager
def _same_process() -> Iterator[None]:
    """A copy of the process that the handler forked and let go on must not report for the run, nor read the next one."""
    pid = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != pid:
            os._exit(0)


def _trace(message: Message) -> None:
    """Add to the trace what runs, what ran before, and how long the copy waited where."""
    if not tracing.enabled():
        return
    parent, now = message.text(TRACEPARENT), time.time()
    run = tracing.current()
    run.set(tracing.messaging("process", message, names.WORK_QUEUE))
    if message.text(LAST_SPAN):
        run.link(tracing.sibling(parent, message.text(LAST_SPAN)))
    queued = (message.moment(QUEUED_AT) or message.moment(ACCEPTED_AT)) / 1_000
    if (wakes := message.moment(WAKES_AT) / 1_000) and wakes == queued and now - _LONGEST_WAIT < wakes:
        tracing.record(
            f"wait {names.DELAY_LEVELS}", message.moment(ACCEPTED_AT) / 1_000, min(wakes, now), parent=parent
        )
    failed, rung = message.moment(FAILED_AT) / 1_000, message.text(RETRY_QUEUE)
    waited = message.moment(WAITING_SINCE) / 1_000
    if rung in {None, LEASE_RUNG, HOLD_RUNG} and now - _LONGEST_WAIT < waited < queued:
        tracing.record(f"wait {names.DELAY_LEVELS}", waited, min(queued, now), parent=parent)
    if rung not in {None, LEASE_RUNG, HOLD_RUNG} and now - _LONGEST_WAIT < failed <= queued:
        tracing.record(f"wait {names.rung_queue(rung)}", failed, min(queued, now), parent=parent)
    if now - _LONGEST_WAIT < queued:
        tracing.record(f"wait {names.WORK_QUEUE}", queued, now, parent=parent)


def call_handler(
    task_type: TaskType,
    payload: Any,
    context: Any,
    message: Message | None = None,
    *,
    sealing: Sealing = UNSEALED,
    longest_wait: int = 0,
) -> tuple[dict[str, Any], str]:
    """Validate the payload and the state of the last wait, call the handler, check what it returns.

    Args:
        task_type: whose handler is called.
        payload: as it came.
        context: what the handler is given beside it.
        message: the copy, which may have a checkpoint.
        sealing: opens that.
        longest_wait: seconds that the handler may ask for.

    Returns:
        The result, and the same as JSON.

    Raises:
        AttemptFailed: any of it went wrong.
        StepEnded: the handler asked for a wait.
    """
    try:
        order = validated_or_dead(task_type.payload, payload, "payload")
        if message is not None and CHECKPOINT in message.headers:
            context.state = restored(task_type, message, sealing)
        return _returned(task_type, task_type.handler(order, context), longest_wait)
    except Outcome:
        raise
    except Exception as exc:
        failure = failure_of(exc)
        failure = dataclasses.replace(failure, message=logs.redacted(failure.message), type=logs.redacted(failure.type))
        tracing.current().fail(failure.type, failure.message)
        # The main process has the line about the attempt; a mistake in a handler has its traceback here.
        if _unknown(exc):
            context.log.warning("handler raised", error_type=failure.type, error=failure.message, exc_info=True)
        else:
            context.log.debug("handler raised", error_type=failure.type, error=failure.message)
        # Celery sends the traceback with its causes to Flower: what is secret stays in our log, redacted.
        raise AttemptFailed.of(failure) from (None if logs.hides() else exc)


def _unknown(exc: Exception) -> bool:
    return not getattr(type(exc), "__module__", "").startswith("dispatch.")


def _returned(task_type: TaskType, result: Any, longest_wait: int) -> tuple[dict[str, Any], str]:
    if isinstance(result, Wait):
        raise StepEnded(asked_wait(task_type, result, longest_wait))
    return _checked(result)


def _checked(result: Any) -> tuple[dict[str, Any], str]:
    if result is None:
        return {}, "{}"
    if not isinstance(result, Mapping):
        msg = f"the handler returned {type(result).__name__}, neither a mapping nor a Wait"
        raise PermanentError(msg, type="invalid-result")
    plain = dict(result)
    try:
        text = _encode(plain)
    except (TypeError, ValueError, RecursionError) as exc:
        raise PermanentError(f"the handler's result is not JSON: {exc}", type="invalid-result") from exc
    if len(text) > MAX_RESULT:
        msg = f"the handler's result is {len(text)} bytes of JSON, more than {MAX_RESULT}"
        raise PermanentError(msg, type="result-too-large")
    return plain, text
