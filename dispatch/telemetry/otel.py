"""The OpenTelemetry backend of `dispatch.telemetry.tracing`; imported only where spans are recorded.

The provider is private to this process, not the global one, which cannot be set again after a fork. A thread of the SDK
exports spans in batches; while the collector is down spans are lost, requests and tasks are not affected.
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
    """Random ids, except for a span whose id is given by `expect`."""

    def __init__(self) -> None:
        self._next = threading.local()

    def expect(self, span_id: str) -> None:
        self._next.value = int(span_id, 16)

    def generate_span_id(self) -> int:
        expected: int | None = getattr(self._next, "value", None)
        self._next.value = None
        return expected or super().generate_span_id()


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
    """Implements `dispatch.telemetry.tracing.Backend`.

    Args:
        service: part of ``service.name``, unless ``OTEL_SERVICE_NAME`` is set.
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
        result = _Live(span)
        if end is not None:
            if "error.type" in attributes:
                result.fail(attributes["error.type"])
            span.end(int(end * 1_000_000_000))
        return result

    def expect(self, span_id: str) -> None:
        """Set the id of this thread's next span."""
        self._ids.expect(span_id)

    def instrument_tasks(self) -> None:
        """Record spans of `apply_async` and of runs."""
        instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        instrumentor.instrument(tracer_provider=self._provider)

    def instrument_http(self) -> None:
        """Record spans of outgoing HTTP requests, without their queries."""
        instrumentor = HTTPXClientInstrumentor()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        instrumentor.instrument(tracer_provider=self._provider, request_hook=_without_query)

    def instrument_app(self, app: Any) -> None:
        """Record spans of a Flask application's requests."""
        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app, tracer_provider=self._provider, excluded_urls="livez,readyz,metrics", enable_commenter=False
        )

    def abandon(self, task: Any, task_id: str, error: str) -> None:
        """End the span of a publish that raised: the instrumentation leaves it current."""
        state = utils.retrieve_context(task, task_id, is_publish=True)
        if state is None:
            return
        span, activation, _ = state
        _Live(span).fail(error)
        activation.__exit__(None, None, None)
        utils.detach_context(task, task_id, is_publish=True)

    def stop(self, timeout: float) -> None:
        """Export the remaining spans, for at most `timeout` seconds."""
        # The provider's shutdown retries for 30 s while the collector is unreachable.
        shutdown = threading.Thread(target=self._provider.shutdown, name="tracing-stop", daemon=True)
        shutdown.start()
        shutdown.join(timeout)


def _context(traceparent: str | None) -> SpanContext | None:
    if traceparent is None:
        return None
    parts = traceparent.split("-")
    try:
        result = SpanContext(
            int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=TraceFlags(int(parts[3], 16))
        )
    except (IndexError, ValueError):
        return None
    return result if result.is_valid else None


def _parent(traceparent: str | None) -> contexts.Context | None:
    context = _context(traceparent)
    return None if context is None else trace.set_span_in_context(NonRecordingSpan(context), contexts.Context())


def _without_query(span: trace.Span, request: Any) -> None:
    """Record the URL without user and query, which may contain secrets."""
    parts = urlsplit(str(request.url) if not isinstance(request.url, tuple) else "")
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    for name in ("http.url", "url.full"):
        span.set_attribute(name, bare)
