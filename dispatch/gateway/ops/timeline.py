"""A task's hops as a timeline to scale, and its attempts. Pure.

Stretches of a task's life lie between two hops: waiting in a queue, on a rung, running. A scale by the root of the seconds keeps
a run of 40 ms visible beside a wait of half an hour.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from dispatch.protocol.record import Record

#: Units of the drawing's width.
WIDTH = 1_000.0

#: A stretch is this wide at least.
_NARROWEST = 4.0

#: What the stretch after a hop is; any other hop continues the one before.
_AFTER = {
    "accepted": "queued", "published": "queued", "started": "running", "delayed": "waiting", "waiting": "waiting", "parked": "waiting",
    "resent": "queued", "sent-now": "queued", "held": "held", "released": "queued", "stopped": "queued", "lost": "queued",
    "redriven": "queued", "dead-lettered": "dead", "succeeded": "", "cancelled": "", "discarded": "", "rejected": "", "failed": "failed",
}  # fmt: skip

_LABELS = {
    "queued": "in the queue", "running": "running", "waiting": "waiting", "held": "held", "dead": "dead letter", "failed": "being routed",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the task's life."""

    kind: str  #: ``queued``, ``running``, ``waiting``, ``held``, ``dead`` or ``failed``
    label: str
    seconds: float
    x: float  #: from the left, of `WIDTH`
    width: float
    open: bool  #: it goes on


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the handler."""

    cycle: int
    number: int
    started: str  #: RFC 3339
    seconds: float | None  #: None while it runs
    outcome: str  #: the hop that ended it; empty while it runs
    worker: str
    error_type: str = ""
    message: str = ""


def draw(hops: Sequence[Mapping[str, Any]], record: Record, now: float) -> list[Stretch]:
    """The stretches, from left to right.

    Args:
        hops: the task's, oldest first.
        record: the task.
        now: epoch milliseconds.
    """
    parts: list[tuple[str, float, bool]] = []
    kind, since = "", 0.0
    for hop in hops:
        after = "waiting" if "until" in hop else _AFTER.get(hop["kind"])
        if after is None or after == kind:
            continue
        at = moment(hop["at"])
        if kind:
            parts.append((kind, max(0.0, at - since), False))
        kind, since = after, at
    if kind and not (record.state.terminal and not record.is_dead_letter):
        parts.append((kind, max(0.0, now / 1_000 - since), True))
    weights = [max(seconds, 0.001) ** 0.5 for _, seconds, _ in parts]
    widths = _shares(weights)
    stretches, x = [], 0.0
    for (each, seconds, is_open), width in zip(parts, widths, strict=True):
        stretches.append(Stretch(each, _LABELS[each], seconds, round(x, 1), round(width, 1), is_open))
        x += width
    return stretches


def _shares(weights: Sequence[float]) -> list[float]:
    narrowest = min(_NARROWEST, WIDTH / max(1, len(weights)))
    room, total = WIDTH - narrowest * len(weights), sum(weights)
    return [narrowest + room * weight / total for weight in weights]


def attempts(hops: Sequence[Mapping[str, Any]]) -> list[Attempt]:
    """The runs of the handler, latest first."""
    found: list[Attempt] = []
    cycle = 0
    for hop in hops:
        kind = hop["kind"]
        if kind == "redriven":
            cycle += 1
        if kind == "started":
            found.append(Attempt(cycle, hop.get("attempt", 0), hop["at"], None, "", hop.get("worker", "")))
        elif (
            kind in ("succeeded", "failed", "stopped", "lost", "waiting", "parked", "cancelled")
            and found
            and not found[-1].outcome
        ):
            found[-1] = _ended(found[-1], hop)
    return found[::-1]


def _ended(attempt: Attempt, hop: Mapping[str, Any]) -> Attempt:
    return dataclasses.replace(
        attempt,
        seconds=max(0.0, moment(hop["at"]) - moment(attempt.started)),
        outcome=hop["kind"],
        error_type=str(hop.get("errorType") or ""),
        message=str(hop.get("message") or ""),
    )


def moment(text: str) -> float:
    """Epoch seconds of a hop's time."""
    return dt.datetime.fromisoformat(text).timestamp()
