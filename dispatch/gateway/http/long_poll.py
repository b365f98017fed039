"""Following a task at a low request rate: ETag, Retry-After, long poll."""

from __future__ import annotations

import math
import select
import threading
import time
from collections.abc import Callable

import flask

from dispatch.protocol.record import Record, State

#: One thread in this many may hold a long poll; the others stay free for other requests.
_THREADS_PER_WAITER = 4


def etag(record: Record) -> str:
    """The entity tag without quotes: the revision."""
    return str(record.revision)


def retry_after(record: Record, now: float | None = None) -> int | None:
    """Seconds until the client should poll again.

    Args:
        record: the task.
        now: epoch seconds; the current time by default.

    Returns:
        The time until its next attempt in RETRY_WAIT, 1 in other states; None once it has ended.
    """
    if record.state.terminal:
        return None
    if record.state is not State.RETRY_WAIT or record.next_attempt_at is None:
        return 1
    return max(1, math.ceil(record.next_attempt_at / 1_000 - (time.time() if now is None else now)))


#: Key in `flask.Flask.extensions` of a callable: whether the process is shutting down.
ENDING = "ending"

#: Events of a closed connection; POLLRDHUP exists on Linux only.
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


def cancellation() -> Callable[[], bool]:
    """A check for the current request: whether its response is no longer needed; call it repeatedly.

    True once the client has closed the connection, which a waiting thread would otherwise notice at its second write at
    the earliest; or once the process is shutting down, which would wait for this thread.
    """
    connection = flask.request.environ.get("gunicorn.socket")
    ending: Callable[[], bool] = flask.current_app.extensions.get(ENDING, lambda: False)
    if connection is None:
        return ending
    poll = select.poll()
    poll.register(connection, getattr(select, "POLLRDHUP", 0))
    return lambda: ending() or any(event & _HUNG_UP for _, event in poll.poll(0))


class Slots:
    """A non-blocking semaphore.

    Args:
        threads: of this process; the semaphore admits a quarter of them.
    """

    def __init__(self, threads: int) -> None:
        self._semaphore = (
            threading.BoundedSemaphore(threads // _THREADS_PER_WAITER) if threads >= _THREADS_PER_WAITER else None
        )

    def acquire(self) -> bool:
        """Acquire a slot; False when none is free."""
        return self._semaphore is not None and self._semaphore.acquire(blocking=False)

    def release(self) -> None:
        """Release a slot."""
        if self._semaphore is not None:
            self._semaphore.release()
