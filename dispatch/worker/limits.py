"""What a run's time limits have come to, for a run that no signal reaches.

A child process is interrupted at its soft limit and killed at its hard one. A thread can be neither: it is asked, at each use of
its context, and what it reports too late is refused by the fence.
"""

from __future__ import annotations

from typing import Protocol

from billiard.exceptions import SoftTimeLimitExceeded


class RunFenced(BaseException):
    """The attempt took longer than its hard limit and has been counted as failed: no outcome of this run is taken.

    No `Exception`, so that a handler which catches those ends all the same.
    """


class RunLimits(Protocol):
    """Asked by the context of a run."""

    def check(self) -> None:
        """Go on, or not.

        Raises:
            SoftTimeLimitExceeded: once, after the soft limit.
            RunFenced: after the hard limit.
        """


class NoLimits:
    """Of a run in a child process."""

    def check(self) -> None:
        """Go on."""


class ThreadLimits:
    """Of a run in a thread. The event loop's thread sets what has passed, the run's thread asks.

    Args:
        soft: seconds of the soft limit; None where there is none.
    """

    def __init__(self, soft: float | None) -> None:
        self.soft = soft
        self.soft_passed = False  #: and not raised yet
        self.soft_reported = False
        self.fenced = False

    def check(self) -> None:
        """Go on, or not; see `RunLimits.check`."""
        if self.fenced:
            raise RunFenced
        if self.soft_passed:
            self.soft_passed = False
            raise SoftTimeLimitExceeded(self.soft)


#: For every run without limits of its own.
UNLIMITED_RUN = NoLimits()
