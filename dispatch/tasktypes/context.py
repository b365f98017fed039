"""What a handler is given beside its payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dispatch.config.groups import HandlerSettings
from dispatch.tasktypes.waiting import Signal


class Log(Protocol):
    """The part of a structlog logger that handlers use."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log at level info."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log at level warning."""


class Context(Protocol):
    """The running attempt, passed to the handler with its payload."""

    @property
    def task_id(self) -> str:
        """The task's id."""

    @property
    def idempotency_key(self) -> str:
        """An Idempotency-Key for outgoing calls.

        The task's id, through retries and redrives, until an operator redrives it with another payload or asks for a fresh effect.
        """

    @property
    def attempt(self) -> int:
        """The number of the current attempt, 1-based."""

    @property
    def cycle(self) -> int:
        """How often the task was redriven."""

    @property
    def step(self) -> int:
        """Waits that the task has gone through in this cycle: 0 until a handler returns a `dispatch.tasktypes.Wait`."""

    @property
    def state(self) -> Any:
        """The state of the wait before this step, of the model that the type declares; None without one."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the task has had since it began, oldest first; each use reads them anew.

        Raises:
            Throttled: Redis did not answer: the task waits on a rung, and no attempt is used up.
        """

    def callback_url(self, name: str, *, seconds: float = 5_184_000.0) -> str | None:
        """A URL by which another system can signal this task, without an API key. The same in each attempt of a step.

        Args:
            name: the signal's.
            seconds: for which it is valid, from the begin of the step on; 60 days by default.

        Returns:
            The URL; None where callbacks are not configured (`DISPATCH_PUBLIC_URL`, `DISPATCH_CALLBACK_SECRETS`).

        Raises:
            PermanentError: no signal can have that name.
        """

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
        """Record progress in percent (0-100) and a message; may be dropped while Redis is unavailable."""

    def submit(
        self,
        type: str,
        payload: Mapping[str, Any],
        *,
        key: str,
        delay: float = 0.0,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Submit another task, once: a repeated step submits nothing twice.

        It has this task's principal, request id and trace. At most 100 in a run.

        Args:
            type: the name of its task type.
            payload: checked by that type's model.
            key: distinguishes it from other tasks that this one submits: the same key is the same task, until this one is redriven.
            delay: seconds before which it does not run.
            labels: by which it is found.

        Returns:
            Its task id: it was accepted, and will reach SUCCESS or FAIL.

        Raises:
            PermanentError: it can't ever be submitted: no such type, a payload that is not valid (``invalid-child``), too many
                (``too-many-children``).
            Throttled: it can't be submitted now (an outage, a full queue, a quota). Let it pass: the repeated step submits it.
        """

    def cancelled(self) -> bool:
        """Whether the task was cancelled: undo what can be undone and raise `dispatch.errors.Cancelled`.

        Redis is asked twice a second at most. `DISPATCH_CANCEL_GRACE` seconds after the request the handler is ended.
        """
