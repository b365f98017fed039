"""Child tasks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from support.chaos.facts import Task
from support.chaos.view import View


def children_are_submitted_once(view: View) -> Iterator[tuple[str, str]]:
    """A child is one task for each key and cycle of its parent; a parent that has taken its first step has all of them."""
    own: dict[str, list[Task]] = {}
    for task in view.facts.tasks:
        if "child" in (task.view.get("labels") or {}) and task.view["state"] != "REJECTED":
            own.setdefault(task.view["parentId"], []).append(task)
    for parent, order in view.ordered:
        children = own.pop(parent.id, [])
        keys = Counter(child.view["labels"]["child"] for child in children)
        for key, count in keys.items():
            if count > 1:
                yield parent.id, f"submitted the child {key} {count} times"
        wanted = order.payload.get("children", 0)
        numbers = {key.partition(".")[2] for key in keys}
        if parent.view["status"] == "SUCCESS" and len(numbers) != wanted:
            yield parent.id, f"succeeded with {len(numbers)} of {wanted} children"
        yield from ((child.id, text) for child in children for text in _end(view, child))
    for parent_id in own:
        yield parent_id, "has children and is no task"


def _end(view: View, child: Task) -> Iterator[str]:
    """What is wrong with a child's end: none was ordered to fail."""
    lost = any(hop.get("errorType") == "worker-lost" for hop in child.hops)
    cancelled = child.view["state"] == "CANCELLED" and view.job_verbs("cancel")
    if child.view["status"] != "SUCCESS" and not lost and not cancelled:
        yield f"is a child, and ended as {child.view['state']}, {child.inner.get('deadReason')}"
