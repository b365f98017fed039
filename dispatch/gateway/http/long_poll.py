"""Following a task at a low request rate: ETag, Retry-After, long poll."""

from __future__ import annotations

import collections
import enum
import math
import socket
import threading
import time
from collections.abc import Callable

import flask

from dispatch.protocol.record import Record, State
from dispatch.telemetry import metrics

POLL, STREAM = KINDS = ("long-poll", "stream")


def etag(record: Record) -> str:
    """The entity tag without quotes: the revision."""
    return str(record.revision)


def retry_after(record: Record, now: float | None = None) -> int | None:
    """Seconds until the client should poll again.

    Args:
        record: the task.
        now: epoch seconds; the current time by default.

    Returns:
        The time until its next attempt in RETRY_WAIT, or until it wakes in DELAYED and WAITING, 1 in other states; None once it has ended.
    """
    if record.state.terminal:
        return None
    until = {
        State.RETRY_WAIT: record.next_attempt_at,
        State.DELAYED: record.wakes_at,
        State.WAITING: record.wakes_at,
    }.get(record.state)
    if until is None:
        return 1
    return max(1, math.ceil(until / 1_000 - (time.time() if now is None else now)))


#: Key in `flask.Flask.extensions` of a callable: whether the process is shutting down.
ENDING = "ending"

#: States of a TCP connection whose client has closed it (Linux, `tcp_states.h`): CLOSE, CLOSE_WAIT.
_HUNG_UP = frozenset({7, 8})

_TCP_INFO = getattr(socket, "TCP_INFO", None)


def cancellation() -> Callable[[], bool]:
    """A check for the current request: whether its response is no longer needed; call it repeatedly.

    True once the client has closed the connection, which would otherwise be noticed at the second write at the earliest
    (on Linux only: elsewhere it is); or once the process is shutting down, which would wait for this request.
    """
    connection = flask.request.environ.get("gunicorn.socket")
    ending: Callable[[], bool] = flask.current_app.extensions.get(ENDING, lambda: False)
    if connection is None or _TCP_INFO is None:
        return ending
    return lambda: ending() or _hung_up(connection)


def _hung_up(connection: socket.socket) -> bool:
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] in _HUNG_UP  # type: ignore[arg-type]
    except OSError:  # closed on this side, or no TCP
        return connection.fileno() < 0


class WaitPlace(enum.StrEnum):
    """Whether there is a place to wait."""

    TAKEN = "taken"
    ROOM = "room"  #: none: as many wait as the process has places for
    SHARE = "share"  #: none: the principal has its share


class WaitingRoom:
    """The places to wait of a process, for long polls and event streams together. Thread-safe.

    Args:
        places: of the process.
        share: places of one principal.
    """

    def __init__(self, places: int, share: int) -> None:
        self._places, self._share = places, share
        self._lock = threading.Lock()
        self._taken: collections.Counter[str] = collections.Counter()
        self._kinds: collections.Counter[str] = collections.Counter(dict.fromkeys(KINDS, 0))

    def enter(self, principal: str, kind: str) -> WaitPlace:
        """Take a place.

        Args:
            principal: who waits.
            kind: one of `KINDS`.

        Returns:
            TAKEN, which `leave` must follow, or why not.
        """
        with self._lock:
            place = self._free(principal)
            if place is WaitPlace.TAKEN:
                self._count(principal, kind, 1)
            else:
                metrics.HTTP_WAITS_REFUSED.inc(place)
            return place

    def leave(self, principal: str, kind: str) -> None:
        """Give a place back; arguments as `enter`."""
        with self._lock:
            self._count(principal, kind, -1)
            if not self._taken[principal]:
                del self._taken[principal]

    def _free(self, principal: str) -> WaitPlace:
        if self._taken.total() >= self._places:
            return WaitPlace.ROOM
        return WaitPlace.SHARE if self._taken[principal] >= self._share else WaitPlace.TAKEN

    def _count(self, principal: str, kind: str, more: int) -> None:
        self._taken[principal] += more
        self._kinds[kind] += more
        metrics.HTTP_WAITING.set(self._kinds[kind], kind)
