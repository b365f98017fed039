"""P1, P2: what was accepted ends, what was refused never runs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from support.chaos.view import View

ENDED = frozenset({"SUCCESS", "FAIL"})


def accepted_has_ended(view: View) -> Iterator[tuple[str, str]]:
    """Every 202 ended SUCCESS or FAIL, and was not given up as if it had been refused."""
    for order in view.facts.orders:
        for task_id in view.accepted(order):
            task = view.tasks.get(task_id)
            if task is None:
                yield task_id, f"accepted ({order.label}), and there is no such task"
            elif task.view["status"] not in ENDED:
                yield task_id, f"accepted, and still {task.view['state']}"
            elif task.view["state"] == "REJECTED":
                yield task_id, "accepted, and then rejected"


def one_order_is_one_task(view: View) -> Iterator[tuple[str, str]]:
    """An order is never two tasks, however often and by how many it was sent."""
    for order in view.facts.orders:
        ids = view.accepted(order) | view.ran[order.label]
        if len(ids) > 1:
            yield order.label, f"is {len(ids)} tasks: {', '.join(sorted(ids))}"


def refused_left_nothing(view: View) -> Iterator[tuple[str, str]]:
    """What was refused never ran; what ran under an accepted order is the accepted task."""
    for order in view.facts.orders:
        accepted = view.accepted(order)
        if view.unknown(order) and not accepted:
            continue
        for task_id in view.ran[order.label] - accepted:
            yield (
                task_id,
                f"is a living task of {order.label}, which was {'accepted as another' if accepted else 'refused'}",
            )
        for delivery in view.deliveries[order.label]:
            if delivery.task_id not in accepted:
                yield order.label, f"was refused, and reached the ledger as {delivery.key}"


def accepted_is_ended_and_in_flight(view: View) -> Iterator[tuple[str, str]]:
    """Conservation, in numbers: accepted = succeeded + failed + cancelled + in flight, and nothing is in flight in the end."""
    states = Counter(_end(task.view) for task, _ in view.ordered)
    accepted = {task_id for order in view.facts.orders for task_id in view.accepted(order)}
    silent = {task_id for order in view.facts.orders for task_id in view.ran[order.label] if task_id not in accepted}
    total = len(accepted) + len(silent)
    counted = ", ".join(f"{states[end]} {end}" for end in ("succeeded", "failed", "cancelled", "in flight"))
    if total != sum(states.values()) or states["in flight"]:
        yield "system", f"{total} accepted, {counted}"


def _end(task: dict[str, object]) -> str:
    if task["state"] == "CANCELLED":
        return "cancelled"
    return {"SUCCESS": "succeeded", "FAIL": "failed"}.get(str(task["status"]), "in flight")
