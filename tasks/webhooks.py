"""``webhook.deliver``: tell a receiver that a task has ended, signed by Standard Webhooks 1.0.

No client submits it: the system does, when a task ends that asks for it. Where it may connect is what `tasks.http` may.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, Field

from dispatch.errors import PermanentError, RetryableError, TaskError
from dispatch.protocol import webhooks
from dispatch.tasktypes import Context, Payload, task
from tasks import http, upstream

#: Seconds for the receiver's whole response, and of an attempt.
TIMEOUT, _TIME_LIMIT = 15.0, 45.0


class WebhookDelivery(Payload):
    """What to deliver where."""

    url: Annotated[
        str, Field(max_length=4_096, examples=["https://shop.example/robot-events"]), AfterValidator(http.valid_url)
    ]
    event_id: str = Field(
        max_length=200, description="The header `webhook-id`: the same for all deliveries of one event."
    )
    body: str = Field(max_length=1_048_576, description="JSON, as it is signed and sent.")


@task(webhooks.TYPE, payload=WebhookDelivery, time_limit=_TIME_LIMIT, internal=True)
def deliver(order: WebhookDelivery, ctx: Context) -> dict[str, Any]:
    """Deliver a completion webhook.

    Args:
        order: what and where.
        ctx: the running task.

    Returns:
        ``status`` of the receiver's response.

    Raises:
        PermanentError: ``webhooks-not-configured``, ``webhook-gone`` (410), ``upstream-redirect``, and those of
            `tasks.http.connected`.
        RetryableError: any other failure: a receiver may answer 401 or 404 for as long as it is being set up.
    """
    secrets = ctx.settings.webhook_keys
    if not secrets:
        raise PermanentError("DISPATCH_WEBHOOK_SECRETS is not set", type="webhooks-not-configured")
    body = order.body.encode()
    headers = httpx.Headers({"Content-Type": "application/json", "traceparent": ctx.traceparent})
    headers.update(webhooks.headers(secrets, order.event_id, int(time.time()), body))
    with http.connected(order.url, ctx.settings, TIMEOUT, headers) as (client, peer):
        answer = upstream.exchange(client, "POST", order.url, peer=peer, within=TIMEOUT, content=body)
    if error := _failure(answer, peer):
        raise error
    return {"status": answer.status}


def _failure(answer: upstream.Answer, peer: str) -> TaskError | None:
    error = upstream.failure(answer, peer=peer)
    if answer.status == httpx.codes.GONE:
        return PermanentError(f"{peer} responded 410: it wants no webhooks any more", type="webhook-gone")
    if isinstance(error, PermanentError) and answer.status >= httpx.codes.BAD_REQUEST:
        return RetryableError(str(error), type=error.type)
    return error
