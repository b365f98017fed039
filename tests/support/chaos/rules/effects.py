"""P3: one effect, one success, no run without a claim; and a failure has a cause. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from support.chaos.facts import Order, Task
from support.chaos.view import View


def effect_is_applied_once(view: View) -> Iterator[tuple[str, str]]:
    """A task that succeeded has its effect once in each step; deliveries and effects agree."""
    for task in view.facts.tasks:
        if task.view["type"] != "http.request" and not task.view["type"].startswith("chaos."):
            continue
        own = view.delivered[task.id]
        effects = {each.key: view.facts.effects.get(each.key, 0) for each in own}
        if task.view["status"] == "SUCCESS":
            yield from ((task.id, text) for text in _missing(task, _bases(view, task), view.facts.effects))
        for key, count in effects.items():
            applied = sum(each.outcome == "applied" for each in own if each.key == key)
            if count != applied or count > 1:
                yield task.id, f"the ledger holds {count} effects of {key}, its deliveries applied {applied}"


def _bases(view: View, task: Task) -> list[str]:
    """The idempotency keys that its last cycle may have had: an operator's mend or wish for a fresh effect makes another one."""
    acts = view.acts["redriveDeadLetter", task.id]
    others = [f"{task.id}.{cycle}" for cycle in range(1, task.view["cycle"] + 1)]
    return [task.id, *(others if any(act.asked and act.possible for act in acts) else [])]


def _missing(task: Task, bases: list[str], effects: dict[str, int]) -> Iterator[str]:
    """What a success lacks: every step's effect, under one idempotency key."""
    steps = [""] if task.view["type"] == "http.request" else [f"/{step}" for step in range(task.view["step"] + 1)]
    found = [[effects.get(f"{base}{step}", 0) for step in steps] for base in bases]
    if not any(all(count == 1 for count in counts) for counts in found):
        yield f"succeeded, its effects were applied {found[-1]} times"


def succeeds_once(view: View) -> Iterator[tuple[str, str]]:
    """One success, and nothing runs after it."""
    for task in view.facts.tasks:
        kinds = [hop["kind"] for hop in task.hops]
        wanted = int(task.view["status"] == "SUCCESS")
        if kinds.count("succeeded") != wanted:
            yield task.id, f"is {task.view['status']} and succeeded {kinds.count('succeeded')} times"
        elif wanted and {"started", "failed"} & set(kinds[kinds.index("succeeded") :]):
            yield task.id, "ran after its success"


def runs_are_claimed(view: View) -> Iterator[tuple[str, str]]:
    """No delivery without a claim, but of what Redis may have lost with its last seconds: then the hop of the claim is gone."""
    for task in view.facts.tasks:
        delivered = sum(not view.may_be_lost(each.began) for each in view.delivered[task.id])
        started = sum(hop["kind"] == "started" for hop in task.hops)
        if delivered > started:
            yield task.id, f"reached the ledger {delivered} times with {started} claims"


def failures_have_a_cause(view: View) -> Iterator[tuple[str, str]]:
    """A task fails because it was ordered to, was cancelled, had a deadline, or because workers were lost under it."""
    for task, order in view.ordered:
        if task.view["status"] == "SUCCESS":
            doomed = order.wish.get("permanent") or order.wish.get("fail") == 999
            if doomed and not _mended(view, task):
                yield task.id, f"succeeded, and was ordered to fail ({order.kind})"
        elif not _has_cause(view, task, order):
            reason = task.inner.get("deadReason")
            yield task.id, f"({order.kind}) ended as {task.view['state']}, {reason}, without a cause"


def _mended(view: View, task: Task) -> bool:
    return any(act.possible and "payload" in act.asked for act in view.acts["redriveDeadLetter", task.id])


def _has_cause(view: View, task: Task, order: Order) -> bool:
    if task.view["state"] == "CANCELLED":
        return view.job_verbs("cancel") or any(act.possible for act in view.acts["cancelTask", task.id])
    reason = task.inner.get("deadReason")
    if reason == "deadline-exceeded":
        return "deadlineSeconds" in order.options
    lost = any(hop.get("errorType") == "worker-lost" for hop in task.hops)
    ordered = {"permanent": "permanent", "hopeless": "retries-exhausted"}.get(order.kind)
    return reason == ordered or (reason == "retries-exhausted" and lost)
