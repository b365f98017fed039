"""Completion webhooks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from support.chaos.facts import Hook
from support.chaos.rules.acceptance import ENDED
from support.chaos.view import View


def ends_are_announced(view: View) -> Iterator[tuple[str, str]]:
    """The last end of each task that asked for it was delivered, or its delivery is recorded as failed; none is wrong."""
    hooks: dict[str, list[Hook]] = defaultdict(list)
    for hook in view.facts.hooks:
        hooks[hook.task].append(hook)
    failed = {
        task.view["parentId"]
        for task in view.facts.tasks
        if task.view["type"] == "webhook.deliver" and task.view["status"] == "FAIL"
    }
    for task, order in view.ordered:
        own = hooks.pop(task.id, [])
        if "webhook" not in order.options:
            if own:
                yield task.id, "was announced, and its order has no webhook"
            continue
        last = [hook for hook in own if hook.cycle == task.view["cycle"]]
        if task.view["status"] in ENDED and not any(hook.status < 300 for hook in last) and task.id not in failed:
            yield task.id, f"ended as {task.view['state']}, and no webhook was delivered in {len(last)} tries"
        wanted = "task.succeeded" if task.view["status"] == "SUCCESS" else "task.failed"
        for hook in last:
            if hook.type != wanted:
                yield task.id, f"ended as {task.view['state']}, and {hook.type} was announced"
    for task_id in hooks:
        yield task_id, "was announced, and is no task that a client ordered"
