"""One delivery in a worker's child: claim → run → settle.

Returns a result only for a SUCCESS that is recorded; everything else is handed back to the main process, which
decides, publishes and acks (`dispatch.worker.router`).
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

from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import PermanentError, StoreError
from dispatch.protocol import names
from dispatch.protocol.ids import child_traceparent, trace_id
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
from dispatch.protocol.retry import LEASE_RUNG, Failure, FailureKind
from dispatch.store.claims import ClaimAnswer, Claims, Ticket
from dispatch.tasktypes.registry import Log, TaskType, secrets_of
from dispatch.telemetry import logs, task_log, tracing
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

#: Seconds: a time in a header that lies further back is a stranger's.
_LONGEST_WAIT = 40 * 86_400.0

#: Bytes of JSON that a handler may return.
MAX_RESULT = 262_144

#: Seconds: the least pause between two progress records, and before the hard limit at which recording gives up.
PROGRESS_PAUSE, GIVE_UP = 0.5, 5.0


class RunContext:
    """What a handler is given beside its payload; see `dispatch.tasktypes.registry.Context`."""

    def __init__(self, message: Message, ticket: Ticket, claims: Claims, settings: Settings) -> None:
        self._message = message
        self._ticket = ticket
        self._claims = claims
        self._told = self._asked = 0.0
        self._stop = False
        self.settings = settings
        self.task_id = message.task_id
        self.attempt = message.attempt
        self.traceparent = tracing.current().traceparent or child_traceparent(message.text("traceparent"))
        self.log: Log = task_log(message)

    @property
    def idempotency_key(self) -> str:
        """Survives retries and redrives."""
        return self.task_id

    @property
    def trace_id(self) -> str:
        """The same through every hop."""
        return trace_id(self.traceparent) or ""

    def progress(self, percent: int, message: str = "") -> None:
        """Record progress, twice a second at most; dropped when Redis is away."""
        now = time.monotonic()
        if now - self._told < PROGRESS_PAUSE and percent < 100:
            return
        self._told = self._asked = now
        self._tell({"percent": max(0, min(100, int(percent))), "message": logs.redacted(message)[:500]})

    def cancelled(self) -> bool:
        """Ask Redis, twice a second at most."""
        now = time.monotonic()
        if not self._stop and now - self._asked >= PROGRESS_PAUSE:
            self._asked = now
            self._tell(None)
        return self._stop

    def _tell(self, progress: Mapping[str, Any] | None) -> None:
        try:
            self._stop = self._claims.progress(self.task_id, self._ticket.fence, progress)
        except StoreError as exc:
            self.log.warning("progress dropped", reason=str(exc))


class Runner:
    """Runs deliveries in one process.

    Args:
        settings: the worker's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._claims = Claims(settings)

    def run(self, task_type: TaskType, request: Any, payload: Any) -> dict[str, Any]:
        """Run one delivery.

        Args:
            task_type: what to run.
            request: Celery's context, with our message and ticket in it.
            payload: the message's one argument.

        Returns:
            The recorded result, without the payload's secrets: Celery shows it in events.

        Raises:
            Outcome: the delivery isn't finished here; the main process knows what to do.
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
        max_attempts = self.max_attempts(task_type)
        reach("run.delivered")
        try:
            claimed = self._claims.claim(message, ticket, max_attempts)
        except StoreError as exc:
            raise ClaimUnanswered(str(exc)) from exc
        match claimed.answer:
            case ClaimAnswer.RUN:
                pass
            case ClaimAnswer.LOST:
                text = f"the worker was lost {self._settings.lost_runs} times during this attempt"
                raise AttemptFailed.of(Failure(FailureKind.RETRYABLE, "worker-lost", text))
            case ClaimAnswer.ROUTE if claimed.copy is not None:
                raise DecidedBefore(claimed.copy.to_json())
            case ClaimAnswer.BUSY:
                raise LeaseTaken(message.task_id)
            case answer:
                raise NothingToDo(answer.value)
        _show(message)
        context = RunContext(message, ticket, self._claims, self._settings)
        reach("run.claimed")
        with _alone():
            result = call_handler(task_type, payload, context)
        reach("run.handled")
        self._complete(message, ticket, result, max_attempts, began + task_type.time_limit - GIVE_UP)
        reach("run.completed")
        return result

    def max_attempts(self, task_type: TaskType) -> int:
        """Attempts a type has: one more than its rungs."""
        return 1 + len(self._settings.ladder if task_type.ladder is None else task_type.ladder)

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
def _alone() -> Iterator[None]:
    """A copy of the process that the handler forked and let go on must not speak for the run, nor read the next one."""
    pid = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != pid:
            os._exit(0)


def _show(message: Message) -> None:
    """Say in the trace what runs, what ran before, and how long the copy waited where."""
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
        # Celery sends the traceback, causes and all, to Flower: what is secret or long stays in our log, redacted and cut.
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
    except (TypeError, ValueError) as exc:
        raise PermanentError(f"the handler's result is not JSON: {exc}", type="invalid-result") from exc
    if size > MAX_RESULT:
        msg = f"the handler's result is {size} bytes of JSON, more than {MAX_RESULT}"
        raise PermanentError(msg, type="result-too-large")
    return dict(result)
