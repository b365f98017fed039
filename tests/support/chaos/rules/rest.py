"""P7, and what is left in the end. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from support.chaos.rules.acceptance import ENDED
from support.chaos.view import View


def answers_come_in_time(view: View) -> Iterator[tuple[str, str]]:
    """No answer later than allowed, beyond what the machine itself was late by; a stopped gateway can't answer."""
    stops = [each for each in view.facts.faults if (each.fault.name, each.fault.target) == ("stop", "gateway")]
    for answer in view.facts.answers:
        ended = answer.at + answer.seconds
        if answer.seconds <= view.facts.answer_within or any(
            answer.at <= each.ended and each.began <= ended for each in stops
        ):
            continue
        noise = view.noise_in(answer.at, ended)
        if answer.seconds - noise > view.facts.answer_within:
            end = answer.problem or answer.status or answer.error
            yield answer.label or answer.what, f"{answer.what}: {end} after {answer.seconds:.2f} s (noise {noise:.2f})"


def everything_drains(view: View) -> Iterator[tuple[str, str]]:
    """Without a hand, in the time that the ladder, the leases and the retries take."""
    left = view.facts.left
    if not left.drained or left.seconds > left.limit:
        yield "system", f"{'drained' if left.drained else 'not drained'} after {left.seconds} s of {left.limit}"


def nothing_is_left(view: View) -> Iterator[tuple[str, str]]:
    """Queues empty, no claim, no dead letter to be taken out, no entry of a task that is gone."""
    left = view.facts.left
    for queue, count in left.queues.items():
        if count:
            yield queue, f"holds {count} messages"
    found = {
        "has a claim left": left.claims, "has a stale dead letter left": left.stale, "lists held tasks": left.held,
        "is a key that is taken": left.keys, "is paused": left.pauses, "is a job that runs": left.jobs,
    }  # fmt: skip
    for text, subjects in found.items():
        yield from ((subject, text) for subject in subjects)
    # Dead letters without a usable task id go by one that the router gave them.
    strangers = {dead_letter.task_id for dead_letter in view.facts.dead_letters if dead_letter.mark}
    for task_id in set(left.due) - set(view.tasks) - strangers:
        yield task_id, "is due for the sweeper and is no task"


def records_are_consistent(view: View) -> Iterator[tuple[str, str]]:
    """A terminal record has an end, and nothing of what only a living one has."""
    for task in view.facts.tasks:
        if task.view["status"] not in ENDED:
            continue
        rest = sorted({"decision", "decidedSeq", "fence", "owner", "before"} & set(task.inner))
        if rest:
            yield task.id, f"is {task.view['state']} with {', '.join(rest)}"
        if task.view["finishedAt"] is None:
            yield task.id, f"is {task.view['state']} without an end"
        if task.view["nextAttemptAt"] is not None:
            yield task.id, f"is {task.view['state']} with another attempt ahead"
