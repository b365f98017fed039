"""The headers common to all responses, and the access log: one line a request."""

from __future__ import annotations

import time

import flask
import structlog
from flask import Response

from dispatch.gateway.http import operations
from dispatch.gateway.http.context import RequestContext
from dispatch.telemetry import metrics, tracing

_log = structlog.get_logger("dispatch.access")

#: Polled every few seconds by probes and scrapers: logged on failure only.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})

#: Methods with a label value of their own in metrics; any other is `other`.
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})

_SUBMIT = "submitTask"


def finish(response: Response) -> Response:
    """Complete and log a response; runs after every request, failures included."""
    context: RequestContext | None = flask.g.get("context")
    request = flask.request
    if context is not None:
        response.headers["X-Request-Id"] = context.request_id
        response.headers.update(context.quota)
        _count(context, response)
        attributes = {
            "robot.request.id": context.request_id,
            "robot.task.id": context.task_id or "",
            "http.target": request.path,  # without the query, which may contain secrets
        }
        tracing.current().set(attributes)
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
        seconds = time.monotonic() - context.started - context.waited
        metrics.HTTP_DURATION.observe(seconds, method, route, status, trace=tracing.exemplar(context.traceparent))
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
