"""The facts of a run, indexed for the checker and the report. Pure."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from functools import cached_property

from support.chaos.facts import Answer, DeadLetter, Delivery, Facts, Order, Task

#: The one problem that leaves the outcome unknown.
UNKNOWN = "publish-unconfirmed"


class View:
    """The facts, indexed.

    Args:
        facts: of a run.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """By id."""
        return {task.id: task for task in self.facts.tasks}

    @cached_property
    def answers(self) -> dict[str, list[Answer]]:
        """Submissions by label."""
        found: dict[str, list[Answer]] = defaultdict(list)
        for answer in self.facts.answers:
            if answer.label:
                found[answer.label].append(answer)
        return found

    @cached_property
    def ran(self) -> dict[str, set[str]]:
        """Ids of tasks that were not rejected, by label."""
        found: dict[str, set[str]] = defaultdict(set)
        for task in self.facts.tasks:
            if task.view["state"] != "REJECTED":
                found[label(task)].add(task.id)
        return found

    @cached_property
    def orders(self) -> dict[str, Order]:
        """By label."""
        return {order.label: order for order in self.facts.orders}

    @cached_property
    def deliveries(self) -> dict[str, list[Delivery]]:
        """By label."""
        found: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in self.facts.deliveries:
            found[delivery.label].append(delivery)
        return found

    @cached_property
    def dead_letters(self) -> dict[str, list[DeadLetter]]:
        """By task id; poison apart."""
        found: dict[str, list[DeadLetter]] = defaultdict(list)
        for dead_letter in self.facts.dead_letters:
            if not dead_letter.mark:
                found[dead_letter.task_id].append(dead_letter)
        return found

    def accepted(self, order: Order) -> set[str]:
        """The task ids that its 202s named."""
        return {answer.task_id for answer in self.answers[order.label] if answer.status == 202}

    def unknown(self, order: Order) -> bool:
        """Whether it may have been accepted without the client's knowledge."""
        return any(doubtful(answer) for answer in self.answers[order.label])

    @cached_property
    def noise(self) -> tuple[list[float], list[float]]:
        """When, and the running sum of the seconds lost to scheduling."""
        ordered = sorted(self.facts.noise)
        return [at for at, _ in ordered], list(itertools.accumulate(late for _, late in ordered))

    def noise_in(self, began: float, ended: float) -> float:
        """Seconds lost to scheduling in a span of time."""
        times, sums = self.noise
        first, last = bisect.bisect_left(times, began), bisect.bisect_right(times, ended)
        return (sums[last - 1] if last else 0.0) - (sums[first - 1] if first else 0.0)


def label(task: Task) -> str:
    """The label of a task's order, from its request id."""
    return str(task.view.get("requestId") or "").rpartition(".")[0]


def doubtful(answer: Answer) -> bool:
    """Whether an answer leaves open if the task was accepted."""
    if answer.status is None:
        return not answer.unsent
    return answer.problem == UNKNOWN
