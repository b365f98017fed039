"""The context of the current request: id, trace, principal."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import flask
from flask import Response
from structlog.contextvars import bind_contextvars, clear_contextvars

from dispatch.gateway.http import headers, problems
from dispatch.protocol import ids
from dispatch.protocol.record import Record
from dispatch.telemetry import logs, tracing


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated client and its scopes."""

    id: str
    scopes: frozenset[str]


@dataclasses.dataclass(slots=True)
class RequestContext:
    """One request: ids, timing, and what the response and the access log need."""

    request_id: str
    traceparent: str  #: the trace of the client, the span of this request
    trace_id: str
    started: float  #: `time.monotonic` seconds
    principal: Principal | None = None
    task_id: str | None = None
    problem: str = ""  #: slug of the problem in the response
    waited: float = 0.0  #: seconds spent on a long poll (`Prefer: wait`)
    quota: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: `RateLimit` headers


def begin() -> None:
    """Create the context; runs before every request."""
    request_headers = flask.request.headers
    traceparent = tracing.current().traceparent or ids.child_traceparent(request_headers.get("traceparent"))
    context = RequestContext(
        request_id=headers.request_id(request_headers.get("X-Request-Id")),
        traceparent=traceparent,
        trace_id=ids.trace_id(traceparent) or "",
        started=time.monotonic(),
    )
    flask.g.context = context
    clear_contextvars()  # of the previous request on this thread
    bind_contextvars(request_id=context.request_id, **logs.trace_fields(traceparent))


def refuse_doubled_slash() -> None:
    """Runs before every request: routing would take ``//v1/tasks`` for ``/v1/tasks``.

    Raises:
        Problem: ``not-found``.
    """
    if flask.request.environ.get("PATH_INFO", "").startswith("//"):
        flask.request.url_rule = None  # no metric or log counts it as the route's
        raise problems.Problem("not-found")


def current() -> RequestContext:
    """The context of the current request."""
    context: RequestContext = flask.g.context
    return context


def principal() -> Principal:
    """The principal of the current request; only in operations that have a scope."""
    principal = current().principal
    assert principal is not None, "the operation has no scope"  # noqa: S101 - a view without a scope is a bug
    return principal


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response.

    Args:
        value: JSON-ready.
        status: HTTP status.
        headers: additional response headers.
    """
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Response(body, status, headers, mimetype="application/json")


def task_json(record: Record) -> dict[str, Any]:
    """A task as JSON, with `traceUrl` where `DISPATCH_TRACE_URL` is set."""
    body = record.to_json()
    template: str = flask.current_app.config["TRACE_URL"]
    if template and record.trace_id:
        body["traceUrl"] = template.replace("{traceId}", record.trace_id)
    return body


def problem_response(problem: problems.Problem) -> Response:
    """A problem details response (RFC 9457) to the current request."""
    context = current()
    context.problem = problem.kind.slug
    body = problem.body() | {
        "instance": quote(flask.request.path),
        "requestId": context.request_id,
        "traceId": context.trace_id,
    }
    text = json.dumps(body, separators=(",", ":"))
    response = Response(text, body["status"], problem.headers, mimetype=problems.MEDIA_TYPE)
    response.headers.setdefault("Cache-Control", "no-store")
    return response
