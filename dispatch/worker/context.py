"""What a handler is given beside its payload."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from dispatch.config.groups import HandlerSettings
from dispatch.errors import PermanentError, StoreError, Throttled
from dispatch.protocol.callbacks import Callback, CallbackUrls
from dispatch.protocol.ids import child_traceparent, trace_id
from dispatch.protocol.mending import effect_key
from dispatch.protocol.message import Message
from dispatch.protocol.waits import is_signal
from dispatch.store.claims import Claims, Ticket
from dispatch.store.signals import Signals
from dispatch.submission.children import MAX_CHILDREN, ChildSubmitter, ChildTask
from dispatch.tasktypes.context import Log
from dispatch.tasktypes.waiting import Signal
from dispatch.telemetry import logs, task_log, tracing
from dispatch.worker.limits import UNLIMITED_RUN, RunLimits

#: Seconds for which a callback URL is valid by default.
CALLBACK_TTL = 60 * 86_400.0

#: Seconds: the least pause between two progress records.
PROGRESS_PAUSE = 0.5


class RunContext:
    """What a handler is given beside its payload; see `dispatch.tasktypes.context.Context`."""

    def __init__(
        self,
        message: Message,
        ticket: Ticket,
        claims: Claims,
        settings: HandlerSettings,
        limits: RunLimits = UNLIMITED_RUN,
        *,
        children: ChildSubmitter | None = None,
        signals: Signals | None = None,
        callbacks: CallbackUrls | None = None,
    ) -> None:
        self._message = message
        self._ticket = ticket
        self._claims = claims
        self._limits = limits
        self._children = children
        self._signals = signals
        self._callbacks = callbacks or CallbackUrls()
        self._submitted: set[str] = set()
        self._recorded_at = self._asked_at = 0.0
        self._cancelled = False
        self.settings = settings
        self.task_id = message.task_id
        self.attempt = message.attempt
        self.cycle = message.cycle
        self.step = message.step
        self.state: Any = None  #: `dispatch.worker.steps.restored`
        self._span = tracing.current().traceparent

    @functools.cached_property
    def traceparent(self) -> str:
        """What the handler sends to others."""
        return self._span or child_traceparent(self._message.text("traceparent"))

    @functools.cached_property
    def log(self) -> Log:
        """A logger bound to the delivery."""
        bound: Log = task_log(self._message)
        return bound

    @property
    def idempotency_key(self) -> str:
        """Survives retries and redrives, until one is mended."""
        return effect_key(self._message)

    @property
    def trace_id(self) -> str:
        """The same through every hop."""
        return trace_id(self.traceparent) or ""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Read from Redis at each use."""
        self._limits.check()
        if self._signals is None:
            return ()
        try:
            return self._signals.read(self.task_id)
        except StoreError as exc:
            raise Throttled(f"the signals could not be read: {exc}", type="store-unavailable") from exc

    def callback_url(self, name: str, *, seconds: float = CALLBACK_TTL) -> str | None:
        """The same for each attempt of a step, so that what is sent with an idempotency key is the same, too."""
        if not is_signal(name):
            raise PermanentError(f"no signal has the name {name!r}", type="invalid-signal")
        begin = self._message.step_due_at / 1_000 or time.time()
        return self._callbacks.url(Callback(self.task_id, name, int(begin + seconds)))

    def progress(self, percent: int, message: str = "") -> None:
        """Record progress, twice a second at most; dropped when Redis is away."""
        self._limits.check()
        now = time.monotonic()
        if now - self._recorded_at < PROGRESS_PAUSE and percent < 100:
            return
        self._recorded_at = self._asked_at = now
        self._record({"percent": max(0, min(100, int(percent))), "message": logs.redacted(message)[:500]})

    def cancelled(self) -> bool:
        """Ask Redis, twice a second at most."""
        self._limits.check()
        now = time.monotonic()
        if not self._cancelled and now - self._asked_at >= PROGRESS_PAUSE:
            self._asked_at = now
            self._record(None)
        return self._cancelled

    def submit(
        self,
        type: str,
        payload: Mapping[str, Any],
        *,
        key: str,
        delay: float = 0.0,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Submit a child."""
        self._limits.check()
        assert self._children is not None  # noqa: S101 - a worker's runs have one
        self._submitted.add(key)
        if len(self._submitted) > MAX_CHILDREN:
            raise PermanentError(f"a run can submit {MAX_CHILDREN} tasks at most", type="too-many-children")
        child = ChildTask(type, payload, key, delay, labels or {})
        return self._children.submit(self._message, self.traceparent, child)

    def _record(self, progress: Mapping[str, Any] | None) -> None:
        try:
            self._cancelled = self._claims.progress(self.task_id, self._ticket.fence, progress)
        except StoreError as exc:
            self.log.warning("progress dropped", reason=str(exc))
