"""Pydantic models of the HTTP contract: request bodies, query parameters, responses.

Requests are validated with these. Responses are built by `Record.to_json` and the views; a test validates them against
these models, from which the OpenAPI document is generated. The suffix `Model` is no part of a component's name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.alias_generators import to_camel

from dispatch.protocol.record import State, Status

MAX_NAME = 128  #: characters of a task type's or an error type's name
MAX_PAGE = 200  #: items on one page

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Cursor = Annotated[str, Field(min_length=1, max_length=4_096, description="`next` of the previous page.")]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="Maximum of items on a page.")]
Moment = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
        examples=["2026-11-24T02:36:00.000Z"],
    ),
]


def _title(model: type) -> str:
    return model.__name__.removesuffix("Model")


class _Base(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True,
        model_title_generator=_title,
    )  # fmt: skip


class Body(_Base):
    """Base of request bodies: strict, unknown members are rejected."""

    model_config = pydantic.ConfigDict(strict=True)


class Query(_Base):
    """Base of query parameters: unknown ones are rejected."""


# --- requests ------------------------------------------------------------------------------------
class NoBody(Body):
    """An empty object."""


class SubmitBody(Body):
    """A task to run."""

    type: Name
    payload: dict[str, Any]
    options: NoBody = Field(NoBody(), description="How to run the task; there are no options yet.")


class TaskQuery(Query):
    """Which tasks to list."""

    status: Status | None = None
    state: State | None = None
    type: Name | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class DeadLetterQuery(Query):
    """Which dead letters to list."""

    type: Name | None = None
    error_type: Name | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class LetterFilter(Body):
    """Which dead letters; all by default."""

    type: Name | None = None
    error_type: Name | None = None


class BulkRedriveBody(Body):
    """Dead letters that the workers redrive, at a bounded rate."""

    filter: LetterFilter = LetterFilter()
    limit: int = Field(100, ge=1, le=100_000, description="Maximum of dead letters, oldest first.")
    rate_per_second: float = Field(
        10.0, gt=0, le=1_000, allow_inf_nan=False, description="Maximum of dead letters a second."
    )
    dry_run: bool = Field(False, description="Only count the dead letters that match now.")


# --- responses -----------------------------------------------------------------------------------
class ProgressModel(_Base):
    """Progress that the handler reported."""

    percent: int = Field(ge=0, le=100)
    message: str


class TaskErrorModel(_Base):
    """Why the last attempt failed."""

    type: str = Field(description="Machine-readable, e.g. `upstream-timeout`.")
    title: str
    detail: str
    retryable: bool = Field(description="Whether another attempt may help.")


class TaskModel(_Base):
    """A task as it is now."""

    task_id: str = Field(description="UUIDv7.")
    type: str
    status: Status = Field(description="The closed set.")
    state: State = Field(description="More detailed than `status`; new states may be added.")
    status_url: str
    events_url: str
    attempt: int = Field(ge=0, description="Attempts started in this cycle.")
    max_attempts: int = Field(ge=0)
    cycle: int = Field(ge=0, description="Redrives so far.")
    next_attempt_at: Moment | None
    queue: str | None = Field(description="The queue that holds its message.")
    progress: ProgressModel | None
    result: Any = Field(description="What the handler returned; null until SUCCESS.")
    error: TaskErrorModel | None = Field(description="Error of the last failed attempt.")
    request_id: str | None
    trace_id: str | None = Field(description="32 hex digits; the same through every hop.")
    trace_url: str = Field("", description="Link to the trace; only where `DISPATCH_TRACE_URL` is set.")
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    revision: int = Field(ge=0, description="Incremented by every change; the ETag.")


class TaskListModel(_Base):
    """One page of tasks, newest first."""

    items: list[TaskModel]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class EventModel(_Base):
    """One hop of a task; further members depend on `kind`."""

    model_config = pydantic.ConfigDict(extra="allow")

    seq: int = Field(description="Sequence number of the hop; the `id` of the event in a stream.")
    at: Moment
    kind: str = Field(examples=["accepted", "published", "started", "failed", "delayed", "dead-lettered", "succeeded"])


class RungModel(_Base):
    """One delay queue of the retry ladder."""

    name: str
    seconds: float
    queue: str


class TaskTypeModel(_Base):
    """A task type that workers run."""

    name: str
    summary: str
    payload_schema: dict[str, Any] = Field(description="JSON Schema 2020-12 of `payload`.")
    ladder: list[RungModel] = Field(description="Rungs on which failed attempts wait, in order.")
    max_attempts: int
    time_limit_seconds: float = Field(description="An attempt over this limit is killed and counts as failed.")


class TaskTypeListModel(_Base):
    """The task types, by name."""

    items: list[TaskTypeModel]


class DeadLetterModel(TaskModel):
    """A task whose message is in the dead-letter queue."""

    principal: str = Field(description="Owner of the task.")
    dead_reason: str | None = Field(examples=["permanent", "retries-exhausted", "expired", "delivery_limit"])


class DeadLetterDetailModel(DeadLetterModel):
    """A dead letter with its payload."""

    payload: Any = Field(description="As submitted, without its secrets; null when the message cannot be decoded.")


class DeadLetterListModel(_Base):
    """One page of dead letters, newest first."""

    items: list[DeadLetterModel]
    next: str | None


class BulkAnswerModel(_Base):
    """A bulk redrive."""

    matched: int = Field(description="Dead letters that match now, at most `limit`.")
    limit: int
    rate_per_second: float
    dry_run: bool


class QueueBindingModel(_Base):
    """A binding of a queue."""

    exchange: str
    routing_key: str
    headers: dict[str, Any]


class QueueGuardModel(_Base):
    """The depth limit of the work queue."""

    limit: int = Field(description="Ready messages above which gateways respond 429 `queue-depth-exceeded`.")
    refusing: bool = Field(description="Whether this gateway does so now.")


class QueueModel(_Base):
    """A queue as in RabbitMQ's management API. A number is null while RabbitMQ has no statistics."""

    name: str
    role: str = Field(description="`work`, `rung`, `lease`, `dead-tap`, `dead-letters` or `extra`.")
    ready: int | None
    unacked: int | None
    total: int | None
    dead_lettering: int | None = Field(description="Messages in transit to another queue, not yet confirmed there.")
    consumers: int | None
    publish_rate: float | None = Field(description="Messages a second, like the other rates.")
    deliver_rate: float | None
    ack_rate: float | None
    ttl: float | None = Field(description="Message TTL in seconds.")
    dead_letter_exchange: str | None
    max_length: int | None
    delivery_limit: int | None
    guard: QueueGuardModel | None = Field(description="Work queue only.")
    policy: str | None
    bindings: list[QueueBindingModel]
    drift: list[str] = Field(description="Differences from the broker map.")
    as_of: Moment


class QueueListModel(_Base):
    """The queues, in the broker map's order."""

    items: list[QueueModel]


class WorkerModel(_Base):
    """A worker as of its last heartbeat."""

    name: str = Field(examples=["worker@host-019a"])
    host: str
    pid: int = Field(description="Process id of its main process.")
    version: str
    processes: int = Field(description="Current number of child processes: tasks that can run at once.")
    active: int = Field(description="Tasks that are running.")
    reserved: int = Field(description="Unacknowledged deliveries, running ones included.")
    done: dict[str, int] = Field(description="Deliveries received since its start, by task type.")
    started_at: Moment
    seen_at: Moment


class WorkerListModel(_Base):
    """The workers, by name."""

    items: list[WorkerModel]


class AliveModel(_Base):
    """The process responds."""

    status: Literal["ok"]


class CheckModel(_Base):
    """The state of one dependency of the gateway."""

    ok: bool
    detail: str


class ReadyModel(_Base):
    """Tasks can be accepted."""

    status: Literal["ok"]
    checks: dict[str, CheckModel]


class ProblemPageModel(_Base):
    """The explanation of a problem type."""

    type: str
    title: str
    status: int
    meaning: str
    remedy: str


class FieldErrorModel(_Base):
    """One validation error of a request."""

    pointer: str = Field(description="JSON Pointer into the body, or `/query/<name>`.", examples=["/payload/message"])
    detail: str
    code: str = Field(description="Machine-readable.", examples=["missing"])


class ProblemModel(_Base):
    """RFC 9457 problem details; some types have additional members."""

    model_config = pydantic.ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/validation-error"])
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    trace_id: str
    errors: list[FieldErrorModel] = Field(default_factory=list, description="For `validation-error` only.")
