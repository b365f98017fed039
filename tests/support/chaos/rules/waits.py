"""Time: delays, waits and their signals, deadlines. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from support.chaos.facts import Act, Task
from support.chaos.rules.ladder import ROUNDING, cycles
from support.chaos.view import View, label, millis

#: Hops that end a delay or a wait before its time.
_HURRIED = frozenset({"sent-now", "cancel-requested", "cancelled"})


def delays_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """What was submitted for later starts no sooner, unless an operator hurries it; what was not is not delayed."""
    delayed = {order.label for order in view.facts.orders if order.delay}
    for task in view.facts.tasks:
        until = next((hop["until"] for hop in task.hops if hop["kind"] == "published" and hop.get("until")), None)
        ends = (hop for hop in task.hops if hop["kind"] in {"started", *_HURRIED})
        first = next(ends, {"kind": "", "at": 0})
        if until is None:
            continue
        if label(task) and label(task) not in delayed:
            yield task.id, "was delayed, and its order has no delay"
        early = millis(until) - first["at"]
        if first["kind"] == "started" and early > ROUNDING:
            yield task.id, f"started {early:.0f} ms before {until}"


def waits_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """A wait never ends early but by a signal, each of which ends one, by an operator's hand or by a cancellation."""
    for task in view.facts.tasks:
        for hops in cycles(task):
            yield from ((task.id, text) for text in _ended_early(hops))


def _ended_early(hops: list[dict[str, Any]]) -> Iterator[str]:
    kept: Counter[str] = Counter()  # signals that came before their wait
    until = 0.0
    hurried = False
    for hop in hops:
        match hop["kind"]:
            case "signalled" if hop.get("queue"):
                until = 0.0
            case "signalled":
                kept[hop["name"]] += 1
            case kind if kind in _HURRIED:
                until, hurried = 0.0, True
            case "waiting" if hop["seconds"]:
                until = hop["at"] + 1_000 * hop["seconds"]
            case "waiting":
                names = [name for name in hop.get("signals") or () if kept[name]]
                if not names and not hurried:
                    yield f"the wait before step {hop['step']} was over at once, without a signal"
                kept.subtract(names[:1])
            case "started" if until - hop["at"] > ROUNDING:
                yield f"a wait ended {until - hop['at']:.0f} ms early, without a signal"
            case "started":
                until = 0.0


def signals_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """A signal that was taken is recorded once, however often it was sent, and every later step sees it."""
    for (verb, task_id), acts in view.acts.items():
        task = view.tasks.get(task_id)
        if verb != "signalTask" or task is None:
            continue
        taken, sent = (
            {act.asked["id"] for act in some} for some in ([a for a in acts if a.done], [a for a in acts if a.possible])
        )
        recorded = sum(hop["kind"] == "signalled" for hop in task.hops)
        if not len(taken) <= recorded <= len(sent):
            yield task_id, f"{len(taken)} signals were taken, {len(sent)} sent, {recorded} recorded"
        yield from ((task_id, text) for text in _unseen(view, task, acts))


def _unseen(view: View, task: Task, acts: list[Act]) -> Iterator[str]:
    for act in acts:
        for each in view.delivered[task.id]:
            seen = [signal for _, signal in each.note.get("signals", ())]
            if act.done and each.note.get("readAt", 0) > act.ended and act.asked["id"] not in seen:
                yield f"step {each.note.get('step')} saw the signals {seen}, {act.asked['id']} was taken before"


def callbacks_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """A callback that was taken is recorded; each URL that a handler was given is good until its task has ended."""
    taken: Counter[str] = Counter()
    for call in view.facts.calls:
        task_id = call.key.partition("/")[0].partition(".")[0]
        taken[task_id] += call.status == 202
        if call.status not in {0, 202, 410}:
            yield task_id, f"its callback was answered {call.status}"
    for task_id, count in taken.items():
        task = view.tasks.get(task_id)
        recorded = sum(hop["kind"] == "signalled" for hop in task.hops) if task else 0
        if recorded < count:
            yield task_id, f"{count} callbacks were taken, {recorded} recorded"


def deadlines_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """No attempt begins after the deadline; of a redriven task, the last cycle's is known."""
    for task in view.facts.tasks:
        deadline = task.view.get("deadlineAt")
        if deadline is None:
            continue
        *_, last = cycles(task)
        for hop in last:
            late = hop["at"] - millis(deadline)
            if hop["kind"] == "started" and late > ROUNDING:
                yield task.id, f"started {late:.0f} ms after its deadline"
