"""Traces: the interface for the other modules, with or without recording.

Off unless ``OTEL_TRACES_EXPORTER`` is ``otlp`` or ``console``: then nothing is instrumented, and each call here costs
one comparison. `dispatch.telemetry.otel` is the backend.

The trace of a task::

    client
    └ POST /v1/tasks                      gateway
      └ apply_async/<type>                gateway, creates the message: its traceparent is this span
        ├ publish robot.task.topic        until the confirm of the broker
        ├ wait robot.task.q               the time in the queue
        └ run/<type>                      child; its span id is the run's fence, which the main process knows as well
          └ route <type>                  main, creates the next copy: its traceparent is this span
            ├ publish robot.retry
            ├ wait robot.retry.q.1m       the time on the rung
            ├ wait robot.task.q
            └ run/<type>                  next attempt, linked to the previous run
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from dispatch.errors import ConfigurationError
from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import LAST_SPAN, TRACEPARENT, Message

SpanRole = Literal["internal", "client", "producer", "consumer"]

EXPORTERS = ("otlp", "console", "none")

#: The only protocol to a collector, and the variables that may select another.
PROTOCOL, _PROTOCOLS = "http/protobuf", ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

#: Attribute values by name.
Attributes = dict[str, Any]

_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")


class Span:
    """A span; the base class records nothing."""

    trace_id = ""
    span_id = ""
    traceparent: str | None = None  #: for outgoing messages and requests

    def set(self, attributes: Attributes) -> None:
        """Set attributes."""

    def link(self, traceparent: str | None) -> None:
        """Link to another span."""

    def fail(self, type_: str, message: str = "") -> None:
        """Set the status to error."""

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Make this the current span of the thread for the block, without ending it."""
        return _NO_BLOCK

    def end(self) -> None:
        """End the span."""


class Backend(Protocol):
    """Implemented by `dispatch.telemetry.otel`."""

    def current(self) -> Span:
        """The current span of the thread."""

    def begin(
        self,
        name: str,
        kind: SpanRole,
        parent: str | None,
        links: Sequence[str | None],
        attributes: Attributes,
        *,
        span_id: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Span:
        """Start a span; with ``end`` also end it. Times are epoch seconds."""  # fmt: skip

    def expect(self, span_id: str) -> None:
        """Set the id of this thread's next span."""

    def instrument_tasks(self) -> None:
        """Record spans of `apply_async` and of runs."""

    def instrument_http(self) -> None:
        """Record spans of outgoing HTTP requests."""

    def instrument_app(self, app: Any) -> None:
        """Record spans of a Flask application's requests."""

    def abandon(self, task: Any, task_id: str, error: str) -> None:
        """End the span of a publish that raised: the instrumentation leaves it current."""

    def stop(self, timeout: float) -> None:
        """Export the remaining spans, for at most `timeout` seconds."""


_NOTHING = Span()
_NO_BLOCK: contextlib.AbstractContextManager[None] = contextlib.nullcontext()

#: A context manager without a span.
NO_SPAN: contextlib.AbstractContextManager[Span] = contextlib.nullcontext(_NOTHING)

_backend: Backend | None = None


def start(service: str) -> bool:
    """Start recording spans in this process, if the environment enables it; call after each fork.

    Args:
        service: ``gateway`` or ``worker``.

    Returns:
        Whether spans are recorded.

    Raises:
        ConfigurationError: an unknown exporter or protocol, or a setting that the SDK rejects.
    """
    global _backend  # noqa: PLW0603 - one for each process
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "none"
    if exporter not in EXPORTERS:
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER: {exporter!r} is not one of {', '.join(EXPORTERS)}")
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        _backend = None
        return False
    for name in _PROTOCOLS if exporter == "otlp" else ():
        if os.environ.get(name, "").strip() not in ("", PROTOCOL):
            raise ConfigurationError(f"{name}: {os.environ[name]!r} is not {PROTOCOL}, the only one supported")
    os.environ.setdefault("OTEL_PROPAGATORS", "tracecontext")  # baggage would copy a client's header into messages
    try:
        _backend = importlib.import_module("dispatch.telemetry.otel").Otel(service, exporter)
    except ValueError as exc:
        raise ConfigurationError(f"OTEL_*: OpenTelemetry rejects a setting: {exc}") from exc
    return True


def stop(timeout: float = 2.0) -> None:
    """Export the remaining spans, for at most ``timeout`` seconds."""
    if _backend is not None:
        _backend.stop(timeout)


def enabled() -> bool:
    """Whether spans are recorded in this process."""
    return _backend is not None


def backend() -> Backend | None:
    """The backend, for instrumentation; None when spans are not recorded."""
    return _backend


def current() -> Span:
    """The current span of the thread."""
    return _NOTHING if _backend is None else _backend.current()


def span(
    name: str,
    *,
    kind: SpanRole = "internal",
    parent: str | None = None,
    links: Sequence[str | None] = (),
    attributes: Attributes | None = None,
) -> contextlib.AbstractContextManager[Span]:
    """A span that is current for the block and ends with it.

    Args:
        name: of the span.
        kind: of OpenTelemetry.
        parent: a traceparent; the thread's span by default.
        links: traceparents of causing spans.
        attributes: of the span.
    """  # fmt: skip
    if _backend is None:
        return NO_SPAN
    return _running(_backend.begin(name, kind, parent, links, attributes or {}))


def detail(name: str, attributes: Attributes) -> contextlib.AbstractContextManager[Span]:
    """A client span, recorded only within another span: background work without a trace records none."""
    if _backend is None or not _backend.current().trace_id:
        return NO_SPAN
    return _running(_backend.begin(name, "client", None, (), attributes))


def begin(
    name: str, *, parent: str | None = None, links: Sequence[str | None] = (), attributes: Attributes | None = None
) -> Span:
    """Start a span that the caller ends, perhaps in another thread; arguments as `span`."""
    return _NOTHING if _backend is None else _backend.begin(name, "internal", parent, links, attributes or {})


def record(
    name: str,
    start: float,
    end: float,
    *,
    parent: str | None,
    kind: SpanRole = "internal",
    span_id: str | None = None,
    attributes: Attributes | None = None,
    failed: str = "",
) -> None:
    """Record a span that has already ended.

    Args:
        name: of the span.
        start: epoch seconds.
        end: epoch seconds.
        parent: a traceparent.
        kind: of OpenTelemetry.
        span_id: a predetermined id; a random one by default.
        attributes: of the span.
        failed: type of the error; empty without one.
    """  # fmt: skip
    if _backend is not None and trace_id(parent):
        complete = {**(attributes or {}), **({"error.type": failed} if failed else {})}
        _backend.begin(name, kind, parent, (), complete, span_id=span_id, start=min(start, end), end=end)


def expect(span_id: str) -> None:
    """Set the id of this thread's next span."""
    if _backend is not None and _SPAN_ID.fullmatch(span_id):
        _backend.expect(span_id)


def publish(message: Message, exchange: str) -> contextlib.AbstractContextManager[Span]:
    """The span of one publish and its confirm; in the message's trace when the thread has no span."""
    if _backend is None:
        return NO_SPAN
    parent = None if _backend.current().trace_id else message.text(TRACEPARENT)
    attributes = messaging("send", message, exchange)
    return _running(_backend.begin(f"publish {exchange}", "producer", parent, (), attributes))


def exemplar(traceparent: str | None) -> str | None:
    """The trace id, if the trace is sampled and this process records spans."""
    sampled = _backend is not None and traceparent is not None and traceparent[-1:] in "13579bdf"
    return trace_id(traceparent) if sampled else None


@contextlib.contextmanager
def publishing(task: Any, task_id: str | None) -> Iterator[None]:
    """Around `apply_async`: end the span of a publish that raised, which the instrumentation leaves current."""
    try:
        yield
    except BaseException as exc:
        if _backend is not None and task_id is not None:
            _backend.abandon(task, task_id, type(exc).__name__)
        raise


def sibling(traceparent: str | None, span_id: str | None) -> str | None:
    """The traceparent of another span in the same trace."""
    if traceparent is None or not trace_id(traceparent) or not _SPAN_ID.fullmatch(span_id or ""):
        return traceparent
    version, trace, _, flags = traceparent.split("-")[:4]
    return f"{version}-{trace}-{span_id}-{flags}"


def stamped(message: Message, last: str | None = None) -> Message:
    """The copy with the current span as its traceparent, parent of the next run; unchanged without recording.

    Args:
        message: the copy.
        last: span id of the previous run.
    """
    traceparent = current().traceparent
    if traceparent is None:
        return message
    own = {TRACEPARENT: traceparent, **({LAST_SPAN: last} if last else {})}
    # Not `with_headers`, which is for the copy after this one: the delay of a copy that waits is among its headers.
    return dataclasses.replace(message, headers={**message.headers, **own})


def messaging(operation: str, message: Message, destination: str, **more: Any) -> Attributes:
    """Attributes of a span about a message, by OpenTelemetry's semantic conventions.

    Args:
        operation: ``send``, ``process`` or ``settle``.
        message: the message.
        destination: exchange or queue.
        more: attributes with the prefix ``robot.``; None is omitted.
    """
    if _backend is None:
        return {}
    own = {f"robot.{name}": value for name, value in more.items() if value is not None}
    request_id = message.text("x-request-id")
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": message.routing_key,
        "messaging.message.id": message.task_id,
        **({"messaging.message.conversation_id": request_id} if request_id else {}),
        "messaging.message.body.size": len(message.body),
        "robot.task.id": message.task_id,
        "robot.task.type": message.type,
        "robot.attempt": message.attempt,
        "robot.cycle": message.cycle,
        "robot.seq": message.seq,
        **own,
    }


@contextlib.contextmanager
def _running(started: Span) -> Iterator[Span]:
    try:
        with started.active():
            yield started
    except Exception as exc:
        started.fail(type(exc).__name__)
        raise
    finally:
        started.end()
