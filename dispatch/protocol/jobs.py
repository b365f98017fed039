"""Jobs: a verb on every task that a filter matches, carried out by the workers. Pure."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.ids import timestamp
from dispatch.protocol.record import Record, State
from dispatch.protocol.task_filter import TaskFilter

#: Milliseconds for which a job that has ended is kept.
KEPT = 86_400_000

#: Jobs that run at the same time at most: each is looked at again and again.
MOST_RUNNING = 100

#: `BulkJob.matched` of a job whose tasks were not counted yet.
UNCOUNTED = -1


class JobVerb(enum.StrEnum):
    """What a job does to each task."""

    CANCEL = "cancel"
    RETRY_NOW = "retry-now"
    REDRIVE = "redrive"
    DISCARD = "discard"

    @property
    def for_dead_letters(self) -> bool:
        """Whether it is for dead letters, and not for tasks that have not ended."""
        return self in (JobVerb.REDRIVE, JobVerb.DISCARD)

    def applies(self, record: Record) -> bool:
        """Whether a task is one of those that it is for; one that it was done to before is not."""
        if self.for_dead_letters:
            return record.is_dead_letter
        if self is JobVerb.RETRY_NOW:
            return record.state in (State.RETRY_WAIT, State.DELAYED)
        return not record.state.terminal and not record.cancel_requested


class JobState(enum.StrEnum):
    """How far a job is."""

    RUNNING = "running"  #: a worker carries it out, or will
    DONE = "done"  #: no task is left, or its limit is reached
    STOPPED = "stopped"  #: by an operator, or since its canary failed
    FAILED = "failed"  #: it can't be carried out; the worker's log has why


@dataclasses.dataclass(frozen=True, slots=True)
class BulkJob:
    """A job, and how far it is. Times are epoch milliseconds."""

    id: str  #: a UUIDv7
    verb: JobVerb
    filter: TaskFilter
    limit: int  #: tasks at most
    rate: float  #: tasks a second; 0 is no limit
    by: str  #: who asked for it
    created_at: int
    canary: bool = False  #: the first task alone, until it has gone well
    state: JobState = JobState.RUNNING
    reason: str = ""  #: why it was stopped
    done: int = 0  #: tasks that the verb was done to
    failed: int = 0  #: tasks for which it failed
    passed_over: int = 0  #: tasks that had changed before it came to them
    cursor: str = ""  #: of the page in hand
    canary_task: str = ""  #: the first task
    canary_passed: bool = False
    finished_at: int = 0
    matched: int = UNCOUNTED  #: tasks that matched when it began, its limit at most
    matched_all: bool = False  #: those are all that matched then

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state is JobState.RUNNING

    @property
    def allowed(self) -> int:
        """Tasks that it may still take."""
        return self.limit - self.done - self.failed

    @property
    def left(self) -> int | None:
        """Tasks that are still to come, as far as they were counted when it began; None while that is not known."""
        if not self.running:
            return 0
        return None if self.matched == UNCOUNTED else max(0, self.matched - self.done - self.failed - self.passed_over)

    def fields(self) -> list[str | float]:
        """Names and values in turn, for a hash."""
        values = dataclasses.asdict(self)
        values["filter"] = json.dumps(dataclasses.asdict(self.filter))
        return [word for name, value in values.items() for word in (name, _word(value))]

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> BulkJob | None:
        """From its hash; None from an empty one."""
        if "verb" not in fields:
            return None
        values: dict[str, Any] = {name: fields[name] for name in ("id", "by", "reason", "cursor", "canary_task")}
        for name in ("limit", "created_at", "done", "failed", "passed_over", "finished_at"):
            values[name] = int(fields[name])
        for name in ("canary", "canary_passed", "matched_all"):
            values[name] = fields.get(name) == "1"
        return cls(
            verb=JobVerb(fields["verb"]),
            filter=TaskFilter(**json.loads(fields["filter"])),
            rate=float(fields["rate"]),
            state=JobState(fields["state"]),
            matched=int(fields.get("matched", UNCOUNTED)),  # the version before has not counted
            **values,
        )

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "jobId": self.id, "verb": self.verb.value, "filter": filter_json(self.filter), "limit": self.limit,
            "ratePerSecond": self.rate, "canary": self.canary, "requestedBy": self.by, "state": self.state.value,
            "reason": self.reason or None, "matched": None if self.matched == UNCOUNTED else self.matched,
            "matchedAll": self.matched_all, "left": self.left, "done": self.done, "failed": self.failed, "passedOver": self.passed_over,
            "canaryTaskId": self.canary_task or None,
            "createdAt": timestamp(self.created_at), "finishedAt": timestamp(self.finished_at or None),
        }  # fmt: skip


def stop_fields(reason: str, at: int) -> tuple[str | int, ...]:
    """What changes in the hash of a job that is stopped, whatever it has done meanwhile; at: epoch milliseconds."""
    return "state", JobState.STOPPED.value, "reason", reason, "finished_at", at


def _word(value: Any) -> str | float:
    return int(value) if isinstance(value, bool) else value if isinstance(value, int | float) else str(value)


def filter_json(wanted: TaskFilter) -> dict[str, Any]:
    """A job's filter as the API shows it."""
    return {
        "type": wanted.type, "status": wanted.status, "state": wanted.state, "errorType": wanted.error_type,
        "fingerprint": wanted.error_fingerprint, "principal": wanted.principal, "labels": dict(wanted.labels),
        "since": timestamp(wanted.since), "until": timestamp(wanted.until),
    }  # fmt: skip


def canary_passed(record: Record | None) -> bool | None:
    """Whether the first task of a redrive or of a retry has gone well; None while that is open."""
    if record is None or record.state in (State.SUCCEEDED, State.WAITING):
        return True
    if record.state in (State.QUEUED, State.SCHEDULED, State.RUNNING, State.HELD):
        return None
    return False
