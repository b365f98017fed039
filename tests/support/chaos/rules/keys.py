"""Concurrency keys and types that run so many at once. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from support.chaos.facts import Task
from support.chaos.rules.ladder import before_stop
from support.chaos.view import View

#: Hops that end a run, and with it the hold on a key. A wait between two steps keeps it.
_ENDS = frozenset({
    "succeeded", "failed", "cancelled", "dead-lettered", "stopped", "parked", "lost", "held", "released", "redriven",
})  # fmt: skip


#: Seconds that may pass between the place in a rate and the claim, which is what a hop shows (`dispatch.worker.request`).
LATE = 0.3


@dataclasses.dataclass(frozen=True)
class _Span:
    """A time for which a task has a place."""

    began: float
    ended: float
    task_id: str


def places_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """Of one key one task runs at a time, of a narrow type two: as long as their worker reaches Redis."""
    spans: dict[tuple[str, int], list[_Span]] = defaultdict(list)
    for task, order in view.ordered:
        if order.slot is not None:
            spans[order.slot].extend(_spans(task))
    for (slot, limit), found in spans.items():
        yield from ((slot, text) for text in _overlaps(view, found, limit))


def rates_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """Of a type with a rate no more runs begin in a window than it has places: as long as their worker reaches Redis."""
    begins: dict[tuple[str, int, float], list[float]] = defaultdict(list)
    for task, order in view.ordered:
        if order.rate is not None:
            begins[order.rate].extend(hop["at"] / 1_000 for hop in before_stop(task) if hop["kind"] == "started")
    for (name, runs, seconds), found in begins.items():
        ordered = sorted(found)
        for first, last in zip(ordered, ordered[runs:], strict=False):
            late = LATE + view.noise_in(first, last)
            if last - first < seconds - late and not view.troubled(first, last):
                yield name, f"{runs + 1} runs began in {last - first:.3f} s from {first:.3f} on"


def _overlaps(view: View, spans: list[_Span], limit: int) -> Iterator[str]:
    running: list[_Span] = []
    for span in sorted(spans, key=lambda span: span.began):
        running = [one for one in running if one.ended > span.began]
        others = [one for one in running if one.task_id != span.task_id]
        if len(others) >= limit and not view.troubled(min(one.began for one in others), span.began):
            yield f"{span.task_id} began at {span.began:.3f}, beside {', '.join(one.task_id for one in others)}"
        running.append(span)


def _spans(task: Task) -> Iterator[_Span]:
    began = 0.0
    for hop in before_stop(task):
        at = hop["at"] / 1_000
        if hop["kind"] == "started" and not began:
            began = at
        elif hop["kind"] in _ENDS and began:
            yield _Span(began, at, task.id)
            began = 0.0
