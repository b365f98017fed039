"""How the fake answers: problems, JSON, pages, and what they are about."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx

from robot_dispatch_client.testing.records import FakeTask

if TYPE_CHECKING:
    from robot_dispatch_client.testing.fake import FakeDispatch

#: The status of each problem type.
STATUS: Mapping[str, int] = {
    "unauthenticated": 401, "insufficient-scope": 403, "malformed-json": 400, "validation-error": 422,
    "unsupported-media-type": 415, "body-too-large": 413, "unknown-task-type": 422, "invalid-idempotency-key": 400,
    "idempotency-key-in-progress": 409, "idempotency-key-reused": 422, "quota-exceeded": 429, "queue-depth-exceeded": 429,
    "task-not-found": 404, "task-expired": 410, "payload-gone": 410, "task-not-dead": 409, "task-terminal": 409,
    "not-waiting": 409, "letter-too-large": 409, "broker-unavailable": 503, "publish-unroutable": 503,
    "publish-unconfirmed": 503, "store-unavailable": 503, "stream-capacity": 503, "gateway-busy": 503,
    "no-webhook": 409, "job-not-found": 404, "job-finished": 409, "pause-not-found": 404, "key-not-in-use": 404,
    "too-many-signals": 409, "too-many-jobs": 429, "schedule-not-found": 404, "schedule-exists": 409, "schedule-changed": 412,
    "schedule-unconfirmed": 503, "too-many-schedules": 429, "keys-unavailable": 503, "not-found": 404, "method-not-allowed": 405, "internal-error": 500,
}  # fmt: skip


@dataclasses.dataclass(eq=False)
class Refusal(Exception):
    """A problem that is the response."""

    slug: str
    detail: str = ""
    retry_after: int | None = None
    members: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def body(self, request: httpx.Request) -> dict[str, Any]:
        """The problem details."""
        return {
            "type": f"/problems/{self.slug}", "title": self.slug.replace("-", " ").capitalize(),
            "status": STATUS.get(self.slug, 400), "detail": self.detail, "instance": request.url.path,
            "requestId": request.headers.get("x-request-id", ""), "traceId": "", **self.members,
        }  # fmt: skip

    def response(self, request: httpx.Request) -> httpx.Response:
        """The response with them."""
        more = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        headers = {"Content-Type": "application/problem+json", **more}
        body = self.body(request)
        return httpx.Response(body["status"], headers=headers, content=json.dumps(body), request=request)


def page_of(request: httpx.Request, oldest_first: list[dict[str, Any]]) -> httpx.Response:
    """A page of a list, newest first.

    Args:
        request: its `limit` and `cursor`.
        oldest_first: the whole list.
    """
    limit, start = int(request.url.params.get("limit", 50)), int(request.url.params.get("cursor", 0))
    items = oldest_first[::-1]
    more = str(start + limit) if len(items) > start + limit else None
    return reply({"items": items[start : start + limit], "next": more})


def find(fake: FakeDispatch, task_id: str) -> FakeTask:
    """A task; refused if there is none."""
    if task_id not in fake.tasks:
        raise Refusal("task-not-found")
    return fake.tasks[task_id]


def etag(task: FakeTask) -> str:
    """Its revision."""
    return f'"{task.revision}"'


def body_of(request: httpx.Request) -> dict[str, Any]:
    """The object that a request has as its body; refused if it has none."""
    try:
        value = json.loads(request.content)
    except ValueError:
        raise Refusal("malformed-json") from None
    if not isinstance(value, dict):
        raise Refusal("validation-error")
    return value


def reply(body: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """A response in JSON."""
    media = {"Content-Type": "application/json"}
    return httpx.Response(status, headers={**media, **(headers or {})}, content=json.dumps(body).encode())
