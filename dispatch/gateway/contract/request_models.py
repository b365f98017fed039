"""Pydantic models of request bodies and query parameters: requests are validated with them, and the OpenAPI document is generated from them."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from dispatch.gateway.contract.fields import (
    MAX_BATCH,
    Body,
    Cursor,
    LabelPair,
    Labels,
    Limit,
    Name,
    Query,
    SearchTime,
    Whose,
)
from dispatch.protocol import concurrency, fingerprints, labels, pauses, request_ids
from dispatch.protocol.jobs import JobVerb
from dispatch.protocol.record import State, Status
from dispatch.tasktypes.registry import MAX_DEADLINE


class NoBody(Body):
    """An empty object."""


class SignalBody(Body):
    """A signal's payload: any object."""

    model_config = pydantic.ConfigDict(extra="allow", json_schema_extra={"examples": [{"battery": 40}]})


#: RFC 3339 (5.6); pydantic alone would also take a number, or a date without a time.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _rfc_3339(value: Any) -> dt.datetime | None:
    if value is None:
        return None
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        with contextlib.suppress(ValueError):  # no such day, hour or zone
            return dt.datetime.fromisoformat(value.upper())
    raise PydanticCustomError("rfc_3339", "Input should be a time with its zone, as in 2026-11-24T02:36:00Z")


class WebhookOption(Body):
    """Where the end of a task is announced."""

    url: str = Field(
        min_length=1,
        max_length=2_048,
        description="http or https, on the system's list of hosts that it may call. It is shown with the task: put no secret into it.",
        examples=["https://shop.example/robot-events"],
    )
    events: list[Literal["task.succeeded", "task.failed"]] = Field(
        ["task.succeeded", "task.failed"],
        min_length=1,
        max_length=2,
        description="Which ends are announced; all by default.",
    )


class SubmitOptions(Body):
    """When to run a task (at most one of `delaySeconds` and `runAt`), and how to find it."""

    delay_seconds: int | None = Field(
        None,
        ge=0,
        description="Run it so many seconds after its acceptance at the earliest; up to 48 days, or less by `DISPATCH_DELAY_LEVELS`.",
    )
    run_at: Annotated[pydantic.AwareDatetime | None, pydantic.BeforeValidator(_rfc_3339)] = Field(
        None, description="Run it at this time at the earliest: RFC 3339 with a zone, in the future."
    )
    deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=MAX_DEADLINE,
        description="No attempt begins later than so many seconds after its acceptance, or after the time that it is to run at: "
        "it ends FAIL, `deadline-exceeded`. The task type's by default, if it has one.",
    )
    labels: Labels = Field(
        {}, description="By which the task is found: `GET /v1/tasks?label=customer=acme`. Not secret."
    )

    webhook: WebhookOption | None = Field(
        None,
        description="Announce the end of the task, and of each cycle after a redrive, to a receiver (Standard Webhooks).",
    )
    concurrency_key: Annotated[str, Field(pattern=f"^{concurrency.CLIENTS}$")] | None = Field(
        None,
        description="Of your tasks with the same key one runs at a time, first come first served; the others are HELD. A type that makes its "
        "own key takes none.",
        examples=["robot-7"],
    )

    @pydantic.model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.delay_seconds is not None and self.run_at is not None:
            raise PydanticCustomError("two_times", "Only one of delaySeconds and runAt can be given")
        return self


#: Of a body without options. A default would be copied for each body, which takes as long as to validate it.
_NO_OPTIONS = SubmitOptions()


class SubmitBody(Body):
    """A task to run."""

    type: Name
    payload: dict[str, Any]
    options: SubmitOptions = Field(
        default_factory=lambda: _NO_OPTIONS,
        description="How to run the task, and how to find it.",
        json_schema_extra={"default": _NO_OPTIONS.model_dump(mode="json", by_alias=True)},
    )


class BatchItem(SubmitBody):
    """One task of a batch."""

    idempotency_key: str | None = Field(
        None, description="As the header `Idempotency-Key` of a single submission, and in the same scope."
    )


class BatchBody(Body):
    """Tasks to run."""

    items: list[BatchItem] = Field(min_length=1, max_length=MAX_BATCH)


class BatchEnvelope(Body):
    """A batch whose items are validated one by one."""

    items: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_BATCH)


class TaskQuery(Query):
    """Which tasks to list."""

    status: Status | None = None
    state: State | None = None
    type: Name | None = None
    error_type: Name | None = Field(None, description="Of the last attempt that failed.")
    request_id: Annotated[str, Field(pattern=f"^{request_ids.PATTERN}$")] | None = Field(
        None, description="`X-Request-Id` of the submission."
    )
    label: list[LabelPair] = Field(
        [],
        max_length=labels.MAX_LABELS,
        description="`key=value`; may be repeated: a task must have all of them.",
        examples=[["customer=acme"]],
    )
    since: SearchTime | None = Field(
        None,
        description="Accepted at this time or later (a task for later: submitted for such a time): RFC 3339 with an offset.",
    )
    until: SearchTime | None = Field(None, description="Accepted before this time.")
    principal: Whose = None
    limit: Limit = 50
    cursor: Cursor | None = None


class ChildQuery(Query):
    """Which children of a task to list."""

    limit: Limit = 50
    cursor: Cursor | None = None


class StatsQuery(Query):
    """Whose tasks to count."""

    principal: Whose = None


Fingerprint = Annotated[
    str,
    Field(
        pattern=f"^{fingerprints.PATTERN}$",
        description="Of the error's message, as `GET /v1/dead-letters/groups` has it.",
        examples=["9f86d081884c7d65"],
    ),
]


class DeadLetterQuery(Query):
    """Which dead letters to list."""

    type: Name | None = None
    error_type: Name | None = None
    fingerprint: Fingerprint | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class DeadLetterGroupQuery(DeadLetterQuery):
    """Which dead letters to group."""

    limit: Limit = Field(50, description="Groups at most.")


class AuditQuery(Query):
    """Which entries of the audit log to list."""

    verb: Name | None = Field(None, description="An operationId, e.g. `redriveDeadLetter`.")
    principal: Name | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class RedriveBody(Body):
    """How a dead letter is sent again: as it was, by default."""

    payload: dict[str, Any] = Field(
        {},
        description="Instead of the payload that it has, whole and with its secrets; valid for its task type.",
        examples=[{"robot": "R-2", "areas": ["kitchen"]}],
    )
    fresh: bool = Field(
        False,
        description="A new effect at the other side: the handler's `idempotency_key` is another one, as always with a `payload`; "
        "a task that waits between its steps begins anew.",
    )


class LetterFilter(Body):
    """Which dead letters; all by default."""

    type: Name | None = None
    error_type: Name | None = None
    fingerprint: Fingerprint | None = None


class BulkRedriveBody(Body):
    """Dead letters that the workers redrive, at a bounded rate."""

    filter: LetterFilter = LetterFilter()
    limit: int = Field(100, ge=1, le=100_000, description="Maximum of dead letters, oldest first.")
    rate_per_second: float = Field(
        10.0, gt=0, le=1_000, allow_inf_nan=False, description="Maximum of dead letters a second."
    )
    dry_run: bool = Field(False, description="Only count the dead letters that match now.")


class JobTaskFilter(Body):
    """Which tasks; all that is given must match."""

    type: Name | None = None
    status: Status | None = None
    state: State | None = None
    error_type: Name | None = Field(None, description="Of the last attempt that failed.")
    fingerprint: Fingerprint | None = None
    principal: Name | None = Field(None, description="Whose tasks; by default those of all principals.")
    labels: Labels = Field({}, description="A task must have all of them.", examples=[{"customer": "acme"}])
    since: SearchTime | None = Field(None, description="Accepted at this time or later: RFC 3339 with an offset.")
    until: SearchTime | None = Field(None, description="Accepted before this time.")


class JobBody(Body):
    """A verb on every task that a filter matches, which the workers carry out."""

    verb: JobVerb = Field(
        description="`cancel` (tasks that have not ended), `retry-now` (RETRY_WAIT, DELAYED), `redrive` and `discard` (dead letters).",
        examples=["cancel"],
    )
    filter: JobTaskFilter = Field(examples=[{"type": "http.request"}])
    limit: int = Field(1_000, ge=1, le=100_000, description="Maximum of tasks, newest first.")
    rate_per_second: float = Field(10.0, gt=0, le=1_000, allow_inf_nan=False, description="Maximum of tasks a second.")
    dry_run: bool = Field(False, description="Only count the tasks that match now.")
    canary: bool = Field(
        False,
        description="`redrive`, `retry-now`: the first task alone; the others once it has gone well, none if it fails again.",
    )


class PauseBody(Body):
    """Why tasks are paused, and for how long."""

    reason: Annotated[str, Field(min_length=1, max_length=pauses.MAX_REASON)] = Field(
        description="For other operators.", examples=["the vendor repairs its API"]
    )
    until: Annotated[pydantic.AwareDatetime | None, pydantic.BeforeValidator(_rfc_3339)] = Field(
        None, description="It ends by itself at this time: RFC 3339 with a zone, in the future. By default it does not."
    )
