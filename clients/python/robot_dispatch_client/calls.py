"""Every operation of the API as a `Call`: what to send, how its response is read, what makes a repeat safe. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import http
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import pydantic

from robot_dispatch_client import models
from robot_dispatch_client.errors import FieldError, Problem, UnexpectedResponse
from robot_dispatch_client.headers import key_header, retry_after, traceparent
from robot_dispatch_client.retries import Repeat
from robot_dispatch_client.submissions import PayloadLike, Submission, moment, new_key, to_json

T = TypeVar("T")

_TASK = pydantic.TypeAdapter(models.Task)


@dataclasses.dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    repeat: Repeat = Repeat.SAFE
    params: Sequence[tuple[str, str]] = ()
    content: bytes | None = None  #: JSON
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key: str | None = None  #: its Idempotency-Key, also where it is inside the body
    hold: float = 0.0  #: seconds for which the API may hold the request


@dataclasses.dataclass(frozen=True, slots=True)
class Polled:
    """The answer to a poll."""

    task: models.Task | None  #: None: unchanged
    held: bool  #: the API waited for a change
    retry_after: float  #: seconds after which to poll again, where it did not


def reading(kind: Any) -> Callable[[httpx.Response], Any]:
    """A reader of responses.

    Args:
        kind: what the body is.

    Returns:
        A function that raises `UnexpectedResponse` for anything else.
    """
    adapter = kind if isinstance(kind, pydantic.TypeAdapter) else pydantic.TypeAdapter(kind)

    def read(response: httpx.Response) -> Any:
        try:
            return adapter.validate_json(response.content)
        except pydantic.ValidationError as exc:  # its text may quote what is confidential
            where = ".".join(str(part) for part in exc.errors(include_input=False)[0]["loc"])
            raise unexpected(
                response, f"it is no {getattr(kind, '__name__', 'such value')} ({where or 'no JSON'})"
            ) from None

    return read


def unexpected(response: httpx.Response, why: str) -> UnexpectedResponse:
    """The error for a response that is none of the API's.

    Args:
        response: it is not quoted.
        why: what is wrong.
    """
    media = response.headers.get("content-type", "no content type")
    return UnexpectedResponse(f"{response.status_code} {media} from the server: {why}")


def problem(response: httpx.Response) -> Problem:
    """The problem that a response is, whatever its body.

    Args:
        response: no success, read.
    """
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    found: dict[str, Any] = body if isinstance(body, dict) else {}
    return problem_of(
        found, response.status_code, response.headers.get("x-request-id", ""), retry_after(response.headers)
    )


def problem_of(body: Mapping[str, Any], status: int, request_id: str, after: float | None) -> Problem:
    """A problem from its body.

    Args:
        body: its members, of any type.
        status: of the response.
        request_id: where the body has none.
        after: seconds of its Retry-After.
    """

    def text(name: str, default: str = "") -> str:
        value = body.get(name)
        return value if isinstance(value, str) else default

    given = body.get("errors")
    listed = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown status"
    return Problem(
        status=status,
        type=text("type", "about:blank"),
        title=text("title", phrase),
        detail=text("detail"),
        request_id=text("requestId", request_id),
        trace_id=text("traceId"),
        retry_after=after,
        errors=tuple(
            FieldError(*(str(each.get(name, "")) for name in ("pointer", "detail", "code"))) for each in listed
        ),
        members=dict(body),
    )


# --- tasks ----------------------------------------------------------------------------------------
def submit(submission: Submission) -> Call[models.Task]:
    """``POST /v1/tasks``."""
    ready = submission.keyed()
    given = {"X-Request-Id": ready.request_id, "traceparent": traceparent(ready.traceparent)}
    headers = {name: value for name, value in given.items() if value} | {"Idempotency-Key": key_header(ready.key)}
    return Call("POST", "/v1/tasks", reading(_TASK), Repeat.KEYED, (), to_json(ready.body()), headers, ready.key)


def submit_many(bodies: Sequence[bytes]) -> Call[list[models.VerdictBody]]:
    """``POST /v1/tasks/batch`` of items that have a key each."""
    read = reading(models.Page[models.VerdictBody])

    def verdicts(response: httpx.Response) -> list[models.VerdictBody]:
        items: list[models.VerdictBody] = read(response).items
        if len(items) != len(bodies):
            raise unexpected(response, f"{len(items)} verdicts for {len(bodies)} items")
        return items

    content = b'{"items":[' + b",".join(bodies) + b"]}"
    return Call("POST", "/v1/tasks/batch", verdicts, Repeat.KEYED, (), content)


def get(task_id: str) -> Call[models.Task]:
    """``GET /v1/tasks/{taskId}``."""
    return Call("GET", f"/v1/tasks/{segment(task_id)}", reading(_TASK))


def poll(task: models.Task, hold: int) -> Call[Polled]:
    """``GET /v1/tasks/{taskId}``, held for a change for up to so many seconds."""
    read = reading(_TASK)

    def polled(response: httpx.Response) -> Polled:
        changed = None if response.status_code == http.HTTPStatus.NOT_MODIFIED else read(response)
        return Polled(
            changed, hold > 0 and "preference-applied" in response.headers, retry_after(response.headers) or 1.0
        )

    headers = {"If-None-Match": f'"{task.revision}"', **({"Prefer": f"wait={hold}"} if hold else {})}
    return Call("GET", f"/v1/tasks/{segment(task.task_id)}", polled, headers=headers, hold=hold)


def events(task_id: str) -> Call[list[models.Event]]:
    """``GET /v1/tasks/{taskId}/events``."""
    return Call("GET", f"/v1/tasks/{segment(task_id)}/events", reading(list[models.Event]))


def payload(task_id: str) -> Call[models.Payload]:
    """``GET /v1/tasks/{taskId}/payload``."""
    return Call("GET", f"/v1/tasks/{segment(task_id)}/payload", reading(models.Payload))


def list_tasks(filters: Mapping[str, Any], cursor: str | None) -> Call[models.Page[models.Task]]:
    """``GET /v1/tasks``."""
    return Call("GET", "/v1/tasks", reading(models.Page[models.Task]), params=query(filters, cursor))


def children(task_id: str, cursor: str | None) -> Call[models.Page[models.Task]]:
    """``GET /v1/tasks/{taskId}/children``."""
    path = f"/v1/tasks/{segment(task_id)}/children"
    return Call("GET", path, reading(models.Page[models.Task]), params=query({}, cursor))


def cancel(task_id: str) -> Call[models.Task]:
    """``POST /v1/tasks/{taskId}/cancel``; repeating it is safe."""
    return Call("POST", f"/v1/tasks/{segment(task_id)}/cancel", reading(_TASK))


def retry_now(task_id: str) -> Call[models.Task]:
    """``POST /v1/tasks/{taskId}/retry-now``; repeating it is safe."""
    return Call("POST", f"/v1/tasks/{segment(task_id)}/retry-now", reading(_TASK))


def signal(task_id: str, name: str, body: PayloadLike | None, key: str | None) -> Call[models.Task]:
    """``POST /v1/tasks/{taskId}/signals/{name}``."""
    used = key or new_key()
    path = f"/v1/tasks/{segment(task_id)}/signals/{segment(name)}"
    headers = {"Idempotency-Key": key_header(used)}
    return Call("POST", path, reading(_TASK), Repeat.KEYED, (), to_json(body or {}), headers, used)


# --- dead letters ---------------------------------------------------------------------------------
def dead_letters(filters: Mapping[str, Any], cursor: str | None) -> Call[models.Page[models.DeadLetter]]:
    """``GET /v1/dead-letters``."""
    return Call("GET", "/v1/dead-letters", reading(models.Page[models.DeadLetter]), params=query(filters, cursor))


def dead_letter(task_id: str) -> Call[models.DeadLetter]:
    """``GET /v1/dead-letters/{taskId}``."""
    return Call("GET", f"/v1/dead-letters/{segment(task_id)}", reading(models.DeadLetter))


def dead_letter_groups(filters: Mapping[str, Any]) -> Call[list[models.DeadLetterGroup]]:
    """``GET /v1/dead-letters/groups``."""
    read = reading(models.Page[models.DeadLetterGroup])
    return Call("GET", "/v1/dead-letters/groups", lambda response: read(response).items, params=query(filters))


def redrive(task_id: str, payload: PayloadLike | None, *, fresh: bool) -> Call[models.Task]:
    """``POST /v1/dead-letters/{taskId}/redrive``: a second one would be another cycle."""
    given = ({} if payload is None else {"payload": payload}) | ({"fresh": True} if fresh else {})
    path = f"/v1/dead-letters/{segment(task_id)}/redrive"
    return Call("POST", path, reading(_TASK), Repeat.UNSENT, (), to_json(given) if given else None)


def redrive_many(filters: Mapping[str, Any], more: Mapping[str, Any]) -> Call[models.BulkRedrive]:
    """``POST /v1/dead-letters/redrive``: a second one would be another job."""
    given = {name: value for name, value in filters.items() if value is not None}
    repeat = Repeat.SAFE if more.get("dryRun") else Repeat.UNSENT
    content = to_json({"filter": given, **more})
    return Call("POST", "/v1/dead-letters/redrive", reading(models.BulkRedrive), repeat, (), content)


def discard(task_id: str) -> Call[None]:
    """``DELETE /v1/dead-letters/{taskId}``."""
    return Call("DELETE", f"/v1/dead-letters/{segment(task_id)}", _nothing)


# --- operators ------------------------------------------------------------------------------------
def jobs() -> Call[list[models.Job]]:
    """``GET /v1/jobs``."""
    return _items("/v1/jobs", models.Job)


def stop_job(job_id: str) -> Call[models.Job]:
    """``POST /v1/jobs/{jobId}/stop``."""
    return Call("POST", f"/v1/jobs/{segment(job_id)}/stop", reading(models.Job))


def pauses() -> Call[list[models.Pause]]:
    """``GET /v1/pauses``."""
    return _items("/v1/pauses", models.Pause)


def pause(what: str, reason: str, until: dt.datetime | None) -> Call[models.Pause]:
    """``PUT /v1/pauses/{what}``."""
    body = {"reason": reason, **({} if until is None else {"until": moment(until)})}
    return Call("PUT", f"/v1/pauses/{segment(what)}", reading(models.Pause), content=to_json(body))


def resume(what: str) -> Call[None]:
    """``DELETE /v1/pauses/{what}``."""
    return Call("DELETE", f"/v1/pauses/{segment(what)}", _nothing)


def audit(filters: Mapping[str, Any], cursor: str | None) -> Call[models.Page[models.AuditEntry]]:
    """``GET /v1/audit``."""
    return Call("GET", "/v1/audit", reading(models.Page[models.AuditEntry]), params=query(filters, cursor))


# --- the system -----------------------------------------------------------------------------------
def task_types() -> Call[list[models.TaskType]]:
    """``GET /v1/task-types``."""
    return _items("/v1/task-types", models.TaskType)


def task_type(name: str) -> Call[models.TaskType]:
    """``GET /v1/task-types/{name}``."""
    return Call("GET", f"/v1/task-types/{segment(name)}", reading(models.TaskType))


def queues() -> Call[list[models.Queue]]:
    """``GET /v1/queues``."""
    return _items("/v1/queues", models.Queue)


def queue(name: str) -> Call[models.Queue]:
    """``GET /v1/queues/{name}``."""
    return Call("GET", f"/v1/queues/{segment(name)}", reading(models.Queue))


def workers() -> Call[list[models.Worker]]:
    """``GET /v1/workers``."""
    return _items("/v1/workers", models.Worker)


def stats(principal: str | None) -> Call[models.Stats]:
    """``GET /v1/stats``."""
    return Call("GET", "/v1/stats", reading(models.Stats), params=query({"principal": principal}))


def anything(method: str, path: str, params: Mapping[str, Any] | None, body: Any, key: str | None) -> Call[Any]:
    """Any operation; repeated only if the method or an idempotency key makes that safe."""
    repeat = Repeat.SAFE if method.upper() in {"GET", "HEAD", "PUT", "DELETE"} else Repeat.UNSENT
    headers = {"Idempotency-Key": key_header(key)} if key else {}
    content = None if body is None else to_json(body)
    kept = Repeat.KEYED if key else repeat
    return Call(method.upper(), path, _anything, kept, query(params or {}), content, headers, key)


# --- helpers --------------------------------------------------------------------------------------
def query(filters: Mapping[str, Any], cursor: str | None = None) -> list[tuple[str, str]]:
    """Parameters of a query; those that are None are left out.

    Args:
        filters: by the API's names; of a list each value is a parameter.
        cursor: of the page.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in {**filters, "cursor": cursor}.items():
        pairs += [(name, _text(each)) for each in _values(value)]
    return pairs


def segment(value: str) -> str:
    """One segment of a path.

    Args:
        value: an id or a name; also a hostile one stays in its segment.

    Raises:
        ValueError: it is empty, or a dot segment, which would be another path.
    """
    if value in {"", ".", ".."}:
        raise ValueError(f"{value!r} is no id or name")
    return quote(value, safe=":")


def _values(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return moment(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _items(path: str, kind: type[T]) -> Call[list[T]]:
    read = reading(models.Page[kind])  # type: ignore[valid-type]
    return Call("GET", path, lambda response: read(response).items)


def _nothing(_: httpx.Response) -> None:
    return None


def _anything(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise unexpected(response, "it is no JSON") from None
