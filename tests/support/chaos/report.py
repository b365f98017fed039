"""What people read of a run: numbers, faults, the verdict, and for each violation how the task came there."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from support.chaos.checker import Violation
from support.chaos.facts import Facts
from support.chaos.meters import slopes
from support.chaos.rules.dead_letters import BURIED
from support.chaos.view import View, label

#: Violations that are shown in full.
SHOWN = 20


def summary(facts: Facts, violations: Sequence[Violation]) -> dict[str, Any]:
    """The numbers, ready for JSON."""
    view = View(facts)
    accepted = {task_id for order in facts.orders for task_id in view.accepted(order)}
    return {
        "seed": facts.seed,
        "duration": facts.duration,
        "clients": facts.clients,
        "verdict": "broken" if violations else "kept",
        "orders": len(facts.orders),
        "accepted": len(accepted),
        "unknown": sum(not view.accepted(order) and view.unknown(order) for order in facts.orders),
        "refused": sum(not view.accepted(order) and not view.unknown(order) for order in facts.orders),
        "states": _counts(task.view["state"] for task in facts.tasks),
        "reasons": _counts(task.inner.get("deadReason", "?") for task in facts.tasks if task.view["state"] in BURIED),
        "kindsThatDied": _counts(
            view.orders[label(task)].kind
            for task in facts.tasks
            if task.view["state"] in BURIED and label(task) in view.orders
        ),
        "answers": _counts(f"{each.status or each.error} {each.problem}".strip() for each in facts.answers),
        "latency": _latency(facts),
        "noise": round(sum(late for _, late in facts.noise), 2),
        "faults": _counts(f"{each.fault.name} {each.fault.target}" for each in facts.faults if not each.missed),
        "faultsDone": sum(not each.missed for each in facts.faults),
        "faultsMissed": sum(bool(each.missed) for each in facts.faults),
        "restarts": facts.left.restarts,
        "effects": len(facts.effects),
        "deliveries": _deliveries(facts),
        "verbs": _verbs(facts),
        "operators": _counts(f"{each.verb} {each.status or 'no answer'}" for each in facts.acts),
        "webhooks": len(facts.hooks),
        "callbacks": _counts(str(each.status) for each in facts.calls),
        "hops": _counts(hop["kind"] for task in facts.tasks for hop in task.hops),
        "poison": len(facts.poison),
        "drain": {"seconds": facts.left.seconds, "limit": facts.left.limit},
        "memory": slopes(facts.samples),
        "violations": [dataclasses.asdict(violation) for violation in violations],
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _verbs(facts: Facts) -> dict[str, int]:
    """How often each verb was carried out for certain."""
    return _counts(each.verb for each in facts.acts if each.done)


def _latency(facts: Facts) -> dict[str, float]:
    taken = sorted(each.seconds for each in facts.answers if each.what == "POST /v1/tasks" and each.status)
    if len(taken) < 2:
        return {}
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    slowest = max(each.seconds for each in facts.answers)
    found = {"submitP50": cuts[49], "submitP99": cuts[98], "submitMax": taken[-1], "anyMax": slowest}
    return {name: round(value, 3) for name, value in found.items()}


def _deliveries(facts: Facts) -> dict[str, Any]:
    """What a sink that does not honour the key would have felt: each effective delivery counts."""
    felt = Counter(each.key for each in facts.deliveries if each.outcome in {"applied", "repeat"})
    unasked = Counter(felt)
    kinds = {order.label: order for order in facts.orders}
    for each in facts.deliveries:
        order = kinds.get(each.label)
        if order is not None and order.kind == "lost-answer":
            unasked.pop(each.key, None)  # the ledger cut the connection: repeating was asked for
    return {
        "all": len(facts.deliveries),
        "effective": sum(felt.values()),
        "timesEach": {str(times): count for times, count in sorted(Counter(felt.values()).items())},
        "repeatedByFaults": sum(times - 1 for times in unasked.values()),
        "atTheSameTime": _overlaps(facts),
    }


def _overlaps(facts: Facts) -> int:
    """Deliveries of a key that began before the one before had ended: an orphaned run beside its successor."""
    last: dict[str, float] = {}
    count = 0
    for each in sorted(facts.deliveries, key=lambda each: each.began):
        count += each.began < last.get(each.key, 0.0)
        last[each.key] = max(last.get(each.key, 0.0), each.ended or each.began)
    return count


def text(facts: Facts, violations: Sequence[Violation], replay: str) -> str:
    """The report for people.

    Args:
        facts: of the run.
        violations: what the checker found.
        replay: the command that runs the same seed again.
    """
    numbers = summary(facts, violations)
    lines = [f"seed {facts.seed}, {facts.duration:g} s, {facts.clients} clients: promises {numbers['verdict']}"]
    lines += [f"  {name:<14}{_shown(value)}" for name, value in numbers.items() if name not in _APART]
    lines += [f"  memory        {role}: {_shown(each)}" for role, each in numbers["memory"].items()]
    if violations:
        lines += ["", f"{len(violations)} violations: {_shown(_counts(each.rule for each in violations))}", ""]
        lines += ["schedule:", *(f"  {_fault(each)}" for each in facts.faults), ""]
        lines += [line for violation in violations[:SHOWN] for line in _violation(facts, violation)]
        lines += ["", f"again: {replay}"]
    return "\n".join(lines)


_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

_APART = {"seed", "duration", "clients", "verdict", "memory", "violations"}


def _shown(value: Any) -> str:
    return (
        ", ".join(f"{name}: {_shown(each)}" for name, each in value.items()) if isinstance(value, dict) else str(value)
    )


def _fault(each: Any) -> str:
    fault = each.fault
    span = f"{each.began:.2f} to {each.ended:.2f}"
    return f"{fault.at:6.1f} s  {span}  {fault.name} {fault.target} {fault.detail} {each.missed and 'missed: '}{each.missed}"


def _violation(facts: Facts, violation: Violation) -> list[str]:
    lines = [f"{violation.rule}: {violation.subject} {violation.text}"]
    view = View(facts)
    ids = [*_IDS.findall(f"{violation.subject} {violation.text}"), *view.ran.get(violation.subject, ())]
    for task in (view.tasks[task_id] for task_id in ids if task_id in view.tasks):
        answers = view.answers.get(label(task), [])
        lines += [f"    {each.at:.3f} {each.what} {each.status or each.error} {each.problem}" for each in answers]
        lines += [f"    {hop['at'] / 1_000:.3f} {_hop(hop)}" for hop in task.hops]
        deliveries = view.delivered[task.id]
        lines += [
            f"    {each.began:.3f} ledger: {each.outcome} {each.key} until {each.ended} {each.note}"
            for each in deliveries
        ]
        acts = [act for act in facts.acts if act.target == task.id]
        lines += [f"    {act.at:.3f} {act.verb} {act.status or 'no answer'} {act.problem} {act.answer}" for act in acts]
        lines += [f"    record: {task.view['state']} {task.inner}"]
        lines += [f"    dead letter: {each}" for each in view.dead_letters.get(task.id, [])]
    return lines


def _hop(hop: dict[str, Any]) -> str:
    rest = {name: value for name, value in hop.items() if name not in {"at", "seq", "kind", "spanId"}}
    return f"{hop['kind']} {rest or ''}".rstrip()
