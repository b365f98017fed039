"""``/v1/tasks/{taskId}/webhook``: deliver a task's completion webhook once more."""

from __future__ import annotations

from collections.abc import Callable

from dispatch.config import api_keys
from dispatch.gateway.contract import response_models
from dispatch.gateway.http import context
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import task_access
from dispatch.protocol.record import Record
from dispatch.submission.webhooks import NoWebhook, WebhookSubmitter


class WebhookViews:
    """The operation on webhooks.

    Args:
        read: finds a record.
        deliveries: submits deliveries.
        result_ttl: seconds for which a record is retained after its end.
    """

    def __init__(
        self, read: Callable[[str], Record | None], deliveries: WebhookSubmitter, *, result_ttl: float
    ) -> None:
        self._read = read
        self._deliveries = deliveries
        self._result_ttl = result_ttl

    @operation(
        Operation(
            "POST", "/v1/tasks/{taskId}/webhook/redeliver", "redeliverWebhook", "Tasks", "Deliver a webhook once more",
            (ResponseSpec(202, "The delivery, a task of its own.", response_models.TaskModel, ("Location",)),),
            scope=api_keys.TASKS_WRITE,
            description="Of a task that has ended, with its state of now and the `webhook-id` of the first delivery of this cycle, "
            "whatever events it was submitted with.",
            problems=(
                "task-not-found", "task-expired", "no-webhook", "queue-depth-exceeded", "broker-unavailable",
                "publish-unroutable", "publish-unconfirmed",
            ),
        )
    )  # fmt: skip
    def redeliver(self, task_id: str) -> Reply:
        """Submit another delivery."""
        request = context.current()
        record = task_access.find_own(self._read, task_id, self._result_ttl)
        try:
            accepted = self._deliveries.again(
                record, principal=record.principal, request_id=request.request_id, traceparent=request.traceparent
            )
        except NoWebhook as exc:
            raise Problem("no-webhook", state=record.state.value) from exc
        body = task_access.shown(accepted.record)
        return json_reply(body, 202, {"Location": body["statusUrl"]})
