"""P5: the ladder. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.chaos.facts import Task
from support.chaos.view import View

#: Milliseconds; hops are dated to the millisecond.
ROUNDING = 1


def ladder_is_climbed(view: View) -> Iterator[tuple[str, str]]:
    """Rung by rung in order, never early, and to the end before giving up."""
    for task in view.facts.tasks:
        for cycle in cycles(task):
            yield from ((task.id, text) for text in _climb(cycle, view.facts.ladder))


def cycles(task: Task) -> Iterator[list[dict[str, Any]]]:
    """A task's hops, cut at each redrive."""
    part: list[dict[str, Any]] = []
    for hop in task.hops:
        if hop["kind"] == "redriven":
            yield part
            part = []
        part.append(hop)
    yield part


def before_stop(task: Task) -> list[dict[str, Any]]:
    """A task's hops until it was asked to stop: nothing holds the run that undoes."""
    kinds = [hop["kind"] for hop in task.hops]
    return task.hops[: kinds.index("cancel-requested")] if "cancel-requested" in kinds else task.hops


def _climb(hops: list[dict[str, Any]], ladder: list[tuple[str, float]]) -> Iterator[str]:
    failed: dict[str, Any] = {}
    wait = 0.0
    climbed = 0
    for hop in hops:
        match hop["kind"]:
            case "failed":
                failed = hop
            case "delayed" | "parked":
                attempt = failed.get("attempt", 1)
                queue, wait = ladder[min(attempt, len(ladder)) - 1]
                climbed += hop["kind"] == "delayed"
                if hop["kind"] == "delayed" and attempt != climbed:
                    yield f"attempt {attempt} failed after {climbed - 1} rungs"
                if hop["queue"] != queue:
                    yield f"after attempt {attempt} it waited in {hop['queue']}, not in {queue}"
            case "started" if wait:
                waited = hop["at"] - failed["at"]
                if waited + ROUNDING < wait * 1_000:
                    yield f"waited {waited} ms instead of {wait * 1_000:.0f} before attempt {hop.get('attempt')}"
                wait = 0.0
            case "sent-now" | "signalled" | "cancel-requested":
                wait = 0.0
            case "waiting":
                climbed = 0  # a step that ends in a wait forgives the failures before it
            case "dead-lettered" if hop.get("reason") == "retries-exhausted" and climbed != len(ladder):
                yield f"gave up after {climbed} rungs"
