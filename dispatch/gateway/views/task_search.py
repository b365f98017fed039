"""``/v1/tasks`` as a list that is searched, the payload of a task, and ``/v1/stats``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context, heavy, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import task_access
from dispatch.protocol import labels
from dispatch.protocol.record import Record
from dispatch.protocol.sealing import Sealing
from dispatch.store.index import Page
from dispatch.store.task_counts import TaskCounts
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes import masking
from dispatch.tasktypes.registry import TaskType


class TaskSearchViews:
    """The operations that find and count tasks, and show what was submitted.

    Args:
        tasks: the records.
        counts: counts a principal's tasks, or those of all.
        types: the task types, whose models declare what is secret in a payload.
        sealing: opens a sealed payload.
        result_ttl: seconds for which a record is retained after its end.
    """

    def __init__(
        self,
        tasks: TaskStore,
        counts: Callable[[str | None], TaskCounts],
        types: Mapping[str, TaskType],
        *,
        sealing: Sealing,
        result_ttl: float,
    ) -> None:
        self._tasks = tasks
        self._counts = counts
        self._types = types
        self._sealing = sealing
        self._result_ttl = result_ttl

    @operation(
        Operation(
            "GET", "/v1/tasks", "listTasks", "Tasks", "Find tasks, newest first",
            (ResponseSpec(200, "A page.", response_models.TaskListModel, ("Cache-Control",)),),
            scope=api_keys.TASKS_READ,
            description="The principal's own; what is given must all match. A page may have fewer items than `limit`, or none, "
            "although `next` is not null: with a filter, or when results are large; a page ends after 2,000 tasks that were looked "
            "at, or 1 MiB of results. Read on until `next` is null. A task is listed for some days after it was accepted.",
            query=request_models.TaskQuery,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """A page of the tasks that match."""
        query = validation.read_query(request_models.TaskQuery)
        page = search(self._tasks, query, task_access.whose(query.principal))
        return json_reply({"items": [task_access.shown(record) for record in page.items], "next": page.next})

    @operation(
        Operation(
            "GET", "/v1/tasks/{taskId}/payload", "getTaskPayload", "Tasks", "Get the payload of a task, without its secrets",
            (ResponseSpec(200, "The payload.", response_models.PayloadModel, ("Cache-Control",)),),
            scope=api_keys.TASKS_READ,
            description="Masked is what the task's type declares secret, what has a name that secrets have, and what looks like a "
            "secret inside a text; of a type that the gateway does not know, every value. A task that has ended for good has no payload "
            "any more. Reading that of another principal's task has an entry in the audit log.",
            problems=("task-not-found", "task-expired", "payload-gone", "gateway-busy"),
        )
    )  # fmt: skip
    def payload(self, task_id: str) -> Reply:
        """What was submitted."""
        record = task_access.find(self._tasks.whole, task_id, self._result_ttl)
        shown = payload_of(record, self._types, self._sealing)
        body = {"taskId": record.task_id, "type": record.type, "payload": shown.value, "masked": shown.places}
        return json_reply(body)

    @operation(
        Operation(
            "GET", "/v1/tasks/{taskId}/children", "listChildren", "Tasks", "List the tasks that a task submitted, newest first",
            (ResponseSpec(200, "A page.", response_models.TaskListModel, ("Cache-Control",)),),
            scope=api_keys.TASKS_READ,
            description="For as long as the task itself is shown; each child is listed for some days after it was accepted.",
            query=request_models.ChildQuery,
            problems=("task-not-found", "task-expired"),
        )
    )  # fmt: skip
    def children(self, task_id: str) -> Reply:
        """A page of the tasks that a handler submitted."""
        query = validation.read_query(request_models.ChildQuery)
        parent = task_access.find(self._tasks.get, task_id, self._result_ttl)
        page = validation.page(
            lambda: self._tasks.list(
                principal=parent.principal, parent_id=parent.task_id, limit=query.limit, cursor=query.cursor
            )
        )
        return json_reply({"items": [task_access.shown(record) for record in page.items], "next": page.next})

    @operation(
        Operation(
            "GET", "/v1/stats", "getStats", "Tasks", "Count tasks by type and state",
            (ResponseSpec(200, "The counts.", response_models.StatsModel, ("Cache-Control",)),),
            scope=api_keys.TASKS_READ,
            description="The principal's own. Each gateway process keeps the counts for some seconds, so they are of `asOf`.",
            query=request_models.StatsQuery,
        )
    )  # fmt: skip
    def stats(self) -> Reply:
        """How many tasks there are."""
        principal = task_access.whose(validation.read_query(request_models.StatsQuery).principal)
        return json_reply({**self._counts(principal).to_json(), "principal": principal})


def search(tasks: TaskStore, query: request_models.TaskQuery, principal: str | None) -> Page:
    """A page of the tasks that match a query.

    Args:
        tasks: the records.
        query: which.
        principal: whose; None for those of all.

    Raises:
        Problem: 422 for an invalid cursor.
    """
    pairs = [labels.pair(text) for text in query.label]
    if len(dict(pairs)) < len(set(pairs)):  # one key, two values: no task has both
        return Page([], None)
    return validation.page(
        lambda: tasks.list(
            principal=principal,
            status=query.status,
            state=query.state,
            type=query.type,
            error_type=query.error_type,
            request_id=query.request_id,
            labels=dict(pairs),
            since=query.since,
            until=query.until,
            limit=query.limit,
            cursor=query.cursor,
        )
    )


def payload_of(record: Record, types: Mapping[str, TaskType], sealing: Sealing) -> masking.MaskedPayload:
    """The payload of a task without its secrets; that of another principal's task is recorded in the audit log.

    Args:
        record: a whole one, which the principal of the current request may read.
        types: the task types.
        sealing: opens a sealed payload.

    Raises:
        Problem: 410, 503.
    """
    if record.message is None:
        raise Problem("payload-gone")
    request = context.current()
    if record.principal != context.principal().id:
        request.audited, request.details = True, {**request.details, "principal": record.principal}
    show = functools.partial(masking.shown_payload, record.message, types.get(record.type), sealing)
    return heavy.run(len(record.message.body), show)
