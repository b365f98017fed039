"""The operations of the fake."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx

from robot_dispatch_client.models import State
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
    "keys-unavailable": 503, "not-found": 404, "method-not-allowed": 405, "internal-error": 500,
}  # fmt: skip

_WAITS = frozenset({State.RETRY_WAIT, State.DELAYED})


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


def held_for(fake: FakeDispatch, request: httpx.Request) -> float:
    """Seconds for which a poll is held now: as long as its task is as the client knows it."""
    wished = re.fullmatch(r"wait=(\d+)", request.headers.get("prefer", ""))
    task = fake.tasks.get(request.url.path.rpartition("/")[2])
    if wished is None or task is None or task.done or request.headers.get("if-none-match") != _etag(task):
        return 0.0
    return float(wished[1])


def answer(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """The response to a request."""
    if fake.api_key and request.headers.get("authorization") != f"Bearer {fake.api_key}":
        return Refusal("unauthenticated").response(request)
    try:
        view, arguments = _route(request)
        return view(fake, request, *arguments)
    except Refusal as refusal:
        return refusal.response(request)


def _route(request: httpx.Request) -> tuple[Callable[..., httpx.Response], list[str]]:
    path = request.url.raw_path.decode().partition("?")[0]
    allowed = False
    for method, pattern, view in _ROUTES:
        if found := re.fullmatch(pattern, path):
            if method == request.method:
                return view, [unquote(each) for each in found.groups()]
            allowed = True
    raise Refusal("method-not-allowed" if allowed else "not-found")


# --- tasks ----------------------------------------------------------------------------------------
def _submit(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    task, replayed = _accepted(fake, _object(request), request.headers.get("idempotency-key"), request)
    more = {"Idempotent-Replayed": "true"} if replayed else {}
    return _json(task.to_json(), 202, {"Location": f"/v1/tasks/{task.task_id}", "Retry-After": "1", **more})


def _submit_many(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    verdicts = []
    for item in _object(request).get("items", []):
        try:
            task, replayed = _accepted(fake, item, item.pop("idempotencyKey", None), request)
            verdicts.append({"status": 202, "replayed": replayed, "task": task.to_json(), "problem": None})
        except Refusal as refusal:
            problem = refusal.body(request)
            verdicts.append({"status": problem["status"], "replayed": False, "task": None, "problem": problem})
    return _json({"items": verdicts}, 207)


def _accepted(
    fake: FakeDispatch, body: dict[str, Any], key: str | None, request: httpx.Request
) -> tuple[FakeTask, bool]:
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


def _get(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    task = _find(fake, task_id)
    headers = {"ETag": _etag(task)} | ({} if task.done else {"Retry-After": "1"})
    if request.headers.get("prefer"):
        headers["Preference-Applied"] = request.headers["prefer"]
    if request.headers.get("if-none-match") == _etag(task):
        return httpx.Response(304, headers=headers)
    return _json(task.to_json(), 200, headers)


def _events(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    task = _find(fake, task_id)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return _json(task.hops)
    after = int(request.headers.get("last-event-id") or 0)
    new = [hop for hop in task.hops if hop["seq"] > after]
    if task.done and not new:
        return httpx.Response(204)
    # The stream closes at once, and asks for the next connection soon: clients can't tell that from a restart.
    text = "retry: 10\n\n" + "".join(
        f"id: {hop['seq']}\nevent: {hop['kind']}\ndata: {json.dumps(hop)}\n\n" for hop in new
    )
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=text.encode())


def _payload(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    task = _find(fake, task_id)
    return _json({"taskId": task_id, "type": task.type, "payload": task.payload, "masked": []})


def _children(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    _find(fake, task_id)
    return _json({"items": [], "next": None})


def _list(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    params = request.url.params
    labels = dict(label.split("=", 1) for label in params.get_list("label"))

    def matches(shown: Mapping[str, Any]) -> bool:
        named = (("status", "status"), ("state", "state"), ("type", "type"), ("requestId", "requestId"))
        same = all(params.get(name) in {None, shown[member]} for name, member in named)
        error = params.get("errorType") in {None, (shown["error"] or {}).get("type")}
        return same and error and labels.items() <= shown["labels"].items()

    return _page(request, [shown for task in fake.tasks.values() if matches(shown := task.to_json())])


def _page(request: httpx.Request, oldest_first: list[dict[str, Any]]) -> httpx.Response:
    limit, start = int(request.url.params.get("limit", 50)), int(request.url.params.get("cursor", 0))
    items = oldest_first[::-1]
    more = str(start + limit) if len(items) > start + limit else None
    return _json({"items": items[start : start + limit], "next": more})


def _cancel(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    task = _find(fake, task_id)
    if task.done and task.state != State.CANCELLED:
        raise Refusal("task-terminal", members={"state": task.state})
    if not task.done:
        task.become(State.CANCELLED, "cancelled", by="local")
    return _json(task.to_json(), 202)


def _retry_now(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    task = _find(fake, task_id)
    if task.state not in _WAITS:
        raise Refusal("task-terminal" if task.done else "not-waiting", members={"state": task.state})
    task.become(State.QUEUED, "sent-now", by="local", queue="robot.task.q")
    return _json(task.to_json(), 202)


def _signal(fake: FakeDispatch, request: httpx.Request, task_id: str, name: str) -> httpx.Response:
    task = _find(fake, task_id)
    if task.done:
        raise Refusal("task-terminal", members={"state": task.state})
    task.signals.append((name, _object(request)))
    task.hop("signalled", signal=name)
    return _json(task.to_json(), 202)


# --- dead letters ---------------------------------------------------------------------------------
def _dead_letters(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    params = request.url.params
    dead = [task for task in fake.tasks.values() if task.state == State.DEAD_LETTERED]
    found = [
        task.letter_json() for task in dead
        if params.get("type") in {None, task.type} and params.get("errorType") in {None, (task.error or {}).get("type")}
    ]  # fmt: skip
    return _page(request, found)


def _dead_letter(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    task = _find(fake, task_id)
    if task.state != State.DEAD_LETTERED:
        raise Refusal("task-not-found")
    return _json(task.letter_json())


def _redrive(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    task = _dead(fake, task_id)
    given = _object(request) if request.content else {}
    task.payload = given.get("payload", task.payload)
    task.cycle, task.attempt, task.error = task.cycle + 1, 0, None
    task.become(State.QUEUED, "redriven", by="local")
    return _json(task.to_json(), 202)


def _discard(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    _dead(fake, task_id).become(State.CANCELLED, "discarded", by="local")
    return httpx.Response(204)


# --- the system -----------------------------------------------------------------------------------
def _task_types(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    return _json({"items": [_type(name) for name in _names(fake)]})


def _task_type(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    if name not in _names(fake):
        raise Refusal("not-found")
    return _json(_type(name))


def _queues(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    ready = {"robot.task.q": State.QUEUED, "robot.task.dlq": State.DEAD_LETTERED}
    counts = {name: sum(task.state == state for task in fake.tasks.values()) for name, state in ready.items()}
    roles = dict(zip(ready, ("work", "dead-letters"), strict=True))
    items = [{"name": name, "role": roles[name], "ready": count, "total": count} for name, count in counts.items()]
    return _json({"items": items})


def _stats(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    states: dict[str, int] = {}
    for task in fake.tasks.values():
        states[task.state] = states.get(task.state, 0) + 1
    return _json({"counted": len(fake.tasks), "complete": True, "states": states})


_ID = r"/v1/tasks/([^/]+)"
_LETTER = r"/v1/dead-letters/([^/]+)"

_ROUTES: tuple[tuple[str, str, Callable[..., httpx.Response]], ...] = (
    ("POST", "/v1/tasks", _submit),
    ("POST", "/v1/tasks/batch", _submit_many),
    ("GET", "/v1/tasks", _list),
    ("GET", _ID, _get),
    ("GET", f"{_ID}/events", _events),
    ("GET", f"{_ID}/payload", _payload),
    ("GET", f"{_ID}/children", _children),
    ("POST", f"{_ID}/cancel", _cancel),
    ("POST", f"{_ID}/retry-now", _retry_now),
    ("POST", f"{_ID}/signals/([^/]+)", _signal),
    ("GET", "/v1/dead-letters", _dead_letters),
    ("GET", _LETTER, _dead_letter),
    ("POST", f"{_LETTER}/redrive", _redrive),
    ("DELETE", _LETTER, _discard),
    ("GET", "/v1/task-types", _task_types),
    ("GET", "/v1/task-types/([^/]+)", _task_type),
    ("GET", "/v1/queues", _queues),
    ("GET", "/v1/stats", _stats),
)


# --- helpers --------------------------------------------------------------------------------------
def _find(fake: FakeDispatch, task_id: str) -> FakeTask:
    if task_id not in fake.tasks:
        raise Refusal("task-not-found")
    return fake.tasks[task_id]


def _dead(fake: FakeDispatch, task_id: str) -> FakeTask:
    task = _find(fake, task_id)
    if task.state != State.DEAD_LETTERED:
        raise Refusal("task-not-dead", members={"state": task.state})
    return task


def _etag(task: FakeTask) -> str:
    return f'"{task.revision}"'


def _names(fake: FakeDispatch) -> list[str]:
    return fake.types if fake.types is not None else sorted({task.type for task in fake.tasks.values()})


def _type(name: str) -> dict[str, Any]:
    return {"name": name, "summary": "", "payloadSchema": {}, "ladder": [], "maxAttempts": 4, "timeLimitSeconds": 300.0}


def _object(request: httpx.Request) -> dict[str, Any]:
    try:
        value = json.loads(request.content)
    except ValueError:
        raise Refusal("malformed-json") from None
    if not isinstance(value, dict):
        raise Refusal("validation-error")
    return value


def _json(body: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> httpx.Response:
    media = {"Content-Type": "application/json"}
    return httpx.Response(status, headers={**media, **(headers or {})}, content=json.dumps(body).encode())
