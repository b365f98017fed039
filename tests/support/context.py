"""A task's context without a worker, for calling handlers directly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from dispatch.config.settings import Settings, load
from dispatch.protocol.ids import derived_id
from dispatch.tasktypes import Signal


class RecordingLog:
    """Keeps what a handler logs."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = debug = info

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


@dataclasses.dataclass
class FakeContext:
    """What a handler is given; `reports` holds its progress, `cancel` decides when it is asked to stop."""

    settings: Settings = dataclasses.field(default_factory=lambda: load({}))
    task_id: str = "0198c1a2-0000-7000-8000-000000000001"
    idempotency_key: str = "key-1"
    attempt: int = 1
    cycle: int = 0
    step: int = 0
    state: Any = None
    signals: tuple[Signal, ...] = ()
    callback: str | None = None
    trace_id: str = "4bf92f3577b34da6a3ce929d0e0e4736"
    traceparent: str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    cancel: Callable[[FakeContext], bool] = lambda _: False
    log: RecordingLog = dataclasses.field(default_factory=RecordingLog)
    reports: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    submitted: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def callback_url(self, name: str, *, seconds: float = 5_184_000.0) -> str | None:
        return self.callback and f"{self.callback}/{name}/{seconds:g}"

    def progress(self, percent: int, message: str = "") -> None:
        self.reports.append((percent, message))

    def submit(self, type: str, payload: Any, *, key: str, delay: float = 0.0, labels: Any = None) -> str:
        self.submitted.append((type, payload, key, delay, labels))
        return derived_id(0, key)

    def cancelled(self) -> bool:
        return self.cancel(self)
