"""Pacing: what comes in bursts and may wait begins one by one, so that other requests pass in between.

A greenlet that has waited runs after all that became ready before it. A submission waits some ten times, for its bytes, for
Redis and for RabbitMQ: beside a thousand requests that are ready at once it would come last each time.
"""

from __future__ import annotations

from collections.abc import Callable

_pass: Callable[..., None] | None = None
_turn: Callable[[], None] | None = None


def wait(line: str = "") -> None:
    """Let everything that is ready go first, and all who have called this before; returns at once without `install`.

    Args:
        line: lines take turns, however long one of them is.
    """
    if _pass is not None:
        _pass(line) if line else _pass()


def give_way() -> None:
    """Let what is ready go first, once; for a request that goes on computing. Returns at once without `install`."""
    if _turn is not None:
        _turn()


def install(one_by_one: Callable[..., None], turn: Callable[[], None]) -> None:
    """Pace this process.

    Args:
        one_by_one: for `wait`; returns for one caller in each pass of the event loop.
        turn: for `give_way`.
    """
    global _pass, _turn
    _pass, _turn = one_by_one, turn
