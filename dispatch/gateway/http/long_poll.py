"""How clients follow a task without hammering: ETag, Retry-After, long polling."""

from __future__ import annotations

import math
import select
import threading
import time
from collections.abc import Callable

import flask

from dispatch.protocol.record import Record, State

#: One thread in this many may wait for a change; the others stay free for everybody else.
_THREADS_PER_WAITER = 4


def etag(record: Record) -> str:
    """The entity tag, without quotes: the revision."""
    return str(record.revision)


def retry_after(record: Record, now: float | None = None) -> int | None:
    """Seconds until the task is worth another look.

    Args:
        record: the task.
        now: epoch seconds; the clock's by default.

    Returns:
        The time until its next attempt while it waits on a rung, 1 while it is under way; None once it has ended.
    """
    if record.state.terminal:
        return None
    if record.state is not State.RETRY_WAIT or record.next_attempt_at is None:
        return 1
    return max(1, math.ceil(record.next_attempt_at / 1_000 - (time.time() if now is None else now)))


#: What an application's extensions know this by: whether its process is about to end.
ENDING = "ending"

#: A hang-up, as far as this system's poll can tell.
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


def leaving() -> Callable[[], bool]:
    """Whether nobody needs the answer to the request in hand any more, to be asked later and again.

    The client has hung up, of which a thread that only waits would hear with its second write at the earliest; or the
    process is about to end, which would wait for this thread.
    """
    connection = flask.request.environ.get("gunicorn.socket")
    ending: Callable[[], bool] = flask.current_app.extensions.get(ENDING, lambda: False)
    if connection is None:
        return ending
    poll = select.poll()
    poll.register(connection, getattr(select, "POLLRDHUP", 0))
    return lambda: ending() or any(event & _HUNG_UP for _, event in poll.poll(0))


class Slots:
    """A fixed number of places, never waited for.

    Args:
        threads: of this process; a quarter of them may wait.
    """

    def __init__(self, threads: int) -> None:
        self._places = (
            threading.BoundedSemaphore(threads // _THREADS_PER_WAITER) if threads >= _THREADS_PER_WAITER else None
        )

    def take(self) -> bool:
        """Take a place; False when there is none left."""
        return self._places is not None and self._places.acquire(blocking=False)

    def leave(self) -> None:
        """Give the place back."""
        if self._places is not None:
            self._places.release()
