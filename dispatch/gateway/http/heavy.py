"""Work that computes for long, off the one thread that serves every connection of a process.

One piece at a time: the thread of the connections gets Python's lock back within milliseconds, however many clients send what
is expensive to read. What does not get its turn in time is refused: it would hold its body, and its client, for as long as
others send. Without such a worker (tests, `flask run`) the request computes by itself.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from dispatch.gateway.http.problems import Problem

#: Bytes of a body that are parsed and validated in a millisecond or two, whatever is in them.
SMALL = 4_096

#: Seconds that work waits for its turn, pieces that wait at most, and seconds after which a refused client may try again.
PATIENCE, MOST, RETRY = 3.0, 256, 2

Result = TypeVar("Result")

_elsewhere: Callable[[Callable[[], Any]], Any] | None = None
_one = threading.Lock()
_waiting = 0


def run(size: int, work: Callable[[], Result]) -> Result:
    """Compute, elsewhere if that takes long.

    Args:
        size: of the input, bytes.
        work: pure: no lock, no I/O, nothing of the request's context.

    Returns:
        What `work` returns; raises what it raises.

    Raises:
        Problem: ``gateway-busy``: its turn did not come.
    """
    if _elsewhere is None or size <= SMALL:
        return work()
    with _turn():
        result, error = _elsewhere(functools.partial(_outcome, work))
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Wait for the piece before this one, in the order of arrival."""
    global _waiting  # noqa: PLW0603 - one for each process
    if _waiting >= MOST:
        raise Problem("gateway-busy", retry_after=RETRY)
    _waiting += 1
    try:
        came = _one.acquire(timeout=PATIENCE)
    finally:
        _waiting -= 1
    if not came:
        raise Problem("gateway-busy", retry_after=RETRY)
    try:
        yield
    finally:
        _one.release()


def _outcome(work: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    """Instead of raising: gevent's pool would print every problem with its traceback."""
    try:
        return work(), None
    except Exception as exc:  # noqa: BLE001 - the caller raises it
        return None, exc


def install(elsewhere: Callable[[Callable[[], Any]], Any]) -> None:
    """Have long work done by a function that calls it on another thread and waits."""
    global _elsewhere  # noqa: PLW0603 - one for each process
    _elsewhere = elsewhere
