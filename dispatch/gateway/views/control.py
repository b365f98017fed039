"""``/v1/tasks/{taskId}/cancel`` and ``/retry-now``: the verbs on one task that has not ended."""

from __future__ import annotations

from dispatch.config import api_keys
from dispatch.control.refusals import UnknownTask
from dispatch.control.service import ControlService
from dispatch.errors import PublishError
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import task_access
from dispatch.protocol.record import Record
from dispatch.store.tasks import TaskStore

_REPEAT = 2  #: seconds after which RabbitMQ may take the copy


class ControlViews:
    """The operations.

    Args:
        tasks: the records.
        service: the verbs.
        result_ttl: seconds for which a record is retained after its end.
    """

    def __init__(self, tasks: TaskStore, service: ControlService, result_ttl: float) -> None:
        self._tasks = tasks
        self._service = service
        self._result_ttl = result_ttl

    @operation(
        Operation(
            "POST", "/v1/tasks/{taskId}/cancel", "cancelTask", "Tasks", "Cancel a task",
            (ResponseSpec(202, "CANCELLED, or, where it runs, asked to stop (`cancelRequested`).", response_models.TaskModel, ("Location",)),),
            scope=api_keys.TASKS_WRITE,
            or_scope=api_keys.TASKS_CONTROL,
            audited=True,
            description="A task that does not run is CANCELLED at once. One that runs is asked to stop, and is ended after "
            "`DISPATCH_CANCEL_GRACE`; a success that comes first wins. Repeating this is safe. With `tasks:write` the principal's own "
            "tasks; `tasks:control` is for those of all.",
            body=request_models.NoBody, body_required=False,
            problems=("task-not-found", "task-expired", "task-terminal"),
        )
    )  # fmt: skip
    def cancel(self, task_id: str) -> Reply:
        """Cancel one."""
        validation.parse(request_models.NoBody, validation.read_optional_object())
        record = task_access.find_controlled(self._tasks.get, task_id, self._result_ttl)
        return _accepted(self._service.cancel(record.task_id, by=context.principal().id))

    @operation(
        Operation(
            "POST", "/v1/tasks/{taskId}/retry-now", "retryTaskNow", "Tasks", "End a task's wait",
            (ResponseSpec(202, "Its next attempt is in the work queue.", response_models.TaskModel, ("Location",)),),
            scope=api_keys.TASKS_CONTROL,
            audited=True,
            description="For a task in the states RETRY_WAIT and DELAYED. Repeating this is safe: no attempt runs twice.",
            body=request_models.NoBody, body_required=False,
            problems=("task-not-found", "task-expired", "task-terminal", "not-waiting", "publish-unconfirmed"),
        )
    )  # fmt: skip
    def retry_now(self, task_id: str) -> Reply:
        """Send one to the work queue."""
        validation.parse(request_models.NoBody, validation.read_optional_object())
        record = task_access.find_controlled(self._tasks.get, task_id, self._result_ttl)
        return _accepted(send_now(self._service, record.task_id))


def send_now(service: ControlService, task_id: str) -> Record:
    """End a task's wait, for the principal of the current request.

    Args:
        service: the verbs.
        task_id: one that the principal may control.

    Raises:
        Problem: 410, 503 where RabbitMQ did not confirm.
        VerbRefused: it does not wait.
    """
    try:
        return service.retry_now(task_id, by=context.principal().id)
    except PublishError as exc:
        detail = "It is recorded that the task runs now, and its copy is sent as soon as RabbitMQ takes it. Repeating this is safe."
        raise Problem("publish-unconfirmed", detail, retry_after=_REPEAT, taskId=task_id) from exc
    except UnknownTask as exc:  # its record expired in between
        raise Problem("task-expired") from exc


def _accepted(record: Record) -> Reply:
    body = task_access.shown(record)
    return json_reply(body, 202, {"Location": body["statusUrl"]})
