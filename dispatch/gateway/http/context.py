"""The context of the current request: what it is, its id, trace, principal."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import quote

import flask

from dispatch.gateway.http import headers, problems
from dispatch.gateway.http.reply import Reply
from dispatch.protocol import ids, names
from dispatch.protocol.lanes import NO_LANES, Lanes
from dispatch.protocol.record import Record
from dispatch.protocol.shards import shard_of
from dispatch.telemetry import logs, tracing

#: How paths begin that end in a secret.
_CALLBACKS = "/v1/callbacks/"


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated client and its scopes."""

    id: str
    scopes: frozenset[str]
    key: str = ""  #: fingerprint of the API key; empty without one


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """What is the same for all requests of an application."""

    trace_url: str = ""  #: template of links to traces
    max_body: int = 262_144  #: bytes of a request's body
    hsts: int = 0  #: seconds for which browsers are to use HTTPS only
    lanes: Lanes = NO_LANES
    shards: int = 1  #: of the default lane
    stands: Callable[[Principal, str], bool] = lambda _principal, _scope: True  #: `auth.Keyring.stands`


class Charge(Protocol):
    """What counts a request of a principal, as a part of another wait; implemented by `dispatch.gateway.admission.quota`."""

    sent: bool  #: it may have been counted
    headers: Mapping[str, str]  #: of the response

    def command(self) -> Any:
        """To Redis; made when it is sent, and once only."""

    def answered(self, answer: Any) -> None:
        """Take the answer; raises `Problem` where the request is refused."""


@dataclasses.dataclass(slots=True)
class RequestContext:
    """One request: ids, timing, and what the response and the access log need."""

    site: Site
    environ: Mapping[str, Any]  #: WSGI's
    path: str  #: without the query
    request_id: str
    traceparent: str  #: the trace of the client, the span of this request
    trace_id: str
    started: float  #: `time.monotonic` seconds
    endpoint: str = ""  #: operationId of what serves the path; empty without one
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: of the path
    principal: Principal | None = None
    task_id: str | None = None
    problem: str = ""  #: slug of the problem in the response
    waited: float = 0.0  #: seconds spent on a long poll (`Prefer: wait`)
    quota: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: `RateLimit` headers: of requests
    allowance: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  #: the same of what the principal's tasks hold
    charge: Charge | None = None  #: counts the request with the first wait of its operation
    operation: str = ""  #: operationId, where a scope is needed
    scope: str = ""  #: that the operation needs
    audited: bool = False  #: whether the audit log has an entry of it
    target: str = ""  #: of that entry; by default what the path names
    phase: str = ""  #: of that entry
    idle: str = ""  #: why a verb that succeeded has changed nothing
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: of that entry

    def header(self, name: str) -> str | None:
        """A header of the request; None without it.

        Args:
            name: as the WSGI environment has it, e.g. `HTTP_PREFER`.
        """
        return self.environ.get(name)


_current: contextvars.ContextVar[RequestContext] = contextvars.ContextVar("request")


def begin(
    site: Site, environ: Mapping[str, Any], path: str, endpoint: str, arguments: Mapping[str, str]
) -> RequestContext:
    """Create the context; before anything else of a request.

    Args:
        site: of the application.
        environ: WSGI's.
        path: as text.
        endpoint: the operation of the path; empty without one.
        arguments: of the path.
    """
    traceparent = tracing.current().traceparent or ids.child_traceparent(environ.get("HTTP_TRACEPARENT"))
    context = RequestContext(
        site=site,
        environ=environ,
        path=path,
        request_id=headers.request_id(environ.get("HTTP_X_REQUEST_ID")),
        traceparent=traceparent,
        trace_id=ids.trace_id(traceparent) or "",
        started=time.monotonic(),
        endpoint=endpoint,
        arguments=arguments,
    )
    _current.set(context)
    logs.about(functools.partial(_log_fields, context.request_id, traceparent))
    return context


def _log_fields(request_id: str, traceparent: str) -> dict[str, Any]:
    """The fields of log lines about a request; not its context: a connection keeps them until its next request."""
    return {"request_id": request_id, **logs.trace_fields(traceparent)}


def end(_: object = None) -> None:
    """Forget the context; after everything else of a request: a connection may be idle for long, and the body is in it."""
    _current.set(_NO_REQUEST)


def begin_in_flask(site: Site) -> None:
    """The same for a request that Flask has routed; runs before every one."""
    request = flask.request
    rule = request.url_rule
    path = request.path
    if path.startswith(_CALLBACKS):  # into no log, trace or response
        path = f"{_CALLBACKS}{{token}}"
    begin(site, request.environ, path, rule.endpoint if rule is not None else "", request.view_args or {})


def refuse_other_slashes() -> None:
    """Runs before every request: routing would take ``//v1/tasks`` and ``/v1%2Ftasks`` for ``/v1/tasks``, a proxy may not.

    Raises:
        Problem: ``not-found``.
    """
    environ = flask.request.environ
    path = environ.get("RAW_URI", "").partition("?")[0].lower()
    if environ.get("PATH_INFO", "").startswith("//") or "%2f" in path:
        current().endpoint = ""  # no metric or log counts it as the route's
        raise problems.Problem("not-found")


#: What is current between two requests.
_NO_REQUEST = RequestContext(Site(), {}, "", "", "", "", 0.0)


def current() -> RequestContext:
    """The context of the current request."""
    return _current.get()


def principal() -> Principal:
    """The principal of the current request; only in operations that have a scope."""
    principal = current().principal
    assert principal is not None, "the operation has no scope"  # noqa: S101 - a view without a scope is a bug
    return principal


def _work_queue(site: Site, record: Record) -> str:
    """Which one it is follows from the type, and in the default lane from the concurrency key or the id."""
    queue = site.lanes.queue_of(record.type)
    if site.shards == 1 or queue != names.WORK_QUEUE:
        return queue
    return names.shard_queue(shard_of(record.concurrency_key or record.task_id, site.shards))


def task_json(record: Record) -> dict[str, Any]:
    """A task as JSON, with `traceUrl` where `DISPATCH_TRACE_URL` is set."""
    body, site = record.to_json(), current().site
    if record.queue == names.WORK_QUEUE:  # the record has: in a work queue
        body["queue"] = _work_queue(site, record)
    template = site.trace_url
    if template and record.trace_id:
        body["traceUrl"] = template.replace("{traceId}", record.trace_id)
    return body


def problem_json(problem: problems.Problem) -> dict[str, Any]:
    """A problem of the current request as JSON."""
    context = current()
    return problem.body() | {
        "instance": quote(context.path),
        "requestId": context.request_id,
        "traceId": context.trace_id,
    }


def problem_reply(problem: problems.Problem) -> Reply:
    """A problem details response (RFC 9457) to the current request."""
    context = current()
    context.problem = problem.kind.slug
    body = problem_json(problem)
    text = json.dumps(body, separators=(",", ":"))
    reply = Reply(text.encode(), body["status"], problem.headers, problems.MEDIA_TYPE)
    reply.headers.setdefault("Cache-Control", "no-store")
    return reply
