"""What the API answers, as values.

Made for an API that grows: members that this version does not know are kept (`model_extra`), states and kinds are plain
strings, and members that an older gateway lacks have defaults.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Generic, TypeVar

import pydantic
from pydantic.alias_generators import to_camel

from robot_dispatch_client.errors import TaskFailed

T = TypeVar("T")


class Status(enum.StrEnum):
    """Every `Task.status`."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"


class State(enum.StrEnum):
    """The values of `Task.state` that this version knows; a gateway may have others."""

    SCHEDULED = "SCHEDULED"
    DELAYED = "DELAYED"
    QUEUED = "QUEUED"
    HELD = "HELD"
    RETRY_WAIT = "RETRY_WAIT"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    SUCCEEDED = "SUCCEEDED"
    DEAD_LETTERED = "DEAD_LETTERED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class Model(pydantic.BaseModel):
    """Base: members in snake_case; unknown ones are kept."""

    model_config = pydantic.ConfigDict(
        extra="allow", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Webhook(Model):
    """Where the end of a task is announced."""

    url: str = ""
    events: list[str] = []


class Progress(Model):
    """Progress that the handler reported."""

    percent: int = 0
    message: str = ""


class TaskError(Model):
    """Why the last attempt failed."""

    type: str = ""
    title: str = ""
    detail: str = ""
    retryable: bool = False


class Task(Model):
    """A task as it was when the API answered."""

    task_id: str
    type: str = ""
    status: str = Status.PENDING
    state: str = ""
    attempt: int = 0
    max_attempts: int = 0
    cycle: int = 0
    step: int = 0
    cancel_requested: bool = False
    revision: int = 0
    next_attempt_at: dt.datetime | None = None
    wakes_at: dt.datetime | None = None
    waiting_for: list[str] = []
    held_by: str | None = None
    queue: str | None = None
    progress: Progress | None = None
    result: Any = None
    error: TaskError | None = None
    labels: dict[str, str] = {}
    concurrency_key: str | None = None
    parent_id: str | None = None
    webhook: Webhook | None = None
    deadline_at: dt.datetime | None = None
    request_id: str | None = None
    trace_id: str | None = None
    trace_url: str = ""
    principal: str = ""
    status_url: str = ""
    events_url: str = ""
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status in {Status.SUCCESS, Status.FAIL}

    @property
    def succeeded(self) -> bool:
        """Whether it has succeeded."""
        return self.status == Status.SUCCESS

    def raise_for_failure(self) -> Task:
        """Return the task itself.

        Raises:
            TaskFailed: it ended FAIL.
        """
        if self.status == Status.FAIL:
            raise TaskFailed(self)
        return self


class DeadLetter(Task):
    """A task whose message is in the dead-letter queue."""

    dead_reason: str | None = None
    fingerprint: str | None = None
    payload: Any = None  #: of one dead letter, without its secrets; not in a list


class Event(Model):
    """One hop of a task; further members depend on its kind and are in `details`."""

    seq: int
    at: dt.datetime | None = None
    kind: str = ""

    @property
    def details(self) -> dict[str, Any]:
        """The members of this kind of hop, as the API names them."""
        return dict(self.model_extra or {})


class Payload(Model):
    """The payload of a task, without its secrets."""

    task_id: str
    type: str = ""
    payload: Any = None
    masked: list[str] = []  #: JSON Pointers to what is masked


class Rung(Model):
    """One wait of a task type's retry ladder."""

    name: str
    seconds: float = 0.0
    queue: str = ""


class TaskType(Model):
    """A task type that can be submitted."""

    name: str
    summary: str = ""
    payload_schema: dict[str, Any] = {}  #: JSON Schema
    ladder: list[Rung] = []
    max_attempts: int = 0
    time_limit_seconds: float = 0.0
    deadline_seconds: int | None = None


class Queue(Model):
    """A queue of the broker. A number is None while it is unknown."""

    name: str
    role: str = ""
    ready: int | None = None
    unacked: int | None = None
    total: int | None = None
    consumers: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    ack_rate: float | None = None
    ttl: float | None = None
    lane: str | None = None
    drift: list[str] = []
    as_of: dt.datetime | None = None


class Worker(Model):
    """A worker as of its last heartbeat."""

    name: str
    host: str = ""
    version: str = ""
    processes: int = 0
    active: int = 0
    reserved: int = 0
    done: dict[str, int] = {}
    started_at: dt.datetime | None = None
    seen_at: dt.datetime | None = None


class TypeCounts(Model):
    """The tasks of one type."""

    type: str
    total: int = 0
    states: dict[str, int] = {}


class ErrorCount(Model):
    """The dead letters of one error type."""

    error_type: str
    count: int = 0


class Stats(Model):
    """How many tasks there are."""

    as_of: dt.datetime | None = None
    complete: bool = True
    counted: int = 0
    principal: str | None = None
    states: dict[str, int] = {}
    types: list[TypeCounts] = []
    dead_letters: list[ErrorCount] = []


class LetterFilter(Model):
    """Which dead letters; None matches any."""

    type: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None


class DeadLetterGroup(Model):
    """Dead letters of one type that died of the same error."""

    type: str = ""
    error_type: str = ""
    fingerprint: str = ""
    count: int = 0
    first_at: dt.datetime | None = None
    last_at: dt.datetime | None = None
    example_task_id: str = ""
    example_error: str = ""
    filter: LetterFilter | None = None


class BulkRedrive(Model):
    """What a redrive of many dead letters was answered."""

    job_id: str | None = None
    matched: int = 0
    limit: int = 0
    rate_per_second: float = 0.0
    dry_run: bool = False


class Job(Model):
    """Something that the workers do to many tasks. The counts of a bulk redrive are None."""

    job_id: str
    verb: str = ""
    filter: dict[str, Any] = {}  #: which tasks, as the API names it
    limit: int = 0
    rate_per_second: float = 0.0
    canary: bool = False
    requested_by: str = ""
    state: str = ""  #: ``running``, ``done``, ``stopped`` or ``failed``
    reason: str | None = None  #: of its stop, e.g. ``requested`` or ``canary-failed``
    matched: int | None = None  #: when a worker began it
    matched_all: bool | None = None  #: whether all were counted
    left: int | None = None  #: still to come, of those that matched
    done: int | None = None
    failed: int | None = None
    passed_over: int | None = None  #: they had changed before it came to them
    canary_task_id: str | None = None
    created_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether it is done, was stopped, or has failed."""
        return self.state in {"done", "stopped", "failed"}


class JobCount(Model):
    """How many tasks a job would be for."""

    matched: int
    complete: bool = True  #: counting took no longer than it may


class Pause(Model):
    """What is paused, and why."""

    what: str
    reason: str = ""
    by: str = ""
    at: dt.datetime | None = None
    until: dt.datetime | None = None
    held: int = 0


class KeyHolder(Model):
    """A task that holds a concurrency key."""

    task_id: str
    lapses_at: dt.datetime | None = None


class Key(Model):
    """A concurrency key in use."""

    key: str
    limit: int = 1
    holders: list[KeyHolder] = []
    waiting: int = 0
    next: list[str] = []  #: the tasks that get it next


class AuditEntry(Model):
    """What an operator did, or was refused."""

    id: str = ""
    at: dt.datetime | None = None
    principal: str = ""
    verb: str = ""
    target: str = ""
    phase: str | None = None
    result: str = ""
    request_id: str | None = None
    details: dict[str, Any] = {}


class ScheduleRun(Model):
    """A task that a schedule submitted."""

    at: dt.datetime | None = None
    task_id: str = ""


class Schedule(Model):
    """A task that is submitted again and again."""

    name: str
    type: str = ""
    payload: Any = None  #: without its secrets
    options: dict[str, Any] = {}
    cron: str = ""
    timezone: str = ""
    overlap: str = ""
    catch_up: str = ""
    jitter_seconds: int = 0
    paused: bool = False
    principal: str = ""
    next_runs: list[dt.datetime | None] = []
    last_run: ScheduleRun | None = None
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    error: str | None = None
    waits_as: str | None = None
    revision: int = 0
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None


class Page(Model, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None = None


class VerdictBody(Model):
    """What became of one item of a batch, as the API has it."""

    status: int
    replayed: bool = False
    task: Task | None = None
    problem: dict[str, Any] | None = None
