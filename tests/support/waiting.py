"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How much longer than on a quiet machine a condition may take: CI machines are shared. Only a failure waits so long.
PATIENCE = 3


def eventually(
    predicate: Callable[[], T], timeout: float = 10.0, message: str | Callable[[], str] = "", interval: float = 0.02
) -> T:
    """Poll until a condition holds.

    Args:
        predicate: returns something true once it holds; an error counts as "not yet": a record, a file may not be there yet.
        timeout: seconds it may take on a quiet machine.
        message: what was expected, for the failure; may be a callable that looks at the last state.
        interval: seconds between two looks at first; rises to 0.25.

    Returns:
        The true value.
    """
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    failure: Exception | None = None
    value: T | None = None
    while True:
        try:
            value, failure = predicate(), None
        except Exception as exc:  # noqa: BLE001 - it is shown when the time is over
            failure = exc
        if value and failure is None:
            return value
        if time.monotonic() >= deadline:
            expected = message() if callable(message) else message or "the condition never held"
            raise AssertionError(f"after {timeout} s: {expected} (last: {failure or value!r})") from failure
        time.sleep(interval)
        interval = min(interval * 1.5, 0.25)
