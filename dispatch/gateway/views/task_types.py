"""``/v1/task-types``: what can be submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatch.config import api_keys as keys
from dispatch.gateway.contract import response_models
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.protocol import names
from dispatch.protocol.concurrency import TypeLimits
from dispatch.protocol.retry import Ladder
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class TaskTypeViews:
    """The operations on task types.

    Args:
        types: by name.
        ladders: of the types.
    """

    def __init__(self, types: Mapping[str, TaskType], ladders: Ladders) -> None:
        self._shown = {name: describe(task_type, ladders.of(name)) for name, task_type in types.items()}

    @operation(
        Operation(
            "GET", "/v1/task-types", "listTaskTypes", "Task types", "What can be submitted",
            (ResponseSpec(200, "Every task type.", response_models.TaskTypeListModel),),
            scope=keys.TASKS_READ,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Every task type, by name."""
        return json_reply({"items": list(self._shown.values())})

    @operation(
        Operation(
            "GET", "/v1/task-types/{name}", "getTaskType", "Task types", "One task type",
            (ResponseSpec(200, "The task type.", response_models.TaskTypeModel),),
            scope=keys.TASKS_READ,
            problems=("not-found",),
        )
    )  # fmt: skip
    def get(self, name: str) -> Reply:
        """One task type."""
        if name not in self._shown:
            raise Problem("not-found", "There is no task type of that name. See /v1/task-types.")
        return json_reply(self._shown[name])


def describe(task_type: TaskType, ladder: Ladder) -> dict[str, Any]:
    """A task type as the API shows it.

    Args:
        task_type: the type.
        ladder: its own.
    """
    limits = task_type.limits or TypeLimits()
    return {
        "name": task_type.name,
        "summary": task_type.summary,
        "payloadSchema": {"$schema": _DIALECT, **task_type.payload.model_json_schema(by_alias=True)},
        "ladder": [
            {"name": rung.name, "seconds": rung.seconds, "queue": names.rung_queue(rung.name)} for rung in ladder.rungs
        ],
        "maxAttempts": ladder.attempts,
        "timeLimitSeconds": task_type.time_limit,
        "deadlineSeconds": task_type.deadline,
        "maxRunning": limits.max_running,
        "rate": None if limits.rate is None else str(limits.rate),
    }
