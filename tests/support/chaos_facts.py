"""Facts of a run made by hand: a clean run, and ways to break it, for the tests of the checker."""

import dataclasses

from support.chaos.checker import check
from support.chaos.facts import Answer, DeadLetter, Delivery, Facts, Left, Order, Task

LADDER = [("robot.retry.q.1m", 1.0), ("robot.retry.q.5m", 2.0), ("robot.retry.q.30m", 3.0)]
QUIET = Left({"robot.task.q": 0}, [], [], [], 3, True, 4.0, 90.0, {}, ["t2"])


def hop(at, kind, **more):
    return {"at": at, "kind": kind, **more}


def order(label, kind="fast", **wish):
    return Order(label, kind, f"key-{label}", "http.request", {"json": {"label": label, **wish}})


def answer(label, status=202, task_id="", at=100.0, seconds=0.1, **more):
    return Answer(label, "POST /v1/tasks", at, seconds, status, task_id=task_id, **more)


def task(task_id, label, state, hops, *, cycle=0, **inner):
    status = {"SUCCEEDED": "SUCCESS", "RUNNING": "RUNNING"}.get(state, "FAIL")
    view = {
        "taskId": task_id, "requestId": f"{label}.0", "state": state, "status": status, "cycle": cycle,
        "finishedAt": "2026-01-01T00:00:00.000Z", "nextAttemptAt": None, "type": "http.request", "step": 0, "parentId": None,
        "labels": {},
    }  # fmt: skip
    return Task(task_id, view, hops, {"published": "1", **inner})


def climb():
    at = 1_000
    for attempt, (queue, seconds) in enumerate(LADDER, 1):
        yield hop(at, "started", attempt=attempt)
        yield hop(at + 50, "failed", attempt=attempt, errorType="upstream-error")
        yield hop(at + 50, "delayed", queue=queue, seconds=seconds)
        at += 60 + int(seconds * 1_000)
    yield hop(at, "started", attempt=4)
    yield hop(at + 50, "failed", attempt=4, errorType="upstream-error")
    yield hop(at + 60, "dead-lettered", reason="retries-exhausted")


GOOD = task("t1", "good", "SUCCEEDED", [hop(1, "accepted"), hop(2, "started", attempt=1), hop(9, "succeeded")])
DEAD = task("t2", "dead", "DEAD_LETTERED", list(climb()), deadReason="retries-exhausted")
DEAD_LETTER = DeadLetter("t2", 0, 4, "retries-exhausted")
LOST = task("t3", "no", "REJECTED", [hop(1, "accepted"), hop(2, "rejected")])

CLEAN = Facts(
    seed=1, duration=60, clients=1, settings={}, ladder=LADDER, answer_within=5.0,
    orders=[order("good"), order("dead", "hopeless", fail=999), order("no")],
    answers=[answer("good", task_id="t1"), answer("dead", task_id="t2"), answer("no", 503, problem="broker-unavailable")],
    faults=[],
    deliveries=[
        Delivery("t1", "good", 1, 2, "applied"),
        *(Delivery("t2", "dead", number, number + 1, "failed") for number in range(4)),
    ],
    effects={"t1": 1},
    tasks=[GOOD, DEAD, LOST],
    dead_letters=[DEAD_LETTER],
    poison=[], noise=[], samples=[], left=QUIET,
)  # fmt: skip


def broken(**changes):
    return {violation.rule for violation in check(dataclasses.replace(CLEAN, **changes))}


def with_view(this, **changes):
    return dataclasses.replace(this, view={**this.view, **changes})


def with_hops(this, hops):
    return dataclasses.replace(this, hops=hops)


def tasks(*changed):
    own = {this.id: this for this in changed}
    return [own.pop(this.id, this) for this in CLEAN.tasks] + list(own.values())
