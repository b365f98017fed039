"""What a handler is given beside its payload."""

from __future__ import annotations

from typing import Any, Protocol

from dispatch.config.groups import HandlerSettings


class Log(Protocol):
    """The part of a structlog logger that handlers use."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write a line of level info."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Write a line of level warning."""


class Context(Protocol):
    """What a handler is given beside its payload."""

    @property
    def task_id(self) -> str:
        """The task's id."""

    @property
    def idempotency_key(self) -> str:
        """Hand this to the outside: it survives retries and redrives."""

    @property
    def attempt(self) -> int:
        """The attempt that runs, 1-based."""

    @property
    def trace_id(self) -> str:
        """32 hex digits, the same through every hop."""

    @property
    def traceparent(self) -> str:
        """W3C Trace Context header for outgoing calls."""

    @property
    def settings(self) -> HandlerSettings:
        """The settings of handlers; nothing of the system's own."""

    @property
    def log(self) -> Log:
        """A logger bound to the task."""

    def progress(self, percent: int, message: str = "") -> None:
        """Record progress (0-100) and a word about it; may be dropped when Redis is away."""

    def cancelled(self) -> bool:
        """Whether somebody asked for the task to stop; poll it in long handlers."""
