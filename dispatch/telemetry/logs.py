"""Logs: JSON lines on stderr, the same from our code, Celery, gunicorn and every library; for people on a terminal.

Fields of a line: ``time``, ``level``, ``event``, ``logger``, ``service``, ``worker``, ``process``, and where they are
known ``trace_id``, ``span_id``, ``request_id``, ``task_id``, ``type``, ``attempt``.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, merge_contextvars
from structlog.types import Processor

from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import Message
from dispatch.telemetry import tracing

#: What a secret becomes, and the shortest text that is looked for: a shorter one would garble every line.
REDACTED, SHORTEST_SECRET = "[secret]", 4

#: Characters of a field: a handler may fail with any text, and whoever collects the lines takes only so long ones.
LONGEST = 16_384

#: The order in which a line begins.
_FIRST = ("time", "level", "event", "logger", "service", "worker", "process")

#: Arguments of Celery's own lines that show what a client sent or a handler returned.
_CELERY_VALUES = ("args", "kwargs", "return_value")

#: Libraries that log whole URLs, or each byte, at level INFO.
_NOISY = ("amqp", "httpx", "httpcore", "urllib3", "opentelemetry")

_process: dict[str, Any] = {}
_secrets: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("secrets", default=())


def configure(service: str = "", *, level: int = logging.INFO) -> None:
    """Send every log line of this process through one handler; said again, it only changes what is given.

    Args:
        service: ``gateway``, ``worker``, ``flower``; what is known already by default.
        level: of the lines that are written.
    """
    identify(service=service or _process.get("service") or "dispatch")
    structlog.configure(
        processors=_OURS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Stderr()
    handler.setFormatter(_formatter(pretty=sys.stderr.isatty()))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def identify(**fields: Any) -> None:
    """Say in every line of this process who it is: ``service``, ``worker``."""
    _process.update({name: value for name, value in fields.items() if value})


def logger(name: str) -> Any:
    """A logger.

    Args:
        name: where the line comes from, ``dispatch.<module>``.
    """
    return structlog.stdlib.get_logger(name)


def task_fields(message: Message) -> dict[str, Any]:
    """What lines about a delivery carry."""
    return {
        "task_id": message.task_id,
        "type": message.type,
        "attempt": message.attempt,
        **trace_fields(message.text("traceparent")),
        "request_id": message.text("x-request-id"),
    }


def trace_fields(traceparent: str | None) -> dict[str, Any]:
    """What lines below a span carry."""
    trace = trace_id(traceparent)
    return {} if traceparent is None or trace is None else {"trace_id": trace, "span_id": traceparent.split("-")[2]}


def task_log(message: Message) -> Any:
    """A logger bound to a delivery."""
    return logger("dispatch.task").bind(**task_fields(message))


def about(message: Message) -> contextlib.AbstractContextManager[None]:
    """Every line of this thread is about a delivery while the block lasts, whoever writes it."""
    return bound_contextvars(**task_fields(message))


def begin(message: Message) -> None:
    """Every line of this thread is about a delivery from now on, until `clear`: what Celery says after its run, too."""
    clear_contextvars()
    bind_contextvars(**task_fields(message))


def clear() -> None:
    """The lines of this thread are about nothing in particular."""
    clear_contextvars()


@contextlib.contextmanager
def hiding(secrets: tuple[str, ...]) -> Iterator[None]:
    """No line of this thread shows these values while the block lasts."""
    token = _secrets.set(secrets)
    try:
        yield
    finally:
        _secrets.reset(token)


def hides() -> bool:
    """Whether this thread has anything to hide."""
    return bool(_secrets.get())


def redacted(text: str) -> str:
    """A text without what this thread hides."""
    return redact(text, _secrets.get())


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """The text without the secrets; the longest first, so that none shows a part of another."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
    return text


# --- processors ----------------------------------------------------------------------------------
def _identity(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in _process.items():
        event.setdefault(name, value)
    event["process"] = os.getpid()
    span = tracing.current()
    # A line about a task belongs to its trace, also while a span of another trace is current.
    if span.trace_id and event.setdefault("trace_id", span.trace_id) == span.trace_id:
        event["span_id"] = span.span_id
    return event


def _celery(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Celery says which task a line is about in the record's ``data``."""
    record = event.get("_record")
    data = getattr(record, "data", None)
    if isinstance(data, Mapping) and isinstance(data.get("id"), str):
        event.setdefault("task_id", data["id"])
        event.setdefault("type", data.get("name"))
    return event


def _hide(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    secrets = _secrets.get()
    if not secrets:
        return event
    return {name: hidden(value, secrets) for name, value in event.items()}


def hidden(value: Any, secrets: tuple[str, ...]) -> Any:
    """A JSON-like value without the secrets."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {redact(str(name), secrets): hidden(each, secrets) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [hidden(each, secrets) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value), secrets)


def _cut(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """After `_hide`, which would not know half of a secret."""
    return {name: shortened(value) if isinstance(value, str) else value for name, value in event.items()}


def shortened(text: str) -> str:
    """The text's beginning and end, where a traceback says what happened."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def _ordered(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return {**first, **{name: value for name, value in event.items() if value is not None}}


def _json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps(event, default=str, ensure_ascii=False)


def _formatter(*, pretty: bool) -> logging.Formatter:
    render: Processor = structlog.dev.ConsoleRenderer(timestamp_key="time") if pretty else _json
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_COMMON, _celery, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _hide, _cut, _ordered, render],
    )


_COMMON: list[Processor] = [
    merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    _identity,
]

#: One list for ever: loggers that have been used keep it.
_OURS: list[Processor] = [
    structlog.stdlib.filter_by_level,
    *_COMMON,
    structlog.processors.format_exc_info,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at the moment; one write a line, so that processes don't mix theirs."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(f"{self.format(record)}\n")
            self.flush()
        except Exception:  # noqa: BLE001 - logging's own way of saying that it can't
            self.handleError(record)


class _NoValues(logging.Filter):
    """Celery's lines without arguments and results: a handler may return what its client wants nobody to read."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, Mapping):
            record.args = {k: ("…" if k in _CELERY_VALUES else v) for k, v in record.args.items()}
        return True


for _name in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_name).addFilter(_NoValues())

#: For code that logs before anything is configured.
logging.getLogger("dispatch").addHandler(logging.NullHandler())
