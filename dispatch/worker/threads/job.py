"""One delivery in a thread, from the event loop's thread to the pool's and back."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded

from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.worker import tracer
from dispatch.worker.limits import ThreadLimits
from dispatch.worker.outcomes import LIMITS, info_of


class ThreadJob:
    """One delivery. All but `run` is for the event loop's thread.

    Args:
        request: a `dispatch.worker.request.DeliveryRequest`; the run's context finds its limits in its arguments.
        soft: seconds of the soft limit; None for none.
        hard: seconds of the hard limit; None for none.
    """

    def __init__(self, request: Any, *, soft: float | None, hard: float | None) -> None:
        self.request = request
        self.limits = ThreadLimits(soft)
        self._hard = hard
        self._lock = threading.Lock()  # of the one question whether the run ended before its fence fell
        self._since = math.inf  # `time.monotonic` seconds of its begin, which its thread sets
        self._ended = False
        self._report: Any = None
        self._error: ExceptionInfo | None = None
        self._arguments = request.arguments
        self._arguments[2][LIMITS] = self.limits

    # --- the pool's thread ---------------------------------------------------------------------------
    def run(self) -> bool:
        """Run it.

        Returns:
            Whether it ended in time: only then does its thread have a place in the pool any more.
        """
        self._since = time.monotonic()
        try:
            self._report = tracer.trace(*self._arguments)
        except BaseException as exc:  # noqa: BLE001 - sys.exit() in a handler ends its attempt, not the thread
            self._error = _failed(exc)
        with self._lock:
            self._ended = True
            return not self.limits.fenced

    # --- the event loop's thread -----------------------------------------------------------------------
    def accept(self, now: float) -> None:
        """It is given to the threads.

        Args:
            now: `time.monotonic` seconds.
        """
        self.request.on_accepted(os.getpid(), now)

    def overdue(self, now: float) -> bool:
        """Whether its hard limit has passed; a soft one takes effect in the run's context.

        Args:
            now: `time.monotonic` seconds.
        """
        if self.limits.soft and self._since + self.limits.soft <= now and not self.limits.soft_reported:
            self.limits.soft_passed = self.limits.soft_reported = True
            self.request.on_timeout(True, self.limits.soft)
        return self._hard is not None and self._since + self._hard <= now

    @property
    def begun(self) -> bool:
        """Whether a thread has it."""
        return self._since < math.inf

    def fence(self) -> bool:
        """Refuse what its run may report from now on.

        Returns:
            False when the run has ended: its report is on the way, and counts.
        """
        with self._lock:
            self.limits.fenced = not self._ended
            return self.limits.fenced

    def deliver(self) -> None:
        """Pass on how it ended."""
        if self._error is not None:
            self.request.on_failure(self._error)
        else:
            self.request.on_success(self._report)

    def time_out(self) -> None:
        """Pass on that its hard limit has passed, as if its process had been killed."""
        self.request.on_failure(info_of(TimeLimitExceeded(self._hard)))
        self.request.on_timeout(False, self._hard)

    def fail(self, error: Exception) -> None:
        """Pass on that it was ended, as if its process had been killed."""
        self.request.on_failure(info_of(error))

    def give_up(self) -> None:
        """Pass on that the worker ends without it."""
        self.request.on_failure(info_of(Terminated("the worker ends")))


def _failed(error: BaseException) -> ExceptionInfo:
    """What is no `Exception` ends an attempt as any error does: with a process of its own it would have ended that.

    Its text stays out: the handler's secrets are not known here any more.
    """
    name = type(error).__name__
    failure = Failure(FailureKind.RETRYABLE, name, f"the handler raised {name}")
    return info_of(error if isinstance(error, Exception) else AttemptFailed.of(failure))
