"""The tasks of the fake."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import time
import uuid
from collections.abc import Mapping
from typing import Any

from robot_dispatch_client.models import State, Status

_STATUS: Mapping[str, Status] = {
    State.RUNNING: Status.RUNNING, State.WAITING: Status.RUNNING, State.SUCCEEDED: Status.SUCCESS,
    State.DEAD_LETTERED: Status.FAIL, State.CANCELLED: Status.FAIL, State.EXPIRED: Status.FAIL, State.REJECTED: Status.FAIL,
}  # fmt: skip

_counter = itertools.count()


def new_id() -> str:
    """A task id: a UUIDv7, later ones are greater."""
    number = (time.time_ns() // 1_000_000 << 80) | (7 << 76) | (2 << 62)
    return str(uuid.UUID(int=number | (next(_counter) & 0xFFF) << 64 | uuid.uuid4().int & (1 << 62) - 1))


def now() -> str:
    """The time as the API writes it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclasses.dataclass(slots=True)
class FakeTask:
    """A task of the fake."""

    type: str
    payload: dict[str, Any]
    options: dict[str, Any]
    idempotency_key: str | None
    request_id: str
    traceparent: str | None
    task_id: str = dataclasses.field(default_factory=new_id)
    state: str = State.QUEUED
    attempt: int = 0
    cycle: int = 0
    revision: int = 1
    result: Any = None
    error: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    next_attempt_at: str | None = None
    finished_at: str | None = None
    signals: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)  #: name and payload
    hops: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    created_at: str = dataclasses.field(default_factory=now)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return _STATUS.get(self.state) in {Status.SUCCESS, Status.FAIL}

    def hop(self, kind: str, **details: Any) -> None:
        """Add a hop."""
        self.hops.append({"seq": len(self.hops) + 1, "at": now(), "kind": kind, **details})

    def become(self, state: str, kind: str, **details: Any) -> None:
        """Change its state, with a hop."""
        self.state = state
        self.revision += 1
        self.finished_at = now() if self.done else None
        self.hop(kind, **details)

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        labels = self.options.get("labels") or {}
        parts = (self.traceparent or "").split("-")
        return {
            "taskId": self.task_id, "type": self.type, "status": _STATUS.get(self.state, Status.PENDING), "state": self.state,
            "statusUrl": f"/v1/tasks/{self.task_id}", "eventsUrl": f"/v1/tasks/{self.task_id}/events",
            "attempt": self.attempt, "maxAttempts": 4, "cycle": self.cycle, "step": 0, "cancelRequested": self.state == State.CANCELLED, "nextAttemptAt": self.next_attempt_at,
            "wakesAt": None, "waitingFor": [], "heldBy": None, "queue": None if self.done else "robot.task.q",
            "progress": self.progress, "result": self.result, "error": self.error, "labels": labels,
            "concurrencyKey": self.options.get("concurrencyKey"), "parentId": None, "deadlineAt": None,
            "requestId": self.request_id, "traceId": parts[1] if len(parts) > 1 else uuid.UUID(self.task_id).hex,
            "createdAt": self.created_at, "updatedAt": self.hops[-1]["at"] if self.hops else self.created_at,
            "startedAt": self.created_at if self.attempt else None, "finishedAt": self.finished_at, "revision": self.revision,
        }  # fmt: skip

    def letter_json(self) -> dict[str, Any]:
        """As the API shows its dead letter."""
        return self.to_json() | {
            "principal": "local",
            "deadReason": "permanent",
            "fingerprint": None,
            "payload": self.payload,
        }
