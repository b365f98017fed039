"""What every response carries, and the one log line for it."""

from __future__ import annotations

import time

import flask
import structlog
from flask import Response

from dispatch.gateway.http import operations
from dispatch.gateway.http.context import RequestContext
from dispatch.telemetry import metrics, tracing

_log = structlog.get_logger("dispatch.access")

#: Asked every few seconds by machines: logged only when they fail.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})


#: The methods that are told apart in metrics.
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})

_SUBMIT = "submitTask"


def finish(response: Response) -> Response:
    """Complete and log a response; runs after every request, failed ones included."""
    context: RequestContext | None = flask.g.get("context")
    request = flask.request
    if context is not None:
        response.headers["X-Request-Id"] = context.request_id
        response.headers.update(context.quota)
        _count(context, response)
        told = {
            "robot.request.id": context.request_id,
            "robot.task.id": context.task_id or "",
            "http.target": request.path,
        }
        tracing.current().set(told)  # the target without its query, which may hold anything
        if not (request.path in _QUIET and response.status_code < 400):
            _write(context, response)
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.path.startswith("/v1/"):
        response.headers.setdefault("Cache-Control", "private, no-cache")
    return response


def _count(context: RequestContext, response: Response) -> None:
    rule = flask.request.url_rule
    route = operations.template(rule.endpoint) if rule is not None else None
    method = metrics.one_of(flask.request.method, _METHODS)
    status = str(response.status_code)
    metrics.HTTP_REQUESTS.inc(method, route or metrics.OTHER, status)
    if route is not None:
        took = time.monotonic() - context.started - context.waited
        metrics.HTTP_DURATION.observe(took, method, route, status, trace=tracing.example(context.traceparent))
    if context.problem and rule is not None and rule.endpoint == _SUBMIT:
        metrics.REFUSED.inc(context.problem)


def _write(context: RequestContext, response: Response) -> None:
    _log.info(
        "request",
        method=flask.request.method,
        path=flask.request.path,
        status=response.status_code,
        ms=round((time.monotonic() - context.started) * 1_000, 1),
        request_id=context.request_id,
        trace_id=context.trace_id,
        task_id=context.task_id,
        principal=context.principal and context.principal.id,
    )
