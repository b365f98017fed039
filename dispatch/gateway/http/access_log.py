"""The headers common to all responses, and the access log: one line a request."""

from __future__ import annotations

import time

from flask import Response

from dispatch.gateway.http import headers, operations
from dispatch.gateway.http.context import RequestContext, current
from dispatch.gateway.http.reply import Reply
from dispatch.telemetry import logs, metrics, tracing

_line = logs.FrequentLine("dispatch.access", "request")

#: Polled every few seconds by probes and scrapers: logged on failure only.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})

#: Methods with a label value of their own in metrics; any other is `other`.
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})

_SUBMIT = "submitTask"


def finish(response: Response | Reply) -> None:
    """Complete and log a response; runs after every request, failures included."""
    context = current()
    more, status = response.headers, response.status_code
    more["X-Request-Id"] = context.request_id
    more.update(headers.joined(context.quota, context.allowance))
    _count(context, status)
    if tracing.enabled():
        tracing.current().set(
            {
                "robot.request.id": context.request_id,
                "robot.task.id": context.task_id or "",
                "http.target": context.path,  # without the query, which may contain secrets
            }
        )
    if not (context.path in _QUIET and status < 400):
        _write(context, status)
    more["X-Content-Type-Options"] = "nosniff"
    if context.site.hsts and context.environ.get("wsgi.url_scheme") == "https":
        more["Strict-Transport-Security"] = f"max-age={context.site.hsts}"  # RFC 6797, 7.2: not over plain HTTP
    if context.path.startswith("/v1/"):
        more.setdefault("Cache-Control", "private, no-cache")


def _count(context: RequestContext, code: int) -> None:
    route = operations.template(context.endpoint)
    method = metrics.one_of(context.environ["REQUEST_METHOD"], _METHODS)
    status = str(code)
    metrics.HTTP_REQUESTS.inc(method, route or metrics.OTHER, status)
    if route is not None:
        seconds = time.monotonic() - context.started - context.waited
        metrics.HTTP_DURATION.observe(seconds, method, route, status, trace=tracing.exemplar(context.traceparent))
    if context.problem and context.endpoint == _SUBMIT:
        metrics.REFUSED.inc(context.problem)


def _write(context: RequestContext, status: int) -> None:
    _line.write(
        {
            "method": context.environ["REQUEST_METHOD"],
            "path": context.path,
            "status": status,
            "ms": round((time.monotonic() - context.started) * 1_000, 1),
            "request_id": context.request_id,
            "trace_id": context.trace_id,
            "task_id": context.task_id,
            "principal": context.principal and context.principal.id,
            "span_id": context.traceparent[36:52] if context.trace_id else None,
        }
    )
