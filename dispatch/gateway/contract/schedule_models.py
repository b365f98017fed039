"""The models of schedules: see `dispatch.gateway.contract.fields`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from dispatch.gateway.contract.fields import Body, Labels, Moment, Name, Query, ResponseBase, Whose
from dispatch.protocol import schedules
from dispatch.protocol.cron import MAX_EXPRESSION, BadCron, BadZone, next_time, zone
from dispatch.protocol.labels import MAX_LABELS
from dispatch.protocol.schedules import CatchUp, Overlap
from dispatch.tasktypes.registry import MAX_DEADLINE

#: Due times that are shown.
NEXT_RUNS = 5

ScheduleName = Annotated[str, Field(pattern=f"^{schedules.NAME}$")]


def _zone(name: str) -> str:
    try:
        zone(name)
    except BadZone as exc:
        raise PydanticCustomError("no_such_zone", "{why}", {"why": str(exc)}) from None
    return name


def _cron(expression: str) -> str:
    try:
        never = next_time(expression, "UTC", 0) is None
    except BadCron as exc:
        raise PydanticCustomError("bad_cron", "Not a cron expression: {why}", {"why": str(exc)}) from None
    if never:
        raise PydanticCustomError("never_fires", "The expression has no due time within 50 years")
    return expression


def _own_labels(labels: dict[str, str]) -> dict[str, str]:
    if schedules.LABEL in labels or len(labels) >= MAX_LABELS:
        text = f"At most {MAX_LABELS - 1} labels, none of them with the key {schedules.LABEL}: the schedule's tasks have that one"
        raise PydanticCustomError("invalid_label", "{why}", {"why": text})
    return labels


Cron = Annotated[str, Field(max_length=MAX_EXPRESSION, examples=["0 3 * * *"]), pydantic.AfterValidator(_cron)]
Zone = Annotated[str, Field(max_length=64), pydantic.AfterValidator(_zone)]


class ScheduledTaskOptions(Body):
    """How to run a schedule's tasks, and how to find them."""

    labels: Annotated[Labels, pydantic.AfterValidator(_own_labels)] = Field(
        {}, description="Beside `schedule=<name>`, which each of its tasks has. Not secret."
    )
    deadline_seconds: int | None = Field(
        None, ge=1, le=MAX_DEADLINE, description="As in `POST /v1/tasks`, from the due time on."
    )


class ScheduleBody(Body):
    """What to submit again and again."""

    type: Name
    payload: dict[str, Any]
    options: ScheduledTaskOptions = ScheduledTaskOptions()
    cron: Cron = Field(description="Five fields as in Debian's cron, or six with seconds first.")
    timezone: Zone = Field(
        "UTC", description="A name of the IANA database, whose clock changes are followed.", examples=["Europe/Berlin"]
    )
    overlap: Annotated[Overlap, Field(strict=False)] = Field(
        Overlap.SKIP,
        description="At a due time while the task of the one before is alive: submit none, or one all the same.",
    )
    catch_up: Annotated[CatchUp, Field(strict=False)] = Field(
        CatchUp.LAST,
        description="After due times at which no worker ran: submit one task for the last of them, or none.",
    )
    paused: bool = False
    jitter_seconds: int = Field(
        0, ge=0, le=schedules.MAX_JITTER, description="Each task is delayed by up to so many seconds."
    )


class ScheduleQuery(Query):
    """Whose schedules to list."""

    principal: Whose = None


class LastRunModel(ResponseBase):
    """The last due time whose task was submitted."""

    at: Moment
    task_id: str


class ScheduleModel(ResponseBase):
    """A schedule as it is now."""

    name: str
    type: str
    payload: Any = Field(description="Without its secrets.")
    options: dict[str, Any]
    cron: str
    timezone: str
    overlap: str
    catch_up: str
    paused: bool
    jitter_seconds: int
    principal: str = Field(description="Owner of the schedule and of its tasks.")
    next_runs: list[Moment] = Field(description="The next five due times; none while it is paused.")
    last_run: LastRunModel | None
    fired: int = Field(description="Tasks that were submitted.")
    skipped: int = Field(description="Due times at which the task of the one before was alive (`overlap`).")
    missed: int = Field(description="Due times that were too late (`catchUp`), or whose task could not be submitted.")
    error: str | None = Field(description="Why the last due time led to no task.")
    waits_as: str | None = Field(description="The task, of type `robot.schedule`, that waits for the next due time.")
    revision: int = Field(description="Raised by every change; the ETag.")
    created_at: Moment
    updated_at: Moment


class ScheduleListModel(ResponseBase):
    """The schedules, by name."""

    items: list[ScheduleModel]


def is_name(text: str) -> bool:
    """Whether a text can be a schedule's name."""
    return re.fullmatch(schedules.NAME, text) is not None
