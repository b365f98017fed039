"""The fake's operations that look at the system."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx

from robot_dispatch_client.models import State
from robot_dispatch_client.testing.records import now
from robot_dispatch_client.testing.replies import Refusal, reply

if TYPE_CHECKING:
    from robot_dispatch_client.testing.fake import FakeDispatch

#: The queues of the fake: their roles, and the state of the tasks in them.
_QUEUES = {"robot.task.q": ("work", State.QUEUED), "robot.task.dlq": ("dead-letters", State.DEAD_LETTERED)}


def task_types(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    """``GET /v1/task-types``."""
    return reply({"items": [_type(name) for name in _names(fake)]})


def task_type(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``GET /v1/task-types/{name}``."""
    if name not in _names(fake):
        raise Refusal("not-found")
    return reply(_type(name))


def queues(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    """``GET /v1/queues``."""
    return reply({"items": [_queue(fake, name) for name in _QUEUES]})


def queue(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``GET /v1/queues/{name}``."""
    if name not in _QUEUES:
        raise Refusal("not-found")
    return reply(_queue(fake, name))


def workers(_: FakeDispatch, __: httpx.Request) -> httpx.Response:
    """``GET /v1/workers``: one."""
    times = {"startedAt": now(), "seenAt": now()}
    counts = {"processes": 1, "active": 0, "reserved": 0, "done": {}}
    return reply({"items": [{"name": "fake", "host": "fake", "pid": 1, "version": "fake", **counts, **times}]})


def stats(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``GET /v1/stats``."""
    tasks = [task for task in fake.tasks.values() if task.parent_id is None]
    by_type: dict[str, Counter[str]] = {}
    for task in tasks:
        by_type.setdefault(task.type, Counter())[task.state] += 1
    dead = Counter((task.error or {}).get("type", "") for task in tasks if task.state == State.DEAD_LETTERED)
    return reply({
        "asOf": now(), "counted": len(tasks), "complete": True, "principal": request.url.params.get("principal"),
        "states": Counter(task.state for task in tasks),
        "types": [{"type": name, "total": count.total(), "states": count} for name, count in sorted(by_type.items())],
        "deadLetters": [{"errorType": name, "count": count} for name, count in dead.most_common()],
    })  # fmt: skip


def _names(fake: FakeDispatch) -> list[str]:
    return fake.types if fake.types is not None else sorted({task.type for task in fake.tasks.values()})


def _type(name: str) -> dict[str, Any]:
    return {
        "name": name, "summary": "", "payloadSchema": {}, "ladder": [], "maxAttempts": 4, "timeLimitSeconds": 300.0,
        "deadlineSeconds": None,
        "maxRunning": None,
        "rate": None,
    }  # fmt: skip


def _queue(fake: FakeDispatch, name: str) -> dict[str, Any]:
    role, state = _QUEUES[name]
    count = sum(task.state == state for task in fake.tasks.values())
    unknown = dict.fromkeys(
        ("lane", "publishRate", "deliverRate", "ackRate", "ttl", "deadLetterExchange", "maxLength", "deliveryLimit", "guard",
         "policy", "deadLettering"),
    )  # fmt: skip
    counts = {"ready": count, "unacked": 0, "total": count, "consumers": int(role == "work")}
    return {"name": name, "role": role, **counts, **unknown, "bindings": [], "drift": [], "asOf": now()}
