"""The line in which deliveries wait for a place; with lanes of work, a line each, which take turns.

A lane's share of the places: each other lane keeps one, so that what comes in it starts at once, however many tasks of another
lane wait or run. Runs that take some milliseconds are not counted: the place that they leave is free in a moment.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from dispatch.worker.pace import AHEAD


class DeliveryLine(Protocol):
    """Deliveries that wait. For the event loop's thread."""

    def append(self, request: Any, /) -> None:
        """A delivery comes."""

    def extendleft(self, requests: Iterable[Any], /) -> None:
        """These are the next ones again, the last one first."""

    def clear(self) -> None:
        """Forget them."""

    def peek(self) -> Any | None:
        """The next one; None when none may start."""

    def popleft(self) -> Any:
        """Take out the one that `peek` returned."""

    def __len__(self) -> int: ...


class OneLine(collections.deque[Any]):
    """The line of a worker without lanes."""

    def peek(self) -> Any | None:
        """The first one."""
        return self[0] if self else None


class LaneLines:
    """A line for each lane. For the event loop's thread.

    Args:
        lane_of: the lane of a task type.
        lanes: how many there are.
        places: runs at once at most.
        seconds: how long a run of a type takes, as far as is known.
    """

    def __init__(
        self, lane_of: Callable[[str], str], *, lanes: int, places: int, seconds: Callable[[str], float]
    ) -> None:
        self._lane_of = lane_of
        self._seconds = seconds
        self._share = max(1, places - (lanes - 1))
        self._lines: dict[str, collections.deque[Any]] = {}  # the next lane first
        self._running: dict[str, set[Any]] = {}
        self._next = ""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def append(self, request: Any) -> None:
        """A delivery comes."""
        self._line(request).append(request)

    def extendleft(self, requests: Iterable[Any]) -> None:
        """These are the next ones of their lanes again, the last one first."""
        for request in requests:
            self._line(request).appendleft(request)

    def clear(self) -> None:
        """Forget them; what runs still has its place."""
        self._lines.clear()

    def peek(self) -> Any | None:
        """The next one of the lane whose turn it is; None when each lane that waits has its share of the places."""
        for lane, line in self._lines.items():
            if line and (not line[0].deliverable or self._busy(lane) < self._share):
                self._next = lane
                return line[0]
        return None

    def popleft(self) -> Any:
        """Take out the one that `peek` returned; the other lanes have the next turns."""
        line = self._lines.pop(self._next)
        request = line.popleft()
        self._lines[self._next] = line
        if request.deliverable and self._seconds(request.wire.type) > AHEAD:
            self._running.setdefault(self._next, set()).add(request)
        return request

    def _busy(self, lane: str) -> int:
        running = {request for request in self._running.get(lane, ()) if not request.over}
        self._running[lane] = running
        return len(running)

    def _line(self, request: Any) -> collections.deque[Any]:
        return self._lines.setdefault(self._lane_of(request.wire.type), collections.deque())
