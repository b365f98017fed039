"""What is known about the request in hand: its id, its trace, who sent it."""

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
    """Who sent a request, and what it may do."""

    id: str
    scopes: frozenset[str]


@dataclasses.dataclass(slots=True)
class RequestContext:
    """One request's context."""

    request_id: str
    traceparent: str  #: the caller's trace with a span of our own
    trace_id: str
    started: float  #: `time.monotonic` seconds
    principal: Principal | None = None
    task_id: str | None = None
    problem: str = ""  #: the slug of the problem it is answered with
    waited: float = 0.0  #: seconds that the client asked us to wait
    quota: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: headers that say what is left of a share


def begin() -> None:
    """Open the context; runs before every request."""
    given = flask.request.headers
    traceparent = tracing.current().traceparent or ids.child_traceparent(given.get("traceparent"))
    context = RequestContext(
        request_id=headers.request_id(given.get("X-Request-Id")),
        traceparent=traceparent,
        trace_id=ids.trace_id(traceparent) or "",
        started=time.monotonic(),
    )
    flask.g.context = context
    clear_contextvars()  # the thread's last request left its own
    bind_contextvars(request_id=context.request_id, **logs.trace_fields(traceparent))


def current() -> RequestContext:
    """The context of the request in hand."""
    context: RequestContext = flask.g.context
    return context


def principal() -> Principal:
    """Who sent the request in hand; only inside operations that need a scope."""
    who = current().principal
    assert who is not None, "the operation has no scope"  # noqa: S101 - a view without a scope is our bug
    return who


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """ResponseSpec with JSON.

    Args:
        value: JSON-ready.
        status: HTTP status.
        headers: more response headers.
    """
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Response(body, status, headers, mimetype="application/json")


def task_json(record: Record) -> dict[str, Any]:
    """A task as the API shows it, with a link to its trace where one is configured."""
    body = record.to_json()
    template: str = flask.current_app.config["TRACE_URL"]
    if template and record.trace_id:
        body["traceUrl"] = template.replace("{traceId}", record.trace_id)
    return body


def problem_response(problem: problems.Problem) -> Response:
    """ResponseSpec with problem details (RFC 9457), tied to the request in hand."""
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
