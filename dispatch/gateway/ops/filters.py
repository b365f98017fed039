"""Jinja filters of the console: times, durations, numbers. Pure."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import markupsafe

#: In place of a value that is not there: an en dash.
NOTHING = "\u2013"

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def install(environment: Any) -> None:
    """Add them."""
    environment.filters |= {"when": when, "duration": duration, "number": number, "short": short}


def when(at: float | str | None) -> markupsafe.Markup:
    """A time as HTML: how long ago for people, the time itself for machines and as a hint. Nothing for None.

    Args:
        at: epoch milliseconds, or RFC 3339.
    """
    if at is None or at == "":
        return markupsafe.Markup('<span class="quiet">\u2013</span>')
    seconds = dt.datetime.fromisoformat(at).timestamp() if isinstance(at, str) else at / 1_000
    exact = dt.datetime.fromtimestamp(seconds, dt.UTC)
    text = relative(seconds - time.time())
    return markupsafe.Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        exact.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC",
        text,
    )


def relative(seconds: float) -> str:
    """A time by its distance from now, negative for the past."""
    if abs(seconds) < 1:
        return "now"
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def duration(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for size, unit in _UNITS:
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            lower = {"d": (3_600.0, "h"), "h": (60.0, "min"), "min": (1.0, "s")}[unit]
            more = int(rest // lower[0])
            return f"{int(whole)} {unit} {more} {lower[1]}" if more else f"{int(whole)} {unit}"
    return NOTHING


def number(value: float | None) -> str:
    """A number with its thousands; a rate with one digit."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value else "0"


def short(task_id: str) -> str:
    """The end of a task id, which distinguishes it: the beginning is its time."""
    return f"…{task_id[-8:]}" if len(task_id) > 12 else task_id
