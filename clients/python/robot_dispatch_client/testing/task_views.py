"""The fake's operations on tasks."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from robot_dispatch_client.models import State
from robot_dispatch_client.testing.records import WAITS, FakeTask
from robot_dispatch_client.testing.replies import Refusal, body_of, etag, find, page_of, reply

if TYPE_CHECKING:
    from robot_dispatch_client.testing.fake import FakeDispatch


def submit(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``POST /v1/tasks``."""
    task, replayed = accepted(fake, body_of(request), request.headers.get("idempotency-key"), request)
    more = {"Idempotent-Replayed": "true"} if replayed else {}
    return reply(task.to_json(), 202, {"Location": f"/v1/tasks/{task.task_id}", "Retry-After": "1", **more})


def submit_many(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``POST /v1/tasks/batch``."""
    verdicts = []
    for item in body_of(request).get("items", []):
        try:
            task, replayed = accepted(fake, item, item.pop("idempotencyKey", None), request)
            verdicts.append({"status": 202, "replayed": replayed, "task": task.to_json(), "problem": None})
        except Refusal as refusal:
            problem = refusal.body(request)
            verdicts.append({"status": problem["status"], "replayed": False, "task": None, "problem": problem})
    return reply({"items": verdicts}, 207)


def accepted(
    fake: FakeDispatch, body: dict[str, Any], key: str | None, request: httpx.Request
) -> tuple[FakeTask, bool]:
    """The task of a submission, and whether its idempotency key had been used.

    Args:
        fake: the API.
        body: of the submission.
        key: its idempotency key.
        request: that it came with.
    """
    name, payload, options = body.get("type"), body.get("payload"), body.get("options") or {}
    if not isinstance(name, str) or not isinstance(payload, dict):
        pointer = "/payload" if isinstance(name, str) else "/type"
        error = {"pointer": pointer, "detail": "Input should be valid", "code": "invalid"}
        raise Refusal("validation-error", "The request is not valid.", members={"errors": [error]})
    if fake.types is not None and name not in fake.types:
        nearest = difflib.get_close_matches(name, fake.types, cutoff=0.5)
        raise Refusal("unknown-task-type", "No such task type.", members={"nearest": nearest})
    for task in fake.tasks.values():
        if key is not None and task.idempotency_key == key:
            if (task.type, task.payload, task.options) != (name, payload, options):
                raise Refusal("idempotency-key-reused")
            return task, True
    request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    task = FakeTask(name, payload, options, key, request_id, request.headers.get("traceparent"))
    task.hop("accepted")
    task.hop("published", exchange="robot.task.topic", routingKey=f"robot.task.dispatch.{name}")
    fake.tasks[task.task_id] = task
    return task, False


def get(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    """``GET /v1/tasks/{taskId}``."""
    task = find(fake, task_id)
    headers = {"ETag": etag(task)} | ({} if task.done else {"Retry-After": "1"})
    if request.headers.get("prefer"):
        headers["Preference-Applied"] = request.headers["prefer"]
    if request.headers.get("if-none-match") == etag(task):
        return httpx.Response(304, headers=headers)
    return reply(task.to_json(), 200, headers)


def events(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    """``GET /v1/tasks/{taskId}/events``."""
    task = find(fake, task_id)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return reply(task.hops)
    after = int(request.headers.get("last-event-id") or 0)
    new = [hop for hop in task.hops if hop["seq"] > after]
    if task.done and not new:
        return httpx.Response(204)
    # The stream closes at once, and asks for the next connection soon: clients can't tell that from a restart.
    text = "retry: 10\n\n" + "".join(
        f"id: {hop['seq']}\nevent: {hop['kind']}\ndata: {json.dumps(hop)}\n\n" for hop in new
    )
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=text.encode())


def payload(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    """``GET /v1/tasks/{taskId}/payload``."""
    task = find(fake, task_id)
    return reply({"taskId": task_id, "type": task.type, "payload": task.payload, "masked": []})


def children(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    """``GET /v1/tasks/{taskId}/children``: the deliveries of its webhook; the fake runs no handlers."""
    find(fake, task_id)
    return page_of(request, [task.to_json() for task in fake.tasks.values() if task.parent_id == task_id])


def redeliver(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    """``POST /v1/tasks/{taskId}/webhook/redeliver``."""
    task = find(fake, task_id)
    if task.webhook is None or not task.done:
        raise Refusal("no-webhook", members={"state": task.state})
    payload = {"url": task.webhook["url"], "eventId": task.task_id, "body": task.webhook_body()}
    delivery = FakeTask("webhook.deliver", payload, {}, None, task.request_id, None, parent_id=task.task_id)
    delivery.hop("accepted")
    fake.tasks[delivery.task_id] = delivery
    task.hop(
        "webhook",
        event=f"task.{'succeeded' if task.state == State.SUCCEEDED else 'failed'}",
        deliveryId=delivery.task_id,
    )
    return reply(delivery.to_json(), 202, {"Location": f"/v1/tasks/{delivery.task_id}"})


def find_all(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``GET /v1/tasks``."""
    params = request.url.params
    labels = dict(label.split("=", 1) for label in params.get_list("label"))

    def matches(shown: Mapping[str, Any]) -> bool:
        named = (("status", "status"), ("state", "state"), ("type", "type"), ("requestId", "requestId"))
        same = all(params.get(name) in {None, shown[member]} for name, member in named)
        error = params.get("errorType") in {None, (shown["error"] or {}).get("type")}
        return same and error and labels.items() <= shown["labels"].items()

    return page_of(request, [shown for task in fake.tasks.values() if matches(shown := task.to_json())])


def cancel(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    """``POST /v1/tasks/{taskId}/cancel``."""
    task = find(fake, task_id)
    if task.done and task.state != State.CANCELLED:
        raise Refusal("task-terminal", members={"state": task.state})
    if not task.done:
        task.become(State.CANCELLED, "cancelled", by="local")
    return reply(task.to_json(), 202)


def retry_now(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    """``POST /v1/tasks/{taskId}/retry-now``."""
    task = find(fake, task_id)
    if task.state not in WAITS:
        raise Refusal("task-terminal" if task.done else "not-waiting", members={"state": task.state})
    task.become(State.QUEUED, "sent-now", by="local", queue="robot.task.q")
    return reply(task.to_json(), 202)


def signal(fake: FakeDispatch, request: httpx.Request, task_id: str, name: str) -> httpx.Response:
    """``POST /v1/tasks/{taskId}/signals/{name}``."""
    task = find(fake, task_id)
    if task.done:
        raise Refusal("task-terminal", members={"state": task.state})
    task.signals.append((name, body_of(request)))
    task.hop("signalled", signal=name)
    return reply(task.to_json(), 202)
