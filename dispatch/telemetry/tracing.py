"""Traces: what the rest of the code calls, whether anybody records spans or not.

Off unless ``OTEL_TRACES_EXPORTER`` says ``otlp`` or ``console``: then nothing is instrumented, and each call here is
one comparison. `dispatch.telemetry.otel` is the other half.

The trace of a task::

    client
    └ POST /v1/tasks                      gateway
      └ apply_async/<type>                gateway, creates the message: its traceparent is this span
        ├ publish robot.task.topic        until the broker's confirm
        ├ wait robot.task.q               the time in the queue
        └ run/<type>                      child; its span id is the run's fence, so the main process knows it too
          └ route <type>                  main, creates the next copy: its traceparent is this span
            ├ publish robot.retry
            ├ wait robot.retry.q.1m       the time on the rung
            ├ wait robot.task.q
            └ run/<type>                  next attempt, linked to the run before
"""

from __future__ import annotations

import contextlib
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

#: How spans travel to a collector, and the variables that could ask for something else.
PROTOCOL, _PROTOCOLS = "http/protobuf", ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

#: Attribute values by name.
Attributes = dict[str, Any]

_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")


class Span:
    """A span; this one records nothing."""

    trace_id = ""
    span_id = ""
    traceparent: str | None = None  #: to hand on

    def set(self, attributes: Attributes) -> None:
        """Say more about it."""

    def link(self, traceparent: str | None) -> None:
        """Point to another span."""

    def fail(self, type_: str, message: str = "") -> None:
        """What it stands for went wrong."""

    def active(self) -> contextlib.AbstractContextManager[None]:
        """It is the current span of this thread while the block lasts; it does not end with it."""
        return _NO_BLOCK

    def end(self) -> None:
        """It is over."""


class Backend(Protocol):
    """What `dispatch.telemetry.otel` does."""

    def current(self) -> Span:
        """The thread's span."""

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
        """Begin a span; with ``end`` it is over already. Times are epoch seconds."""  # fmt: skip

    def expect(self, span_id: str) -> None:
        """Give this thread's next span this id."""

    def instrument_tasks(self) -> None:
        """Spans of `apply_async` and of runs."""

    def instrument_http(self) -> None:
        """Spans of requests to the outside."""

    def instrument_app(self, app: Any) -> None:
        """Spans of a Flask application's requests."""

    def abandon(self, task: Any, task_id: str, error: str) -> None:
        """A publish raised: end the span that the instrumentation would leave current."""

    def stop(self, timeout: float) -> None:
        """Export what is left, some seconds at most."""


_NOTHING = Span()
_NO_BLOCK: contextlib.AbstractContextManager[None] = contextlib.nullcontext()

#: A block without a span.
NO_SPAN: contextlib.AbstractContextManager[Span] = contextlib.nullcontext(_NOTHING)

_backend: Backend | None = None


def start(service: str) -> bool:
    """Record spans in this process from now on, if the environment asks for it; call it after each fork.

    Args:
        service: ``gateway`` or ``worker``.

    Returns:
        Whether spans are recorded.

    Raises:
        ConfigurationError: no such exporter or protocol, or a setting that the SDK refuses.
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
            raise ConfigurationError(f"{name}: {os.environ[name]!r} is not {PROTOCOL}, the only one spoken here")
    os.environ.setdefault("OTEL_PROPAGATORS", "tracecontext")  # baggage would make a client's header part of messages
    try:
        _backend = importlib.import_module("dispatch.telemetry.otel").Otel(service, exporter)
    except ValueError as exc:
        raise ConfigurationError(f"OTEL_*: OpenTelemetry refuses a setting: {exc}") from exc
    return True


def stop(timeout: float = 2.0) -> None:
    """Export what is left, for ``timeout`` seconds at most."""
    if _backend is not None:
        _backend.stop(timeout)


def enabled() -> bool:
    """Whether spans are recorded in this process."""
    return _backend is not None


def backend() -> Backend | None:
    """For what only some processes need: instrumentation."""
    return _backend


def current() -> Span:
    """The thread's span."""
    return _NOTHING if _backend is None else _backend.current()


def span(
    name: str,
    *,
    kind: SpanRole = "internal",
    parent: str | None = None,
    links: Sequence[str | None] = (),
    attributes: Attributes | None = None,
) -> contextlib.AbstractContextManager[Span]:
    """A span that is current while the block lasts.

    Args:
        name: what happens.
        kind: as OpenTelemetry has it.
        parent: a traceparent; the thread's span by default.
        links: traceparents of spans that led here.
        attributes: more about it.
    """  # fmt: skip
    if _backend is None:
        return NO_SPAN
    return _running(_backend.begin(name, kind, parent, links, attributes or {}))


def detail(name: str, attributes: Attributes) -> contextlib.AbstractContextManager[Span]:
    """A client span that is only worth something inside another one: background work without a trace makes none."""
    if _backend is None or not _backend.current().trace_id:
        return NO_SPAN
    return _running(_backend.begin(name, "client", None, (), attributes))


def begin(
    name: str, *, parent: str | None = None, links: Sequence[str | None] = (), attributes: Attributes | None = None
) -> Span:
    """A span that somebody ends later, perhaps in another thread; arguments as `span`."""
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
    """A span that is over already.

    Args:
        name: what happened.
        start: epoch seconds.
        end: epoch seconds.
        parent: a traceparent.
        kind: as OpenTelemetry has it.
        span_id: an id that others know it by.
        attributes: more about it.
        failed: the type of the error it ended in.
    """  # fmt: skip
    if _backend is not None and trace_id(parent):
        told = {**(attributes or {}), **({"error.type": failed} if failed else {})}
        _backend.begin(name, kind, parent, (), told, span_id=span_id, start=min(start, end), end=end)


def expect(span_id: str) -> None:
    """Give this thread's next span this id."""
    if _backend is not None and _SPAN_ID.fullmatch(span_id):
        _backend.expect(span_id)


def publish(message: Message, exchange: str) -> contextlib.AbstractContextManager[Span]:
    """The span of one publish and its confirm; of the message's trace when the thread has no span."""
    if _backend is None:
        return NO_SPAN
    parent = None if _backend.current().trace_id else message.text(TRACEPARENT)
    told = messaging("send", message, exchange)
    return _running(_backend.begin(f"publish {exchange}", "producer", parent, (), told))


def example(traceparent: str | None) -> str | None:
    """The trace id, if spans of the trace are recorded."""
    sampled = _backend is not None and traceparent is not None and traceparent[-1:] in "13579bdf"
    return trace_id(traceparent) if sampled else None


@contextlib.contextmanager
def publishing(task: Any, task_id: str | None) -> Iterator[None]:
    """Around `apply_async`: its instrumentation never ends the span of a publish that raised, and leaves it current."""
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
    """A copy that the current span creates: the next run hangs below it; unchanged while nobody records spans.

    Args:
        message: the copy.
        last: the span id of the run before.
    """
    here = current().traceparent
    if here is None:
        return message
    return message.with_headers(**{TRACEPARENT: here, **({LAST_SPAN: last} if last else {})})


def messaging(operation: str, message: Message, destination: str, **more: Any) -> Attributes:
    """What a span about a message says, by the semantic conventions.

    Args:
        operation: ``send``, ``process`` or ``settle``.
        message: the message.
        destination: exchange or queue.
        more: attributes of ours, below ``robot.``; None is left out.
    """
    if _backend is None:
        return {}
    ours = {f"robot.{name}": value for name, value in more.items() if value is not None}
    asked = message.text("x-request-id")
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": message.routing_key,
        "messaging.message.id": message.task_id,
        **({"messaging.message.conversation_id": asked} if asked else {}),
        "messaging.message.body.size": len(message.body),
        "robot.task.id": message.task_id,
        "robot.task.type": message.type,
        "robot.attempt": message.attempt,
        "robot.cycle": message.cycle,
        "robot.seq": message.seq,
        **ours,
    }


@contextlib.contextmanager
def _running(made: Span) -> Iterator[Span]:
    try:
        with made.active():
            yield made
    except Exception as exc:
        made.fail(type(exc).__name__)
        raise
    finally:
        made.end()
