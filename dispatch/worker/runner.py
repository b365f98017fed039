"""One delivery in a worker's child: claim → run the handler → record SUCCESS.

The runner returns a result only for a SUCCESS that is recorded; it reports everything else to the main process
(`dispatch.worker.outcomes`), which decides, publishes and acks (`dispatch.worker.router`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from dispatch.config.groups import HandlerSettings
from dispatch.crashpoints import reach
from dispatch.errors import PermanentError, StoreError
from dispatch.protocol import names
from dispatch.protocol.message import (
    ACCEPTED_AT,
    FAILED_AT,
    LAST_SPAN,
    MAX_TRACEBACK,
    QUEUED_AT,
    RETRY_QUEUE,
    TRACEPARENT,
    Message,
)
from dispatch.protocol.retry import LEASE_RUNG, AttemptFailed, Failure, FailureKind
from dispatch.store.claims import ClaimAnswer, Claims, Ticket
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import secrets_of
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logs, tracing
from dispatch.worker.context import RunContext
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

#: Seconds: a time in a header that lies further back was not written by us.
_LONGEST_WAIT = 40 * 86_400.0

#: Bytes of JSON that a handler may return.
MAX_RESULT = 262_144

#: Seconds before the hard limit at which recording the result gives up.
GIVE_UP = 5.0


class Runner:
    """Runs deliveries in one process.

    Args:
        claims: the transitions of a run.
        ladders: of the task types, for records that have to be rebuilt.
        settings: what handlers may read.
        lost_runs: lapsed leases of one attempt before it counts as failed.
    """

    def __init__(self, claims: Claims, ladders: Ladders, settings: HandlerSettings, *, lost_runs: int) -> None:
        self._claims = claims
        self._ladders = ladders
        self._settings = settings
        self._lost_runs = lost_runs

    def run(self, task_type: TaskType, request: Any, payload: Any) -> dict[str, Any]:
        """Run one delivery.

        Args:
            task_type: what to run.
            request: Celery's context, with our message and ticket in it.
            payload: the message's one argument.

        Returns:
            The recorded result, without the payload's secrets: Celery puts it into events.

        Raises:
            Outcome: the delivery isn't finished here; the main process decides.
            AttemptFailed: the handler failed.
        """
        message: Message = request.get(WIRE)
        ticket = Ticket(request.get(OWNER), request.get(FENCE), request.hostname or "")
        secrets = secrets_of(task_type.payload, payload)
        logs.begin(message)
        with logs.hiding(secrets):
            return dict(logs.hidden(self._run(task_type, message, ticket, payload), secrets))

    def _run(self, task_type: TaskType, message: Message, ticket: Ticket, payload: Any) -> dict[str, Any]:
        began = time.monotonic()
        max_attempts = self._ladders.of(task_type.name).attempts
        reach("run.delivered")
        try:
            claimed = self._claims.claim(message, ticket, max_attempts)
        except StoreError as exc:
            raise ClaimUnanswered(str(exc)) from exc
        match claimed.answer:
            case ClaimAnswer.RUN:
                pass
            case ClaimAnswer.LOST:
                text = f"the worker was lost {self._lost_runs} times during this attempt"
                raise AttemptFailed.of(Failure(FailureKind.RETRYABLE, "worker-lost", text))
            case ClaimAnswer.ROUTE if claimed.copy is not None:
                raise DecidedBefore(claimed.copy.to_json())
            case ClaimAnswer.BUSY:
                raise LeaseTaken(message.task_id)
            case answer:
                raise NothingToDo(answer.value)
        _trace(message)
        context = RunContext(message, ticket, self._claims, self._settings)
        reach("run.claimed")
        with _same_process():
            result = call_handler(task_type, payload, context)
        reach("run.handled")
        self._complete(message, ticket, result, max_attempts, began + task_type.time_limit - GIVE_UP)
        reach("run.completed")
        return result

    def _complete(
        self, message: Message, ticket: Ticket, result: dict[str, Any], max_attempts: int, until: float
    ) -> None:
        """Record SUCCESS; while Redis is away try again until shortly before the hard limit, then park.

        The effect has happened: a later run repeats it with the same idempotency key.
        """
        pause = 0.2
        while True:
            try:
                if self._claims.complete(message, ticket, result, max_attempts):
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
    queued = (message.number(QUEUED_AT) or message.number(ACCEPTED_AT)) / 1_000
    failed, rung = message.number(FAILED_AT) / 1_000, message.text(RETRY_QUEUE)
    if rung and rung != LEASE_RUNG and now - _LONGEST_WAIT < failed <= queued:
        tracing.record(f"wait {names.rung_queue(rung)}", failed, min(queued, now), parent=parent)
    if now - _LONGEST_WAIT < queued:
        tracing.record(f"wait {names.WORK_QUEUE}", queued, now, parent=parent)


def call_handler(task_type: TaskType, payload: Any, context: Any) -> dict[str, Any]:
    """Validate the payload, call the handler, check what it returns.

    Raises:
        AttemptFailed: any of it went wrong.
    """
    try:
        order = _validated(task_type, payload)
        result = task_type.handler(order, context)
        return _checked(result)
    except Exception as exc:
        failure = failure_of(exc)
        failure = dataclasses.replace(failure, message=logs.redacted(failure.message), type=logs.redacted(failure.type))
        tracing.current().fail(failure.type, failure.message)
        context.log.warning("attempt failed", error_type=failure.type, error=failure.message, exc_info=_unknown(exc))
        # Celery sends the traceback with its causes to Flower: what is secret or long stays in our log, redacted and cut.
        raise AttemptFailed.of(failure) from (None if logs.hides() or _long(exc) else exc)


def _long(exc: Exception) -> bool:
    return sum(map(len, traceback.format_exception(exc))) > MAX_TRACEBACK


def _unknown(exc: Exception) -> bool:
    return not getattr(type(exc), "__module__", "").startswith("dispatch.")


def _validated(task_type: TaskType, payload: Any) -> Any:
    try:
        return task_type.payload.model_validate_json(json.dumps(payload))
    except pydantic.ValidationError as exc:
        places = [
            f"/{'/'.join(map(str, error['loc']))}: {error['msg']}"
            for error in exc.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise PermanentError(f"the payload is not valid: {'; '.join(places)}", type="invalid-payload") from None


def _checked(result: Any) -> dict[str, Any]:
    if result is None:
        return {}
    if not isinstance(result, Mapping):
        msg = f"the handler returned {type(result).__name__}, not a mapping"
        raise PermanentError(msg, type="invalid-result")
    try:
        size = len(json.dumps(dict(result), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise PermanentError(f"the handler's result is not JSON: {exc}", type="invalid-result") from exc
    if size > MAX_RESULT:
        msg = f"the handler's result is {size} bytes of JSON, more than {MAX_RESULT}"
        raise PermanentError(msg, type="result-too-large")
    return dict(result)
