"""OpenTelemetry's side of `dispatch.telemetry.tracing`; imported only where spans are recorded.

The provider is this process's own and never the global one, which can't be set again after a fork. Spans are exported
in batches by a thread of the SDK; a collector that is down costs the spans, never a request or a task.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor, utils
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from dispatch import __version__
from dispatch.telemetry.tracing import Attributes, Span, SpanRole

_KINDS = {
    "internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER, "consumer": SpanKind.CONSUMER,
}  # fmt: skip


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose id somebody else must know."""

    def __init__(self) -> None:
        self._next = threading.local()

    def expect(self, span_id: str) -> None:
        self._next.value = int(span_id, 16)

    def generate_span_id(self) -> int:
        wanted: int | None = getattr(self._next, "value", None)
        self._next.value = None
        return wanted or super().generate_span_id()


class _Live(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._context = span.get_span_context()

    @property
    def trace_id(self) -> str:  # type: ignore[override]
        return f"{self._context.trace_id:032x}"

    @property
    def span_id(self) -> str:  # type: ignore[override]
        return f"{self._context.span_id:016x}"

    @property
    def traceparent(self) -> str:  # type: ignore[override]
        return f"00-{self.trace_id}-{self.span_id}-{self._context.trace_flags:02x}"

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def link(self, traceparent: str | None) -> None:
        context = _context(traceparent)
        if context is not None:
            self._span.add_link(context)

    def fail(self, type_: str, message: str = "") -> None:
        self._span.set_attribute("error.type", type_)
        self._span.set_status(Status(StatusCode.ERROR, message or type_))

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        with trace.use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield

    def end(self) -> None:
        self._span.end()


class Otel:
    """See `dispatch.telemetry.tracing.Backend`.

    Args:
        service: ends in ``service.name``, unless ``OTEL_SERVICE_NAME`` says otherwise.
        exporter: ``otlp`` (HTTP, protobuf) or ``console``.
    """

    def __init__(self, service: str, exporter: str) -> None:
        own: dict[str, Any] = {
            "service.name": f"robot-dispatch-{service}",
            "service.version": __version__,
            "process.pid": os.getpid(),
        }
        if os.environ.get("OTEL_SERVICE_NAME"):
            del own["service.name"]
        self._ids = _Ids()
        self._provider = TracerProvider(resource=Resource.create(own), id_generator=self._ids, shutdown_on_exit=False)
        sink = OTLPSpanExporter() if exporter == "otlp" else ConsoleSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(sink))
        self._tracer = self._provider.get_tracer("dispatch", __version__)

    def current(self) -> Span:
        """The thread's span."""
        span = trace.get_current_span()
        return _Live(span) if span.get_span_context().is_valid else Span()

    def begin(
        self, name: str, kind: SpanRole, parent: str | None, links: Sequence[str | None], attributes: Attributes,
        *, span_id: str | None = None, start: float | None = None, end: float | None = None,
    ) -> Span:  # fmt: skip
        """See `dispatch.telemetry.tracing.Backend`."""
        if span_id is not None:
            self._ids.expect(span_id)
        span = self._tracer.start_span(
            name,
            context=_parent(parent),
            kind=_KINDS[kind],
            attributes=attributes,
            links=[Link(context) for context in map(_context, links) if context is not None],
            start_time=None if start is None else int(start * 1_000_000_000),
        )
        made = _Live(span)
        if end is not None:
            if "error.type" in attributes:
                made.fail(attributes["error.type"])
            span.end(int(end * 1_000_000_000))
        return made

    def expect(self, span_id: str) -> None:
        """Give this thread's next span this id."""
        self._ids.expect(span_id)

    def instrument_tasks(self) -> None:
        """Spans of `apply_async` and of runs."""
        again = CeleryInstrumentor()  # type: ignore[no-untyped-call]
        if again.is_instrumented_by_opentelemetry:
            again.uninstrument()
        again.instrument(tracer_provider=self._provider)

    def instrument_http(self) -> None:
        """Spans of requests to the outside, without their queries."""
        again = HTTPXClientInstrumentor()
        if again.is_instrumented_by_opentelemetry:
            again.uninstrument()
        again.instrument(tracer_provider=self._provider, request_hook=_without_query)

    def instrument_app(self, app: Any) -> None:
        """Spans of a Flask application's requests."""
        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app, tracer_provider=self._provider, excluded_urls="livez,readyz,metrics", enable_commenter=False
        )

    def abandon(self, task: Any, task_id: str, error: str) -> None:
        """End the span of a publish that raised: its instrumentation would leave it current."""
        left = utils.retrieve_context(task, task_id, is_publish=True)
        if left is None:
            return
        span, activation, _ = left
        _Live(span).fail(error)
        activation.__exit__(None, None, None)
        utils.detach_context(task, task_id, is_publish=True)

    def stop(self, timeout: float) -> None:
        """Export what is left, some seconds at most."""
        # Its own shutdown goes on trying for half a minute when the collector is away.
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-stop", daemon=True)
        ending.start()
        ending.join(timeout)


def _context(traceparent: str | None) -> SpanContext | None:
    if traceparent is None:
        return None
    parts = traceparent.split("-")
    try:
        found = SpanContext(
            int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=TraceFlags(int(parts[3], 16))
        )
    except (IndexError, ValueError):
        return None
    return found if found.is_valid else None


def _parent(traceparent: str | None) -> contexts.Context | None:
    context = _context(traceparent)
    return None if context is None else trace.set_span_in_context(NonRecordingSpan(context), contexts.Context())


def _without_query(span: trace.Span, request: Any) -> None:
    """A query may hold a secret: only where the request went is told."""
    parts = urlsplit(str(request.url) if not isinstance(request.url, tuple) else "")
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    for name in ("http.url", "url.full"):
        span.set_attribute(name, bare)
