"""When a task is to run that is submitted for later. Pure."""

from __future__ import annotations

import datetime as dt

from dispatch.gateway.contract.request_models import SubmitOptions
from dispatch.gateway.http import validation
from dispatch.gateway.http.problems import FieldError, Problem

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def wakes_at(options: SubmitOptions, now: float, longest: int) -> int:
    """The time before which a task must not run.

    Args:
        options: of the request.
        now: epoch seconds.
        longest: seconds for which a task can be delayed; 0 where it can't.

    Returns:
        Epoch milliseconds, perhaps of the past (see `past`); 0 for a task that runs at once.

    Raises:
        Problem: it is too far ahead.
    """
    if options.run_at is not None:
        wakes = max(1, -((_EPOCH - options.run_at) // dt.timedelta(milliseconds=1)))  # rounded up
        field, delay = "/options/runAt", wakes / 1_000 - now
    else:
        delay = options.delay_seconds or 0
        wakes, field = int((now + delay) * 1_000) if delay else 0, "/options/delaySeconds"
    if delay > longest:
        days = f"{longest} seconds ({longest / 86_400:.1f} days)"
        raise validation.invalid(FieldError(field, f"A task can be delayed by {days} at most.", "too_late"))
    return wakes


def past() -> Problem:
    """The refusal of a time that has passed; for a request that does not repeat an accepted one."""
    return validation.invalid(FieldError("/options/runAt", "The time should be in the future.", "not_in_the_future"))
