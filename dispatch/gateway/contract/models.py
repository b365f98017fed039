"""The shapes on the wire: request bodies, query parameters, and what answers look like.

Requests are validated with these; answers are made by `Record.to_json` and the views, and a test holds
them to these models, which OpenAPI shows.
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
Cursor = Annotated[str, Field(min_length=1, max_length=4_096, description="`next` of the page before.")]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="Items on a page at most.")]
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
    """Base of request bodies: strict, unknown members refused."""

    model_config = pydantic.ConfigDict(strict=True)


class Query(_Base):
    """Base of query parameters: unknown ones refused."""


# --- requests ------------------------------------------------------------------------------------
class NoBody(Body):
    """Nothing: an operation that takes no body accepts an empty object."""


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


class LetterQuery(Query):
    """Which dead letters to list."""

    type: Name | None = None
    error_type: Name | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class LetterFilter(Body):
    """Which dead letters; all of them by default."""

    type: Name | None = None
    error_type: Name | None = None


class BulkRedrive(Body):
    """Dead letters to send again, by the workers, at a bounded rate."""

    filter: LetterFilter = LetterFilter()
    limit: int = Field(100, ge=1, le=100_000, description="Letters at most, oldest first.")
    rate_per_second: float = Field(10.0, gt=0, le=1_000, allow_inf_nan=False, description="Letters a second at most.")
    dry_run: bool = Field(False, description="Only count what matches now.")


# --- answers -------------------------------------------------------------------------------------
class ProgressModel(_Base):
    """How far the handler says it is."""

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
    state: State = Field(description="Says more than `status`; new states may come.")
    status_url: str
    events_url: str
    attempt: int = Field(ge=0, description="Attempts started in this cycle.")
    max_attempts: int = Field(ge=0)
    cycle: int = Field(ge=0, description="Times an operator redrove it.")
    next_attempt_at: Moment | None
    queue: str | None = Field(description="Where its copy waits.")
    progress: ProgressModel | None
    result: Any = Field(description="What the handler returned; null until SUCCESS.")
    error: TaskErrorModel | None = Field(description="Of the last failed attempt.")
    request_id: str | None
    trace_id: str | None = Field(description="32 hex digits; the same through every hop.")
    trace_url: str = Field("", description="A link to the trace; only where `DISPATCH_TRACE_URL` is set.")
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    revision: int = Field(ge=0, description="Raised by every change; the ETag.")


class TaskListModel(_Base):
    """One page of tasks, newest first."""

    items: list[TaskModel]
    next: str | None = Field(description="Hand it on as `cursor`; null at the end.")


class EventModel(_Base):
    """One hop of a task; members beyond these depend on `kind`."""

    model_config = pydantic.ConfigDict(extra="allow")

    seq: int = Field(description="Counts the task's hops; the `id` of the event in a stream.")
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
    ladder: list[RungModel] = Field(description="Where a failed attempt waits, in turn.")
    max_attempts: int
    time_limit_seconds: float = Field(description="An attempt that takes longer is killed and counts as failed.")


class TaskTypeListModel(_Base):
    """The task types, by name."""

    items: list[TaskTypeModel]


class DeadLetterModel(TaskModel):
    """A task whose message lies in the dead-letter queue."""

    principal: str = Field(description="Whose task it is.")
    dead_reason: str | None = Field(examples=["permanent", "retries-exhausted", "expired", "delivery_limit"])


class DeadLetterDetailModel(DeadLetterModel):
    """A dead letter with what the client sent."""

    payload: Any = Field(description="As it was submitted, without its secrets; null when the message can't be read.")


class DeadLetterListModel(_Base):
    """One page of dead letters, newest first."""

    items: list[DeadLetterModel]
    next: str | None


class BulkAnswerModel(_Base):
    """What a bulk redrive does."""

    matched: int = Field(description="Dead letters that match now, `limit` at most.")
    limit: int
    rate_per_second: float
    dry_run: bool


class QueueBindingModel(_Base):
    """What brings messages to a queue."""

    exchange: str
    routing_key: str
    headers: dict[str, Any]


class QueueGuardModel(_Base):
    """What keeps the work queue from growing too deep."""

    limit: int = Field(description="Ready messages above which gateways answer 429 `queue-depth-exceeded`.")
    refusing: bool = Field(description="Whether this gateway does at the moment.")


class QueueModel(_Base):
    """A queue as RabbitMQ's management API shows it. A number is null while it has no statistics."""

    name: str
    role: str = Field(description="`work`, `rung`, `lease`, `dead-tap`, `dead-letters` or `extra`.")
    ready: int | None
    unacked: int | None
    total: int | None
    dead_lettering: int | None = Field(description="On its way to another queue, not yet confirmed there.")
    consumers: int | None
    publish_rate: float | None = Field(description="Messages a second, as the other rates.")
    deliver_rate: float | None
    ack_rate: float | None
    ttl: float | None = Field(description="Seconds a message may wait.")
    dead_letter_exchange: str | None
    max_length: int | None
    delivery_limit: int | None
    guard: QueueGuardModel | None = Field(description="Of the work queue only.")
    policy: str | None
    bindings: list[QueueBindingModel]
    drift: list[str] = Field(description="What is not as the broker map says.")
    as_of: Moment


class QueueListModel(_Base):
    """The queues, in the broker map's order."""

    items: list[QueueModel]


class WorkerModel(_Base):
    """A worker, as it was at its last sign of life."""

    name: str = Field(examples=["worker@host-019a"])
    host: str
    pid: int = Field(description="Of its main process.")
    version: str
    processes: int = Field(description="Tasks that it can run at once, as of now.")
    active: int = Field(description="Tasks that run.")
    reserved: int = Field(description="Deliveries in hand, those that run included.")
    done: dict[str, int] = Field(description="Deliveries taken since its start, by task type.")
    started_at: Moment
    seen_at: Moment


class WorkerListModel(_Base):
    """The workers, by name."""

    items: list[WorkerModel]


class AliveModel(_Base):
    """The process answers."""

    status: Literal["ok"]


class CheckModel(_Base):
    """One thing that the gateway needs."""

    ok: bool
    detail: str


class ReadyModel(_Base):
    """Tasks can be accepted."""

    status: Literal["ok"]
    checks: dict[str, CheckModel]


class ProblemPageModel(_Base):
    """What a problem type means."""

    type: str
    title: str
    status: int
    meaning: str
    remedy: str


class FieldErrorModel(_Base):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON Pointer into the body, or `/query/<name>`.", examples=["/payload/message"])
    detail: str
    code: str = Field(description="Machine-readable.", examples=["missing"])


class ProblemModel(_Base):
    """RFC 9457 problem details; some types have more members."""

    model_config = pydantic.ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/validation-error"])
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    trace_id: str
    errors: list[FieldErrorModel] = Field(default_factory=list, description="For validation only.")
