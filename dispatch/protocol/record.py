"""A task's record: its states, and its representation in the API. Pure.

::

    PENDING (SCHEDULED, DELAYED, QUEUED, RETRY_WAIT, HELD) ⇄ RUNNING (RUNNING, WAITING) → SUCCESS (SUCCEEDED)
            │                                     └─────────────→ FAIL (DEAD_LETTERED, EXPIRED, CANCELLED)
            └→ FAIL (REJECTED: the broker refused it, it never ran; CANCELLED)
    FAIL (DEAD_LETTERED, EXPIRED) → redrive → PENDING, next cycle
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.ids import timestamp, trace_id
from dispatch.protocol.message import Message


class Status(enum.StrEnum):
    """The closed set of answers to "where is my task"."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"


class State(enum.StrEnum):
    """Finer than `Status`."""

    SCHEDULED = "SCHEDULED"  #: recorded, the broker has not confirmed it yet
    DELAYED = "DELAYED"  #: in the delay levels until `wakesAt`, then in the work queue; a worker's claim ends it
    QUEUED = "QUEUED"  #: in the work queue
    RETRY_WAIT = "RETRY_WAIT"  #: on a rung of the ladder
    HELD = "HELD"  #: in the hold queue: paused, or its concurrency key is taken
    RUNNING = "RUNNING"  #: a worker holds its lease
    WAITING = "WAITING"  #: between two steps: in the delay levels until `wakesAt`, or until a signal
    SUCCEEDED = "SUCCEEDED"
    DEAD_LETTERED = "DEAD_LETTERED"  #: in the DLQ; can be redriven
    EXPIRED = "EXPIRED"  #: waited longer than the queue's TTL; in the DLQ; can be redriven
    CANCELLED = "CANCELLED"  #: stopped by request
    REJECTED = "REJECTED"  #: the broker did not take it; it never runs

    @property
    def status(self) -> Status:
        """The status this state belongs to."""
        return _STATUS[self]

    @property
    def dead(self) -> bool:
        """Whether its message lies in the DLQ."""
        return self in (State.DEAD_LETTERED, State.EXPIRED)

    @property
    def terminal(self) -> bool:
        """Whether only a redrive leads out of it."""
        return _STATUS[self] in (Status.SUCCESS, Status.FAIL)


_STATUS = {
    State.SCHEDULED: Status.PENDING, State.DELAYED: Status.PENDING, State.QUEUED: Status.PENDING,
    State.RETRY_WAIT: Status.PENDING, State.HELD: Status.PENDING,
    State.RUNNING: Status.RUNNING, State.WAITING: Status.RUNNING, State.SUCCEEDED: Status.SUCCESS,
    State.DEAD_LETTERED: Status.FAIL, State.EXPIRED: Status.FAIL, State.CANCELLED: Status.FAIL, State.REJECTED: Status.FAIL,
}  # fmt: skip


#: The states in which it sleeps until `wakesAt`.
_ASLEEP = frozenset({State.DELAYED, State.WAITING})


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why an attempt failed, as clients see it."""

    type: str
    message: str
    retryable: bool

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        title = self.type.replace("-", " ").replace("_", " ")
        return {
            "type": self.type,
            "title": title[:1].upper() + title[1:],
            "detail": self.message,
            "retryable": self.retryable,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Brief:
    """The part of a record by which lists choose: a few bytes, where the record may have hundreds of thousands."""

    type: str
    state: State
    error_type: str | None = None
    error_fingerprint: str | None = None  #: of the last error
    discarded: bool = False
    before_redrive: State | None = None
    created_at: int = 0  #: epoch milliseconds; this and what follows only where it was read, see `record_fields.FOUND`
    wakes_at: int = 0  #: epoch milliseconds; 0 of a task that was not submitted for later
    request_id: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parent_id: str = ""

    @property
    def due_at(self) -> int:
        """Epoch milliseconds by which lists have it, as `Message.due_at`."""
        return max(self.created_at, self.wakes_at)

    @property
    def is_dead_letter(self) -> bool:
        """As `Record.is_dead_letter`."""
        return self.state.dead and not self.discarded

    @property
    def status(self) -> Status:
        """The closed status."""
        return self.state.status


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A task as Redis holds it. Times are epoch milliseconds."""

    task_id: str
    type: str
    principal: str
    state: State
    cycle: int
    seq: int
    attempt: int  #: attempts started in this cycle
    max_attempts: int
    revision: int
    created_at: int
    updated_at: int
    published: bool = True
    started_at: int | None = None
    finished_at: int | None = None
    next_attempt_at: int | None = None
    wakes_at: int | None = None  #: before which it does not run: submitted for later, or between two steps
    waiting_for: tuple[str, ...] = ()  #: the signals that end its wait early
    held_by: str | None = None  #: what holds it: a pause, or a concurrency key
    deadline_at: int | None = None  #: after which no attempt begins
    step: int = 0  #: waits that it has gone through in this cycle
    concurrency_key: str | None = None  #: of which a limited number run at once
    parent_id: str | None = None  #: the task that submitted it: its handler, or its end
    webhook: Mapping[str, Any] | None = None  #: where its end is announced, see `dispatch.protocol.webhooks`
    queue: str | None = None  #: where its copy waits
    rung: str | None = None
    progress: Mapping[str, Any] | None = None
    result: Any = None
    error: ErrorInfo | None = None
    error_fingerprint: str | None = None
    dead_reason: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    worker: str | None = None
    cancel_requested: bool = False
    lost_runs: int = 0
    discarded: bool = False  #: an operator discarded the dead letter
    before_redrive: State | None = None  #: a redrive was recorded and its copy is not confirmed yet
    decided_seq: int | None = None  #: of a decision that is not confirmed yet
    decision: str | None = None  #: its `Copy` as JSON; of a whole record only
    copy_attempt: int | None = None  #: the attempt that the copy on its way authorises
    idempotency_key: str | None = None  #: that it was submitted with
    checkpoint: str | None = None  #: what its next step finds, as the copy's header has it; of a whole record only
    message: Message | None = None  #: as it was accepted, until no copy of it can be needed; of a whole record only

    @property
    def is_dead_letter(self) -> bool:
        """Whether it lies in the DLQ, to be redriven or discarded."""
        return self.state.dead and not self.discarded

    @property
    def status(self) -> Status:
        """The closed status."""
        return self.state.status

    @property
    def trace_id(self) -> str | None:
        """The task's trace."""
        return trace_id(self.traceparent)

    def to_json(self) -> dict[str, Any]:
        """As the API shows it (docs/reference/http-api.md, "Following a task")."""
        url = f"/v1/tasks/{self.task_id}"
        return {
            "taskId": self.task_id, "type": self.type, "status": self.status.value, "state": self.state.value,
            "statusUrl": url, "eventsUrl": f"{url}/events",
            "attempt": self.attempt, "maxAttempts": self.max_attempts, "cycle": self.cycle,
            "nextAttemptAt": timestamp(self.next_attempt_at),
            "wakesAt": timestamp(self.wakes_at) if self.state in _ASLEEP else None,
            "waitingFor": list(self.waiting_for) if self.state is State.WAITING else [],
            "heldBy": self.held_by if self.state is State.HELD else None, "queue": self.queue, "step": self.step,
            "cancelRequested": self.cancel_requested,
            "progress": self.progress, "result": self.result, "error": self.error and self.error.to_json(),
            "labels": dict(self.labels), "concurrencyKey": self.concurrency_key, "parentId": self.parent_id,
            "webhook": self.webhook and dict(self.webhook),
            "deadlineAt": timestamp(self.deadline_at), "requestId": self.request_id, "traceId": self.trace_id,
            "createdAt": timestamp(self.created_at), "updatedAt": timestamp(self.updated_at),
            "startedAt": timestamp(self.started_at), "finishedAt": timestamp(self.finished_at), "revision": self.revision,
        }  # fmt: skip
