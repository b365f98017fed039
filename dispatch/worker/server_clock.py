"""The server's clock, as far as this process has it without a round trip: deadlines go by it, and not by a worker's own, which may be ahead."""

from __future__ import annotations

import time


class ServerClock:
    """Redis's time of day, from the last time that it was read and what this process's clock has gone on since. Thread-safe.

    Until it has been read it is this process's own.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None  # of the monotonic clock, which no correction changes

    def read(self, server: float, before: float, after: float) -> None:
        """Redis has answered what time it is.

        Args:
            server: its time, epoch seconds.
            before: `time.monotonic` before the question.
            after: the same after the answer.
        """
        self._ahead = server - (before + after) / 2

    def __call__(self) -> float:
        """Now, epoch seconds."""
        return time.time() if self._ahead is None else time.monotonic() + self._ahead
