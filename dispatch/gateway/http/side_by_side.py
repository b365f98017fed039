"""Many short pieces of one request's work at the same time: what they write to Redis and RabbitMQ in one turn goes out together.

Under gunicorn a thread is a greenlet, and the pieces of one turn share a write and a read of each connection.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence


def run(pieces: Sequence[Callable[[], None]], most: int) -> None:
    """Carry pieces of work out, begun in their order.

    Args:
        pieces: none of them raises.
        most: at the same time.
    """
    remaining = iter(pieces)
    lock = threading.Lock()
    helpers = [
        # Each with the request's context of its own: a context can be entered once at a time.
        threading.Thread(target=contextvars.copy_context().run, args=(_work, remaining, lock), daemon=True)
        for _ in range(min(most, len(pieces)) - 1)
    ]
    for helper in helpers:
        helper.start()
    _work(remaining, lock)
    for helper in helpers:
        helper.join()


def _work(remaining: Iterator[Callable[[], None]], lock: threading.Lock) -> None:
    while True:
        with lock:
            piece = next(remaining, None)
        if piece is None:
            return
        piece()
