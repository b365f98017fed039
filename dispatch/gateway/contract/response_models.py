"""Pydantic models of responses.

Responses are built by `Record.to_json` and the views; a test validates them against these models, from which the OpenAPI
document is generated.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from dispatch.gateway.contract.fields import Moment, ResponseBase
from dispatch.protocol.jobs import JobState, JobVerb
from dispatch.protocol.record import State, Status


class CallbackModel(ResponseBase):
    """A callback that was recorded."""

    signal: str = Field(examples=["finished"])


class ProgressModel(ResponseBase):
    """Progress that the handler reported."""

    percent: int = Field(ge=0, le=100)
    message: str


class TaskErrorModel(ResponseBase):
    """Why the last attempt failed."""

    type: str = Field(description="Machine-readable, e.g. `upstream-timeout`.")
    title: str
    detail: str
    retryable: bool = Field(description="Whether another attempt may help.")


class WebhookModel(ResponseBase):
    """Where the end of a task is announced."""

    url: str
    events: list[str]


class TaskModel(ResponseBase):
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
    wakes_at: Moment | None = Field(
        description="In the state DELAYED: it does not run before. In the state WAITING: when its next step runs at the latest."
    )
    waiting_for: list[str] = Field(description="In the state WAITING: the signals that end the wait early.")
    held_by: str | None = Field(
        description="In the state HELD: the pause, the concurrency key that is taken, or the rate that is used up."
    )
    queue: str | None = Field(
        description="The queue that holds its message; of a delayed task, the first one that does."
    )
    step: int = Field(ge=0, description="Waits that its handler has gone through in this cycle.")
    cancel_requested: bool = Field(description="It was cancelled: it has ended so, or its handler is asked to stop.")
    progress: ProgressModel | None
    result: Any = Field(description="What the handler returned; null until SUCCESS.")
    error: TaskErrorModel | None = Field(description="Error of the last failed attempt.")
    labels: dict[str, str] = Field(description="Given by `options.labels`.")
    concurrency_key: str | None = Field(description="Of the tasks with the same key, a limited number run at once.")
    parent_id: str | None = Field(description="The task whose handler submitted it, or whose webhook it delivers.")
    webhook: WebhookModel | None = Field(description="Given by `options.webhook`.")
    deadline_at: Moment | None = Field(
        description="No attempt begins after it. A redrive has a deadline of the same length."
    )
    request_id: str | None
    trace_id: str | None = Field(description="32 hex digits; the same through every hop.")
    principal: str = Field("", description="Owner; only where the task is another principal's.")
    trace_url: str = Field("", description="Link to the trace; only where `DISPATCH_TRACE_URL` is set.")
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    revision: int = Field(ge=0, description="Incremented by every change; the ETag.")


class TaskListModel(ResponseBase):
    """One page of tasks, newest first."""

    items: list[TaskModel]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class PayloadModel(ResponseBase):
    """The payload of a task, without its secrets."""

    task_id: str
    type: str
    payload: Any = Field(
        description="As submitted, with `[secret]` in place of secrets; null when the message cannot be decoded."
    )
    masked: list[str] = Field(description="JSON Pointers into `payload`: what is masked, wholly or in part.")


class TypeCountsModel(ResponseBase):
    """The tasks of one type."""

    type: str = Field(description="`(others)`: types with fewer tasks than 200 others.")
    total: int
    states: dict[str, int] = Field(description="Tasks by state.", examples=[{"QUEUED": 2, "SUCCEEDED": 40}])


class ErrorCountModel(ResponseBase):
    """The dead letters of one error type."""

    error_type: str
    count: int


class StatsModel(ResponseBase):
    """How many tasks there are."""

    as_of: Moment = Field(description="When they were counted; half a minute ago at most.")
    complete: bool = Field(description="False: there are too many to count; the newest ones were.")
    counted: int = Field(description="Tasks that were counted.")
    principal: str | None = Field(description="Whose; null: of all principals.")
    states: dict[str, int] = Field(description="Tasks by state.", examples=[{"QUEUED": 2, "SUCCEEDED": 40}])
    types: list[TypeCountsModel] = Field(description="The most tasks first.")
    dead_letters: list[ErrorCountModel] = Field(description="What lies in the dead-letter queue, the most first.")


class EventModel(ResponseBase):
    """One hop of a task; further members depend on `kind`."""

    model_config = pydantic.ConfigDict(extra="allow")

    seq: int = Field(description="Sequence number of the hop; the `id` of the event in a stream.")
    at: Moment
    kind: str = Field(examples=["accepted", "published", "started", "failed", "delayed", "dead-lettered", "succeeded"])


class RungModel(ResponseBase):
    """One delay queue of the retry ladder."""

    name: str
    seconds: float
    queue: str


class TaskTypeModel(ResponseBase):
    """A task type that workers run."""

    name: str
    summary: str
    payload_schema: dict[str, Any] = Field(description="JSON Schema 2020-12 of `payload`.")
    ladder: list[RungModel] = Field(description="Rungs on which failed attempts wait, in order.")
    max_attempts: int
    time_limit_seconds: float = Field(description="An attempt over this limit is killed and counts as failed.")
    deadline_seconds: int | None = Field(description="`options.deadlineSeconds` by default; null: none.")
    max_running: int | None = Field(description="Tasks of the type that run at once; null: any number.")
    rate: str | None = Field(
        description="Runs of the type that begin in any second, minute or hour; null: any number.", examples=["10/s"]
    )


class TaskTypeListModel(ResponseBase):
    """The task types, by name."""

    items: list[TaskTypeModel]


class DeadLetterModel(TaskModel):
    """A task whose message is in the dead-letter queue."""

    principal: str = Field(description="Owner of the task.")
    dead_reason: str | None = Field(examples=["permanent", "retries-exhausted", "expired", "delivery-limit"])
    fingerprint: str | None = Field(description="Of the error's message: that of its group.")


class DeadLetterDetailModel(DeadLetterModel):
    """A dead letter with its payload."""

    payload: Any = Field(description="As submitted, without its secrets; null when the message cannot be decoded.")


class DeadLetterListModel(ResponseBase):
    """One page of dead letters, newest first."""

    items: list[DeadLetterModel]
    next: str | None


class DeadLetterFilterModel(ResponseBase):
    """Which dead letters; null matches any."""

    type: str | None
    error_type: str | None
    fingerprint: str | None


class DeadLetterGroupModel(ResponseBase):
    """Dead letters of one type that died of the same error."""

    type: str = Field(description="Empty for messages without one.")
    error_type: str = Field(description="Of the last attempt, or the reason of the death.", examples=["robot-failed"])
    fingerprint: str = Field(
        description="Of the error's message, whatever ids, numbers, quoted texts and addresses it has.",
        examples=["9f86d081884c7d65"],
    )
    count: int = Field(ge=1)
    first_at: Moment = Field(description="The earliest death.")
    last_at: Moment = Field(description="The latest death.")
    example_task_id: str = Field(description="Of the latest death.")
    example_error: str = Field(description="The error's message of that one.")
    filter: DeadLetterFilterModel | None = Field(
        description="Exactly these: for the list, and for the verbs on many. Null of messages without a type."
    )


class DeadLetterGroupsModel(ResponseBase):
    """Groups of dead letters, the largest first."""

    items: list[DeadLetterGroupModel]
    grouped: int = Field(description="Dead letters that match and were looked at.")
    not_shown: int = Field(description="Those of them that are in no group of `items`.")
    complete: bool = Field(description="Whether `items` has every dead letter that matches.")
    next: str | None = Field(description="Of the dead letters that were not looked at, which are older.")


class BulkAnswerModel(ResponseBase):
    """A bulk redrive."""

    job_id: str | None = Field(description="By which it is stopped; null when nothing was requested.")
    matched: int = Field(description="Dead letters that match now, at most `limit`.")
    limit: int
    rate_per_second: float
    dry_run: bool


class AuditEntryModel(ResponseBase):
    """What an operator did, or was refused."""

    id: str = Field(examples=["1795487760000-0"])
    at: Moment
    principal: str = Field(
        description="Id of the API key, `local`, or `cli:<OS user>`, with `/<name>` as given by `--as`."
    )
    key_id: str | None = Field(description="Which secret of the id: KEY of `dispatch keys list`.")
    client: str | None = Field(description="Address of the peer, a proxy's included; the host name of a command.")
    verb: str = Field(description="An operationId; commands use the same names.", examples=["redriveDeadLetter"])
    target: str = Field(description="A task id, or what a filter matches.")
    phase: Literal["begin", "end", "interrupted"] | None = Field(description="Of work on many dead letters.")
    result: str = Field(description="`ok`, or why not: the slug of a problem, or the name of an error.")
    request_id: str | None
    details: dict[str, Any] = Field(description="Counts, e.g. `matched`, `sent`, `discarded`, `refused`.")


class AuditListModel(ResponseBase):
    """One page of the audit log, newest first."""

    items: list[AuditEntryModel]
    next: str | None


class PauseModel(ResponseBase):
    """A pause."""

    what: str = Field(description="`all`, `type:…`, `principal:…` or `key:…`.", examples=["type:robot.clean"])
    reason: str
    by: str = Field(description="The principal, or `cli:<OS user>`.")
    at: Moment
    until: Moment | None
    held: int = Field(
        ge=0, description="Tasks that it holds; one that came out of the hold queue is counted until it is held again."
    )


class KeyHolderModel(ResponseBase):
    """A task that holds a concurrency key."""

    task_id: str
    lapses_at: Moment = Field(description="When another task may take its place, unless its worker renews it.")


class KeyModel(ResponseBase):
    """A concurrency key that is in use."""

    key: str = Field(
        description="As made by a task type, a client's own as `<principal>:<key>`, `max_running:<task type>`, or `rate:<task type>`.",
        examples=["robot-7"],
    )
    limit: int = Field(description="Tasks that may hold it at once; of a rate the runs that begin in its time.")
    holders: list[KeyHolderModel]
    waiting: int = Field(description="Tasks that wait for it.")
    next: list[str] = Field(description="The first of the waiting, 100 at most.")
    per_seconds: int | None = Field(description="Of a rate: its time; null of a key.")
    begun: int | None = Field(description="Of a rate: runs that have begun in its last time; null of a key.")


class KeyListModel(ResponseBase):
    """Concurrency keys that are in use, and the rates of task types."""

    items: list[KeyModel]


class PauseListModel(ResponseBase):
    """The pauses, by name."""

    items: list[PauseModel]


class JobModel(ResponseBase):
    """A verb on many tasks, and how far it is."""

    job_id: str
    verb: JobVerb
    filter: dict[str, Any] = Field(description="As requested; null is any.")
    limit: int = Field(description="Tasks at most.")
    rate_per_second: float
    canary: bool
    requested_by: str = Field(description="The principal.")
    state: JobState = Field(
        description="`running`, `done`, `stopped` or `failed`; one that has ended is kept for a day."
    )
    reason: str | None = Field(
        description="Why it was stopped: `requested`, or `canary-failed`; or the kind of error that it failed with."
    )
    matched: int | None = Field(
        description="Tasks that matched when a worker began it, `limit` at most; null before, and of a redrive as for `done`."
    )
    matched_all: bool | None = Field(description="Whether all of these were counted, within five seconds.")
    left: int | None = Field(description="Tasks still to come, of those that matched; 0 once it has ended.")
    done: int | None = Field(
        description="Tasks so far; null of a redrive that `POST /v1/dead-letters/redrive` has requested."
    )
    failed: int | None = Field(description="Tasks for which the verb failed; the worker's log has the reasons.")
    passed_over: int | None = Field(description="Tasks that had changed before it came to them.")
    canary_task_id: str | None
    created_at: Moment | None
    finished_at: Moment | None


class JobListModel(ResponseBase):
    """The jobs that run, and those that have ended within a day."""

    items: list[JobModel]


class JobCountModel(ResponseBase):
    """What a job would do."""

    matched: int = Field(description="Tasks that match now; the limit ends the count.")
    complete: bool = Field(description="Whether these are all; false after two seconds of counting.")


class QueueBindingModel(ResponseBase):
    """A binding of a queue."""

    exchange: str
    routing_key: str
    headers: dict[str, Any]


class QueueGuardModel(ResponseBase):
    """The depth limit of the work queue."""

    limit: int = Field(description="Ready messages above which gateways respond 429 `queue-depth-exceeded`.")
    refusing: bool = Field(description="Whether this gateway does so now.")


class QueueModel(ResponseBase):
    """A queue as in RabbitMQ's management API. A number is null of a queue that is not there, a rate until it is measured."""

    name: str
    lane: str | None = Field(
        description="Of a work queue, where there are lanes (`DISPATCH_LANES`).", examples=["bulk"]
    )
    role: str = Field(description="`work`, `rung`, `lease`, `hold`, `delay`, `dead-tap`, `dead-letters` or `extra`.")
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
    guard: QueueGuardModel | None = Field(description="Work queues only.")
    policy: str | None
    bindings: list[QueueBindingModel]
    drift: list[str] = Field(description="Differences from the broker map.")
    as_of: Moment


class QueueListModel(ResponseBase):
    """The queues, in the broker map's order."""

    items: list[QueueModel]


class WorkerModel(ResponseBase):
    """A worker as of its last heartbeat."""

    name: str = Field(examples=["worker@host-019a"])
    host: str
    pid: int = Field(description="Process id of its main process.")
    version: str
    processes: int = Field(description="Current number of child processes, or of threads: tasks that can run at once.")
    active: int = Field(description="Tasks that are running.")
    reserved: int = Field(description="Unacknowledged deliveries, running ones included.")
    done: dict[str, int] = Field(description="Deliveries received since its start, by task type.")
    started_at: Moment
    seen_at: Moment


class WorkerListModel(ResponseBase):
    """The workers, by name."""

    items: list[WorkerModel]


class AliveModel(ResponseBase):
    """The process responds."""

    status: Literal["ok"]


class CheckModel(ResponseBase):
    """The state of one dependency of the gateway."""

    ok: bool
    detail: str


class ReadyModel(ResponseBase):
    """Tasks can be accepted."""

    status: Literal["ok"]
    checks: dict[str, CheckModel]


class ProblemPageModel(ResponseBase):
    """The explanation of a problem type."""

    type: str
    title: str
    status: int
    meaning: str
    remedy: str


class ProblemPagesModel(ResponseBase):
    """Every problem type."""

    items: list[ProblemPageModel]


class LinkModel(ResponseBase):
    """A link to a part of the gateway."""

    href: str
    title: str


class HomeModel(ResponseBase):
    """What answers here."""

    name: str
    version: str
    links: list[LinkModel]


class FieldErrorModel(ResponseBase):
    """One validation error of a request."""

    pointer: str = Field(
        description="JSON Pointer into the body, `/query/<name>`, or `/path/<name>`.", examples=["/payload/message"]
    )
    detail: str
    code: str = Field(description="Machine-readable.", examples=["missing"])


class ProblemModel(ResponseBase):
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


class VerdictModel(ResponseBase):
    """What became of one item of a batch."""

    status: int = Field(description="202, or that of the problem.")
    replayed: bool = Field(description="Its Idempotency-Key had been used: this is the task of its first request.")
    task: TaskModel | None = Field(description="The accepted task.")
    problem: ProblemModel | None = Field(description="Why it was refused; `retryAfter` where a repeat may help.")


class BatchVerdictsModel(ResponseBase):
    """What became of a batch."""

    items: list[VerdictModel]
