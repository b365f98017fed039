"""One base for every thread that repeats a step in the background."""

from __future__ import annotations

import abc
import threading

from dispatch.errors import DispatchError
from dispatch.telemetry import logger

log = logger(__name__)


class Background(abc.ABC):
    """A daemon thread that repeats `step` until `stop`. An error never ends it; it is logged when it begins and ends.

    Args:
        name: of the thread; in the log lines, too.
        interval: seconds between two steps.
    """

    def __init__(self, name: str, *, interval: float) -> None:
        self._thread_name = name
        self._interval = interval
        self._stopping = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._error = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
        self._thread.start()

    def stop(self, wait: float = 0.0) -> None:
        """End the thread after its current step.

        Args:
            wait: seconds to wait for that.
        """
        self._stopping = True
        self._wake.set()
        if wait and self._thread is not None and self._thread.is_alive():
            self._thread.join(wait)

    def wake(self) -> None:
        """Have the next step begin at once."""
        self._wake.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called; a long step asks."""
        return self._stopping

    def pause(self, seconds: float) -> None:
        """Wait inside a step; `wake` and `stop` end the wait."""
        self._wake.wait(seconds)

    @abc.abstractmethod
    def step(self) -> float | None:
        """One step.

        Returns:
            Seconds until the next one; None for the interval.
        """

    def finish(self) -> None:  # noqa: B027 - most threads have nothing to do
        """Called by the thread once, after its last step."""

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            wait = self._try_step()
            if not self._stopping:
                self._wake.wait(self._interval if wait is None else wait)
        self.finish()

    def _try_step(self) -> float | None:
        try:
            wait = self.step()
        except Exception as exc:  # noqa: BLE001 - the thread must go on, whatever a step meets
            self._note(exc)
            return None
        if self._error:
            log.info("background thread recovered", thread=self._thread_name)
        self._error = ""
        return wait

    def _note(self, exc: Exception) -> None:
        """Log an error once for as long as it stays the same; only what is not foreseen comes with its traceback."""
        error = f"{type(exc).__name__}: {exc}"
        if error != self._error:
            unforeseen = not isinstance(exc, (DispatchError, OSError))
            log.warning("background step failed", thread=self._thread_name, reason=error, exc_info=unforeseen)
        self._error = error
