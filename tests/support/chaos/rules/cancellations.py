"""Cancelled tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.chaos.facts import Task
from support.chaos.rules.acceptance import ENDED
from support.chaos.view import View

#: Hops that a task may still have after its end.
_AFTER = frozenset({"webhook", "webhook-delivered", "webhook-failed", "cancelled", "cancel-requested", "published"})

#: Hops after which a run is repeated.
_AGAIN = frozenset({"lost", "stopped", "parked"})

#: Seconds by which the ledger's and Redis's notes of one moment may differ.
_SLACK = 0.2


def cancelled_is_the_end(view: View) -> Iterator[tuple[str, str]]:
    """CANCELLED is terminal; what is to stop runs once more at most, and ends CANCELLED or SUCCEEDED."""
    for task in view.facts.tasks:
        yield from ((task.id, text) for text in _goes_on(task))
        for act in view.acts["cancelTask", task.id]:
            if act.done and act.answer.get("state") == "CANCELLED" and task.view["state"] != "CANCELLED":
                yield task.id, f"was answered CANCELLED, and is {task.view['state']}"
            if act.done and task.view["status"] not in ENDED:
                yield task.id, f"was cancelled, and is still {task.view['state']}"


def _goes_on(task: Task) -> Iterator[str]:
    kinds = [hop["kind"] for hop in task.hops]
    if (task.view["state"] == "CANCELLED") != ("cancelled" in kinds):
        yield f"is {task.view['state']}, and {'has' if 'cancelled' in kinds else 'has not'} been cancelled"
    if "cancelled" in kinds and (more := set(kinds[kinds.index("cancelled") :]) - _AFTER):
        yield f"went on after it was cancelled: {', '.join(sorted(more))}"
    if "cancel-requested" not in kinds:
        return
    first = kinds.index("cancel-requested")
    before, after = kinds[:first], kinds[first:]
    if before[-1] == "failed" and not {"started", "cancelled"} & set(_until_redriven(after)):
        return  # a death that was decided before stays one, and may be redriven
    if "redriven" in after or task.view["state"] not in {"CANCELLED", "SUCCEEDED"}:
        yield f"was asked to stop, and is {task.view['state']}"
    runs, again = after.count("started"), sum(kind in _AGAIN for kind in after)
    if runs > 1 + again:
        yield f"was asked to stop, and ran {runs} times after that"


def _until_redriven(kinds: list[str]) -> list[str]:
    return kinds[: kinds.index("redriven")] if "redriven" in kinds else kinds


def cancelled_has_no_effect(view: View) -> Iterator[tuple[str, str]]:
    """What was cancelled before it ran has no effect; nothing has one after its cancellation."""
    for task in view.facts.tasks:
        if task.view["state"] != "CANCELLED":
            continue
        deliveries = view.delivered[task.id]
        if deliveries and all(hop["kind"] != "started" for hop in task.hops):
            yield task.id, "never started, was cancelled, and reached the ledger"
        ended = _at(task, "cancelled")
        for each in deliveries:
            if each.began > ended + _SLACK and not view.troubled(ended, each.began):
                yield task.id, f"reached the ledger {each.began - ended:.2f} s after its cancellation"


def cancelled_is_undone(view: View) -> Iterator[tuple[str, str]]:
    """A type that undoes has undone what it has begun."""
    for task in view.facts.tasks:
        if task.view["state"] != "CANCELLED" or task.view["type"] != "chaos.undone":
            continue
        keys = {each.key for each in view.delivered[task.id] if each.outcome in {"applied", "repeat"}}
        begun = any(key.endswith("/0") for key in keys)
        if begun and not any(key.endswith("/undo") for key in keys) and not _cut_short(task):
            yield task.id, "was cancelled, had begun something, and has not undone it"


def _cut_short(task: Task) -> bool:
    """Whether the run that undoes was itself lost, or failed: there is one at most."""
    kinds = [hop["kind"] for hop in task.hops]
    first = kinds.index("cancel-requested") if "cancel-requested" in kinds else len(kinds)
    return bool({"failed", "lost", "stopped"} & set(kinds[first:]))


def _at(task: Task, kind: str) -> float:
    found: dict[str, Any] = next((hop for hop in task.hops if hop["kind"] == kind), {"at": 0})
    return float(found["at"]) / 1_000
