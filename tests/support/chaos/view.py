"""The facts of a run, indexed for the checker and the report. Pure."""

from __future__ import annotations

import bisect
import datetime as dt
import itertools
from collections import defaultdict
from functools import cached_property
from typing import TypeVar

from support.chaos.facts import Act, Answer, DeadLetter, Delivery, Facts, Fault, Order, Task

K = TypeVar("K")
V = TypeVar("V")

#: The one problem that leaves the outcome unknown.
UNKNOWN = "publish-unconfirmed"

#: Types that no client submits.
INTERNAL = frozenset({"robot.schedule", "webhook.deliver"})

#: Seconds before and after a fault for which a worker may still be without Redis: a lease, and the way back.
TROUBLE = 4.0

#: Seconds of acknowledged writes that a killed Redis may lose while its disk is busy, and a little more.
HELD_BACK = 2.5


class Lists(dict[K, list[V]]):
    """A list for each key; an empty one, which is not kept, for any other."""

    def __missing__(self, _: K) -> list[V]:
        return []

    def add(self, key: K, value: V) -> None:
        """Append to a key's list."""
        self.setdefault(key, []).append(value)


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

    @cached_property
    def delivered(self) -> Lists[str, Delivery]:
        """Deliveries by task id, whatever their label: each step, and each cycle with an effect of its own, has its key."""
        found: Lists[str, Delivery] = Lists()
        for delivery in self.facts.deliveries:
            found.add(delivery.task_id, delivery)
        return found

    @cached_property
    def acts(self) -> Lists[tuple[str, str], Act]:
        """What was done to what: by verb and target."""
        found: Lists[tuple[str, str], Act] = Lists()
        for act in self.facts.acts:
            found.add((act.verb, act.target), act)
        return found

    @cached_property
    def ordered(self) -> list[tuple[Task, Order]]:
        """The tasks that clients ordered, with their orders; those that were rejected are left out."""
        pairs = [(task, self.orders.get(label(task))) for task in self.facts.tasks if task.view["state"] != "REJECTED"]
        return [(task, order) for task, order in pairs if order is not None]

    def job_verbs(self, verb: str) -> bool:
        """Whether a job may have done a verb to any task."""
        return any(act.possible and not act.asked["dryRun"] for act in self.acts["startJob", verb])

    def troubled(self, began: float, ended: float) -> bool:
        """Whether a worker may have been cut off from Redis at a time: then leases lapse, and what it knows of pauses is old."""
        return any(
            each.began - TROUBLE <= ended and began <= each.ended + TROUBLE
            for each in self.facts.faults
            if not each.missed and _troubles(each.fault)
        )

    def may_be_lost(self, at: float) -> bool:
        """Whether Redis was killed so soon afterwards that it may have lost what it had acknowledged at a time."""
        return any(
            each.began - HELD_BACK <= at <= each.began
            for each in self.facts.faults
            if (each.fault.name, each.fault.target) == ("kill", "redis")
        )

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


def _troubles(fault: Fault) -> bool:
    """Whether a fault may keep a worker from Redis, or stop it."""
    if fault.target.startswith("worker"):
        return fault.target.endswith("-redis") or fault.name in {"stop", "kill", "terminate"}
    return fault.target == "redis"


def label(task: Task) -> str:
    """The label of a task's order: one of its labels, else from its request id; none of what the system, or a handler, submitted."""
    if task.view.get("parentId") or task.view["type"] in INTERNAL:
        return ""
    own = (task.view.get("labels") or {}).get("order")
    return str(own or str(task.view.get("requestId") or "").rpartition(".")[0])


def millis(moment: str) -> float:
    """Epoch milliseconds of a time in the API."""
    return dt.datetime.fromisoformat(moment).timestamp() * 1_000


def doubtful(answer: Answer) -> bool:
    """Whether an answer leaves open if the task was accepted."""
    if answer.status is None:
        return not answer.unsent
    return answer.problem == UNKNOWN
