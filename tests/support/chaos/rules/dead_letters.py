"""P4, P6: each death has its dead letter, and operators see it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from support.chaos.facts import Task
from support.chaos.view import View

BURIED = frozenset({"DEAD_LETTERED", "EXPIRED"})


def _buried(task: Task) -> bool:
    """Whether it has a dead letter: one that an operator has discarded is gone."""
    return task.view["state"] in BURIED and not task.inner.get("discarded")


def dead_letters_are_true(view: View) -> Iterator[tuple[str, str]]:
    """Each dead task has one dead letter, of its cycle and with its reason; no other task has one."""
    for task in view.facts.tasks:
        dead_letters = view.dead_letters.get(task.id, [])
        if not _buried(task):
            if dead_letters:
                yield task.id, f"is {task.view['state']} and has {len(dead_letters)} dead letters in the DLQ"
            continue
        if len(dead_letters) != 1:
            yield task.id, f"is {task.view['state']} and has {len(dead_letters)} dead letters in the DLQ"
        for dead_letter in dead_letters:
            if (dead_letter.cycle, dead_letter.reason) != (task.view["cycle"], task.inner.get("deadReason")):
                yield task.id, f"its dead letter has cycle {dead_letter.cycle}, {dead_letter.reason or 'no reason'}"
    for task_id in set(view.dead_letters) - set(view.tasks):
        yield task_id, "has a dead letter in the DLQ and is no task"


def dead_letters_are_listed(view: View) -> Iterator[tuple[str, str]]:
    """Operators see each dead task in the API's list, and no living one."""
    listed = set(view.facts.left.listed)
    for task in view.facts.tasks:
        if _buried(task) != (task.id in listed):
            yield task.id, f"is {task.view['state']} and {'' if task.id in listed else 'not '}listed as a dead letter"


def poison_is_buried(view: View) -> Iterator[tuple[str, str]]:
    """Each poison message is in the DLQ once, with its reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for dead_letter in view.facts.dead_letters:
        if dead_letter.mark:
            found[dead_letter.mark].append(dead_letter.reason)
    for poison in view.facts.poison:
        if found[poison.mark] != [poison.reason]:
            yield poison.mark, f"({poison.reason}) has dead letters with {found[poison.mark]}"


def discards_are_wanted(view: View) -> Iterator[tuple[str, str]]:
    """No dead letter is dropped but by an operator."""
    for task in view.facts.tasks:
        wanted = view.job_verbs("discard") or any(act.possible for act in view.acts["discardDeadLetter", task.id])
        if task.inner.get("discarded") and not wanted:
            yield task.id, "was discarded, and nobody wanted that"
