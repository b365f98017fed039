"""Every error that can reach the edge, translated once into problem details (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from dispatch.control.refusals import NotWaiting, SignalKeyReused, TaskTerminal, TooManySignals, UnknownTask
from dispatch.deadletters.service import NoSuchDeadLetter, NotDead, TooLarge
from dispatch.errors import Nacked, NotSent, PublishError, StoreFull, StoreUnavailable, Unroutable
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.http import context, problems, validation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply
from dispatch.schedules.service import (
    NeverFires,
    NoSuchSchedule,
    ScheduleChanged,
    ScheduleExists,
    ScheduleUnconfirmed,
    TooManySchedules,
)
from dispatch.store.idempotency import KeyInProgress, KeyReused
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds after which a repeat may find the server back.
_BROKER_RETRY, _STORE_RETRY, _TOPOLOGY_RETRY, _FULL_RETRY = 2, 2, 10, 10

_FULL = "The store is full; accepted tasks go on, new ones are refused until there is room."

#: What the verbs on schedules raise.
_SCHEDULES: dict[type[Exception], Callable[[Any], Problem]] = {
    NoSuchSchedule: lambda _: Problem("schedule-not-found"),
    ScheduleExists: lambda _: Problem("schedule-exists"),
    ScheduleChanged: lambda _: Problem("schedule-changed"),
    ScheduleUnconfirmed: lambda _: Problem("schedule-unconfirmed", retry_after=_BROKER_RETRY),
    TooManySchedules: lambda _: Problem("too-many-schedules", retry_after=_FULL_RETRY),
    NeverFires: lambda exc: validation.invalid(FieldError("/cron", str(exc), "never_fires")),
}

#: What Flask and Werkzeug raise, by status.
_HTTP = {
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
    500: "internal-error",
}


class ErrorHandlers:
    """Makes problems of errors.

    Args:
        guard: estimates when to come back after a 429.
        idempotency_retry: seconds after which a repeated Idempotency-Key adopts a cut-off submission.
    """

    def __init__(self, guard: Guard, idempotency_retry: float) -> None:
        self._guard = guard
        self._adopt_after = math.ceil(idempotency_retry)
        self._translations: dict[type[Exception], Callable[[Any], Problem]] = {
            PublishError: self.publish_problem,
            StoreUnavailable: _store,
            KeyInProgress: _in_progress,
            UnknownTask: lambda _: Problem("task-not-found"),
            TaskTerminal: lambda exc: Problem("task-terminal", state=exc.record.state.value),
            TooManySignals: lambda _: Problem("too-many-signals"),
            SignalKeyReused: lambda _: Problem("idempotency-key-reused"),
            KeyReused: lambda _: Problem("idempotency-key-reused"),
            NoSuchDeadLetter: lambda _: Problem("task-not-found", "There is no dead letter of that task."),
            TooLarge: lambda _: Problem("letter-too-large"),
            NotDead: lambda exc: Problem("task-not-dead", state=exc.record.state.value),
            **_SCHEDULES,
            NotWaiting: lambda exc: Problem("not-waiting", state=exc.record.state.value),
            HTTPException: _http,
        }

    def install(self, app: flask.Flask) -> None:
        """Have Flask respond to errors with problems."""
        for kind in (HTTPException, Exception):
            app.register_error_handler(kind, lambda exc: self.reply(exc).response())

    def reply(self, exc: Exception) -> Reply:
        """The response to an error."""
        return context.problem_reply(self.problem(exc))

    def problem(self, exc: Exception) -> Problem:
        """The problem that an error is to the client; an unforeseen one is logged."""
        if isinstance(exc, Problem):
            return exc
        for kind, translate in self._translations.items():
            if isinstance(exc, kind):
                return translate(exc)
        return _unforeseen(exc)

    def publish_problem(self, exc: PublishError) -> Problem:
        """The problem for a verdict of the broker."""
        if isinstance(exc, Nacked):
            return self._guard.refusal()
        if isinstance(exc, Unroutable):
            return Problem("publish-unroutable", retry_after=_TOPOLOGY_RETRY)
        if isinstance(exc, NotSent):
            return Problem("broker-unavailable", retry_after=_BROKER_RETRY)
        return self._unconfirmed(exc)

    def _unconfirmed(self, exc: PublishError) -> Problem:
        detail = (
            "It is unknown whether the task was accepted. Repeat the same request with the same Idempotency-Key: "
            "it yields the same taskId and at most one execution."
        )
        task_id = getattr(exc, "task_id", None)
        members = {"taskId": task_id, "statusUrl": f"/v1/tasks/{task_id}"} if task_id else {}
        return Problem("publish-unconfirmed", detail, retry_after=self._adopt_after, **members)


def _store(exc: StoreUnavailable) -> Problem:
    if isinstance(exc, StoreFull):
        return Problem("store-unavailable", _FULL, retry_after=_FULL_RETRY)
    return Problem("store-unavailable", retry_after=_STORE_RETRY)  # the text of any other may name hosts


def _in_progress(exc: KeyInProgress) -> Problem:
    return Problem("idempotency-key-in-progress", retry_after=max(1, math.ceil(exc.retry_after)))


def _http(exc: HTTPException) -> Problem:
    """A problem for what the framework refused; with the framework's own headers, such as Allow."""
    status = exc.code or 500
    kept = {name: value for name, value in exc.get_headers() if name.lower() != "content-type"}
    slug = _HTTP.get(status)
    if slug is not None:
        return Problem(slug, headers=kept)
    return Problem(problems.plain(status), headers=kept)


def _unforeseen(exc: Exception) -> Problem:
    """A bug: logged with its trace, answered without it."""
    log.error("unforeseen error", exc_info=exc)
    return Problem("internal-error")
