"""Pauses. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from support.chaos.facts import Task
from support.chaos.rules.ladder import before_stop
from support.chaos.view import View, label

#: Seconds within which workers know of a pause.
KNOWN = 2.0


@dataclasses.dataclass(frozen=True)
class _Span:
    """A time in which something was paused for certain, and workers knew."""

    what: str
    began: float
    ended: float


def nothing_starts_in_a_pause(view: View) -> Iterator[tuple[str, str]]:
    """From two seconds after the answer to a pause until its end is asked for, nothing that it is for starts."""
    spans = list(_spans(view))
    for task in view.facts.tasks:
        parts = _parts(view, task)
        starts = [hop["at"] / 1_000 for hop in before_stop(task) if hop["kind"] == "started"]
        for span in spans:
            for at in starts if span.what in parts else ():
                late = at - span.began - view.noise_in(span.began, at)
                if late > KNOWN and at < span.ended and not view.troubled(at - KNOWN, at):
                    yield (
                        task.id,
                        f"started {at - span.began:.2f} s after {span.what} was paused, and before it was resumed",
                    )


def _spans(view: View) -> Iterator[_Span]:
    for (verb, what), acts in view.acts.items():
        resumes = [act.at for act in view.acts["resumeTasks", what]]
        for act in acts if verb == "pauseTasks" else ():
            if act.done:
                yield _Span(what, act.ended, min((at for at in resumes if at > act.at), default=act.ended))


def _parts(view: View, task: Task) -> set[str]:
    """What can be paused that a task is part of."""
    order = view.orders.get(label(task))
    key = task.view.get("concurrencyKey")
    own = {"all", "principal:local", f"type:{task.view['type']}"}
    return own | ({f"key:{key}"} if key and order is not None else set())
