"""Every error that can reach the edge, translated once into problem details (RFC 9457)."""

from __future__ import annotations

import math

import flask
from flask import Response
from werkzeug.exceptions import HTTPException

from dispatch.deadletters.service import NoSuchDeadLetter, NotDead, TooLarge
from dispatch.errors import Nacked, NotSent, PublishError, StoreUnavailable, Unroutable
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.http import context, problems
from dispatch.gateway.http.problems import Problem
from dispatch.store.idempotency import KeyInProgress, KeyReused
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds after which a repeat may find the server back.
_BROKER_RETRY, _STORE_RETRY, _TOPOLOGY_RETRY = 2, 2, 10

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

    def install(self, app: flask.Flask) -> None:
        """Register the handlers."""
        app.register_error_handler(Problem, context.problem_response)
        app.register_error_handler(PublishError, self._publish)
        app.register_error_handler(StoreUnavailable, self._store)
        app.register_error_handler(KeyInProgress, self._in_progress)
        app.register_error_handler(KeyReused, self._reused)
        app.register_error_handler(NoSuchDeadLetter, self._no_dead_letter)
        app.register_error_handler(NotDead, self._not_dead)
        app.register_error_handler(TooLarge, self._too_large)
        app.register_error_handler(HTTPException, _http)
        app.register_error_handler(Exception, _unforeseen)

    def _publish(self, exc: PublishError) -> Response:
        return context.problem_response(self.publish_problem(exc))

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

    def _store(self, exc: StoreUnavailable) -> Response:
        del exc  # its text may name hosts
        return context.problem_response(Problem("store-unavailable", retry_after=_STORE_RETRY))

    def _in_progress(self, exc: KeyInProgress) -> Response:
        wait = max(1, math.ceil(exc.retry_after))
        return context.problem_response(Problem("idempotency-key-in-progress", retry_after=wait))

    def _reused(self, exc: KeyReused) -> Response:
        del exc
        return context.problem_response(Problem("idempotency-key-reused"))

    def _no_dead_letter(self, exc: NoSuchDeadLetter) -> Response:
        del exc
        return context.problem_response(Problem("task-not-found", "There is no dead letter of that task."))

    def _too_large(self, exc: TooLarge) -> Response:
        del exc
        return context.problem_response(Problem("letter-too-large"))

    def _not_dead(self, exc: NotDead) -> Response:
        return context.problem_response(Problem("task-not-dead", state=exc.record.state.value))


def _http(exc: HTTPException) -> Response:
    """A problem for what the framework refused; with the framework's own headers, such as Allow."""
    status = exc.code or 500
    kept = {name: value for name, value in exc.get_headers() if name.lower() != "content-type"}
    slug = _HTTP.get(status)
    if slug is not None:
        return context.problem_response(Problem(slug, headers=kept))
    return context.problem_response(Problem(problems.plain(status), headers=kept))


def _unforeseen(exc: Exception) -> Response:
    """A bug: logged with its trace, answered without it."""
    log.error("unforeseen error", exc_info=exc)
    return context.problem_response(Problem("internal-error"))
