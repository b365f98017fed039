"""Logs: JSON lines on stderr in one format for `dispatch`, Celery, gunicorn and libraries; readable text on a terminal.

Fields of a line: ``time``, ``level``, ``event``, ``logger``, ``service``, ``worker``, ``process``, and where known
``trace_id``, ``span_id``, ``request_id``, ``task_id``, ``type``, ``attempt``.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.contextvars import clear_contextvars, merge_contextvars
from structlog.types import Processor

from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import Message
from dispatch.telemetry import tracing

#: Replacement of a secret, and the shortest secret that is replaced: replacing shorter ones would garble every line.
REDACTED, SHORTEST_SECRET = "[secret]", 4

#: Characters of a field: an error may have any length, and log collectors limit the length of a line.
LONGEST = 16_384

#: The fields at the start of a line, in order.
_FIRST = ("time", "level", "event", "logger", "service", "worker", "process")

#: Arguments of Celery's log calls that contain payloads and results.
_CELERY_VALUES = ("args", "kwargs", "return_value")

#: Libraries that log complete URLs or raw bytes at level INFO.
_NOISY = ("amqp", "httpx", "httpcore", "urllib3", "opentelemetry")

#: How Celery's line about a success begins; a runner writes ours.
_SUCCEEDED = "Task %(name)s[%(id)s] succeeded"

#: What turns colours on and off on a terminal.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_process: dict[str, Any] = {}
_identified = 0  # how often they were set
_about: contextvars.ContextVar[Callable[[], Mapping[str, Any]] | None] = contextvars.ContextVar("about", default=None)
_secrets: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("secrets", default=())


def configure(service: str = "", *, level: int = logging.INFO) -> None:
    """Route all log records of this process to one handler; a repeated call replaces it.

    Args:
        service: ``gateway``, ``worker``, ``flower``; unchanged by default.
        level: lowest level that is written.
    """
    identify(service=service or _process.get("service") or "dispatch")
    structlog.configure(
        processors=_OURS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Stderr(pretty=sys.stderr.isatty())
    handler.setFormatter(_formatter(pretty=handler.pretty))
    root = logging.getLogger()
    for old in [existing for existing in root.handlers if isinstance(existing, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def identify(**fields: Any) -> None:
    """Set fields of every line of this process: ``service``, ``worker``."""
    global _identified  # noqa: PLW0603 - of the process, as `_process` is
    _process.update({name: value for name, value in fields.items() if value})
    _identified += 1


def logger(name: str) -> Any:
    """A logger.

    Args:
        name: ``dispatch.<module>``.
    """
    return structlog.stdlib.get_logger(name)


class FrequentLine:
    """An event that is logged so often that each step counts: ``logger(name).info(event, **fields)``, the same line.

    Args:
        name: the logger's.
        event: the event.
        level: ``info``, ``warning``.
    """

    def __init__(self, name: str, event: str, level: str = "info") -> None:
        self._name, self._event, self._level = name, event, level
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self._standard = logging.getLogger(name)
        self._usual = logger(name)
        self._encoded: tuple[tuple[int, int], str] = ((0, 0), "")

    def write(self, fields: Mapping[str, Any]) -> None:
        """Log it.

        Args:
            fields: of the line, in their order, those that are bound included; none is longer than `LONGEST`.
        """
        handler = self._handler()
        if handler is None:
            getattr(self._usual, self._level)(self._event, **fields)
            return
        given = {name: value for name, value in fields.items() if value is not None}
        time = dt.datetime.now(tz=dt.UTC).isoformat()[:-6]
        line = (
            f'{{"time": "{time}Z", {self._own()}, {_encode(given)[1:]}'
            if given
            else f'{{"time": "{time}Z", {self._own()}}}'
        )
        with contextlib.suppress(OSError, ValueError):  # standard error is closed
            handler.write(line)

    def _own(self) -> str:
        """What all lines of this process have, encoded."""
        pid = os.getpid()
        if self._encoded[0] != (pid, _identified):
            own = {"level": self._level, "event": self._event, "logger": self._name, **_process, "process": pid}
            self._encoded = (pid, _identified), _encode(own)[1:-1]
        return self._encoded[1]

    def _handler(self) -> _Stderr | None:
        """Where the finished line goes; None where it takes the usual way: to another handler, for people, or not at all."""
        handlers = logging.getLogger().handlers
        handler = handlers[0] if len(handlers) == 1 else None
        if not isinstance(handler, _Stderr) or handler.pretty or tracing.enabled() or hides():
            return None
        return handler if self._standard.isEnabledFor(self._least) else None


def task_fields(message: Message) -> dict[str, Any]:
    """The fields of lines about a delivery."""
    return {
        "task_id": message.task_id,
        "type": message.type,
        "attempt": message.attempt,
        **trace_fields(message.text("traceparent")),
        "request_id": message.text("x-request-id"),
    }


def trace_fields(traceparent: str | None) -> dict[str, Any]:
    """The fields of lines within a span."""
    trace = trace_id(traceparent)
    return {} if traceparent is None or trace is None else {"trace_id": trace, "span_id": traceparent.split("-")[2]}


def task_log(message: Message) -> Any:
    """A logger bound to a delivery."""
    return logger("dispatch.task").bind(**task_fields(message))


def begin(message: Message) -> None:
    """Bind a delivery's fields to all lines of this thread until `clear`, including those of Celery after the run."""
    clear()
    about(functools.partial(task_fields, message))


def about(fields: Callable[[], Mapping[str, Any]]) -> None:
    """Have all lines of this thread, or greenlet, get fields, until `clear` or the next call.

    Args:
        fields: makes them, for each line: most requests and runs write one, and that one directly.
    """
    _about.set(fields)


def clear() -> None:
    """Unbind all fields of this thread."""
    clear_contextvars()
    _about.set(None)


@contextlib.contextmanager
def hiding(secrets: tuple[str, ...]) -> Iterator[None]:
    """Redact these values in all lines of this thread for the block."""
    token = _secrets.set(secrets)
    try:
        yield
    finally:
        _secrets.reset(token)


def hides() -> bool:
    """Whether this thread has secrets to redact."""
    return bool(_secrets.get())


def redacted(text: str) -> str:
    """The text with this thread's secrets redacted."""
    return redact(text, _secrets.get())


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """The text with the secrets redacted; the longest first, so that no part of one remains."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
    return text


# --- processors ----------------------------------------------------------------------------------
def _subject(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The fields of `about`."""
    fields = _about.get()
    return event if fields is None else {**fields(), **event}


def _identity(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in _process.items():
        event.setdefault(name, value)
    event["process"] = os.getpid()
    span = tracing.current()
    # A line about a task keeps its trace id while a span of another trace is current.
    if span.trace_id and event.setdefault("trace_id", span.trace_id) == span.trace_id:
        event["span_id"] = span.span_id
    return event


def _celery(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Celery puts the id and the name of the task into the record's ``data``."""
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
    """A JSON-like value with the secrets redacted."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {redact(str(name), secrets): hidden(member, secrets) for name, member in value.items()}
    if isinstance(value, list | tuple | set):
        return [hidden(item, secrets) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value), secrets)


def _cut(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """After `_hide`, which does not recognise part of a secret."""
    return {name: shortened(value) if isinstance(value, str) else value for name, value in event.items()}


def shortened(text: str) -> str:
    """The start and the end of the text: a traceback has its error there."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def _plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Without the colours that werkzeug puts into its lines whatever they are written to."""
    text = event.get("event")
    return {**event, "event": _COLOUR.sub("", text)} if isinstance(text, str) and "\x1b" in text else event


def _ordered(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return {**first, **{name: value for name, value in event.items() if value is not None}}


_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode


def _json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


def _formatter(*, pretty: bool) -> logging.Formatter:
    render: Processor = structlog.dev.ConsoleRenderer(timestamp_key="time") if pretty else _json
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_COMMON, _celery, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _hide, _cut, _plain, _ordered, render],
    )


_COMMON: list[Processor] = [
    merge_contextvars,
    _subject,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    _identity,
]

#: A single list: loggers that are in use keep a reference to it.
_OURS: list[Processor] = [
    structlog.stdlib.filter_by_level,
    *_COMMON,
    structlog.processors.format_exc_info,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`; one write a line, so that lines of several processes do not interleave.

    Args:
        pretty: readable text instead of JSON.
    """

    def __init__(self, *, pretty: bool = False) -> None:
        logging.Handler.__init__(self)
        self.pretty = pretty

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record))
        except Exception:  # noqa: BLE001 - as in logging.StreamHandler
            self.handleError(record)

    def write(self, line: str) -> None:
        """Write a finished line."""
        self.stream.write(f"{line}\n")
        self.flush()


class _NoValues(logging.Filter):
    """Removes arguments and results from Celery's lines: they may be confidential."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, Mapping):
            record.args = {k: ("…" if k in _CELERY_VALUES else v) for k, v in record.args.items()}
        return True


_EXPECTED = frozenset({"raised expected", "ignored"})


class _Details(logging.Filter):
    """Celery's lines about what one line of ours has: an attempt that failed, one that succeeded, a step that ended in a wait."""

    def filter(self, record: logging.LogRecord) -> bool:
        expected = isinstance(record.args, Mapping) and record.args.get("description") in _EXPECTED
        if record.levelno != logging.INFO or not (expected or str(record.msg).startswith(_SUCCEEDED)):
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger().isEnabledFor(logging.DEBUG)


for _name in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_name).addFilter(_Details())
    logging.getLogger(_name).addFilter(_NoValues())

#: For log calls before `configure`.
logging.getLogger("dispatch").addHandler(logging.NullHandler())
