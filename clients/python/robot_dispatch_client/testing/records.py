"""The tasks of the fake."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import itertools
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from robot_dispatch_client.models import State, Status

_STATUS: Mapping[str, Status] = {
    State.RUNNING: Status.RUNNING, State.WAITING: Status.RUNNING, State.SUCCEEDED: Status.SUCCESS,
    State.DEAD_LETTERED: Status.FAIL, State.CANCELLED: Status.FAIL, State.EXPIRED: Status.FAIL, State.REJECTED: Status.FAIL,
}  # fmt: skip

#: States whose wait `retry-now` ends.
WAITS = frozenset({State.RETRY_WAIT, State.DELAYED})

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
    parent_id: str | None = None
    held_by: str | None = None
    signals: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)  #: name and payload
    hops: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    created_at: str = dataclasses.field(default_factory=now)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return _STATUS.get(self.state) in {Status.SUCCESS, Status.FAIL}

    @property
    def concurrency_key(self) -> str | None:
        """Of the tasks with the same one, a limited number run at once; the principal is a part of it."""
        given = self.options.get("concurrencyKey")
        return f"local:{given}" if given else None

    @property
    def webhook(self) -> dict[str, Any] | None:
        """Where its end is announced."""
        given = self.options.get("webhook")
        return given and {"events": ["task.succeeded", "task.failed"], **given}

    @property
    def fingerprint(self) -> str | None:
        """Of its error's message."""
        if self.error is None:
            return None
        return hashlib.sha256(str(self.error["detail"]).encode()).hexdigest()[:16]

    @property
    def pausable(self) -> set[str]:
        """What can be paused so that this task is held."""
        return {"all", f"type:{self.type}", "principal:local", f"key:{self.concurrency_key}"}

    def note_error(self, error: str, detail: str, *, retryable: bool) -> None:
        """Note that an attempt failed."""
        title = error.replace("-", " ").capitalize()
        self.error = {"type": error, "title": title, "detail": detail, "retryable": retryable}
        self.hop("failed", attempt=self.attempt, errorType=error, message=detail)

    def redrive(self) -> None:
        """Begin its next cycle."""
        self.cycle, self.attempt, self.error = self.cycle + 1, 0, None
        self.become(State.QUEUED, "redriven", by="local")

    def webhook_body(self) -> str:
        """The body of its webhook."""
        kind = "task.succeeded" if self.state == State.SUCCEEDED else "task.failed"
        return json.dumps({"type": kind, "timestamp": self.finished_at or now(), "data": self.to_json()})

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
            "wakesAt": None, "waitingFor": [], "heldBy": self.held_by, "queue": None if self.done else "robot.task.q",
            "progress": self.progress, "result": self.result, "error": self.error, "labels": labels,
            "concurrencyKey": self.concurrency_key, "parentId": self.parent_id, "webhook": self.webhook, "deadlineAt": None,
            "requestId": self.request_id, "traceId": parts[1] if len(parts) > 1 else uuid.UUID(self.task_id).hex,
            "createdAt": self.created_at, "updatedAt": self.hops[-1]["at"] if self.hops else self.created_at,
            "startedAt": self.created_at if self.attempt else None, "finishedAt": self.finished_at, "revision": self.revision,
        }  # fmt: skip

    def letter_json(self) -> dict[str, Any]:
        """As the API lists its dead letter."""
        return self.to_json() | {
            "principal": "local",
            "deadReason": "permanent",
            "fingerprint": self.fingerprint,
        }


@dataclasses.dataclass(slots=True)
class FakeJob:
    """A job of the fake."""

    verb: str
    filter: dict[str, Any]
    limit: int
    rate_per_second: float
    canary: bool = False
    bulk: bool = False  #: a bulk redrive, which is listed until it is done, without counts
    job_id: str = dataclasses.field(default_factory=new_id)
    state: str = "running"
    reason: str | None = None
    done: int = 0
    created_at: str = dataclasses.field(default_factory=now)
    finished_at: str | None = None

    def end(self, state: str, reason: str | None = None) -> None:
        """End it."""
        self.state, self.reason, self.finished_at = state, reason, now()

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        counts = {"matched": self.done, "matchedAll": True, "left": 0, "done": self.done, "failed": 0, "passedOver": 0}
        return {
            "jobId": self.job_id, "verb": self.verb, "filter": self.filter, "limit": self.limit,
            "ratePerSecond": self.rate_per_second, "canary": self.canary, "requestedBy": "local", "state": self.state,
            "reason": self.reason, **(dict.fromkeys(counts) if self.bulk else counts), "canaryTaskId": None,
            "createdAt": self.created_at, "finishedAt": self.finished_at,
        }  # fmt: skip
