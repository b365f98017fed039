"""An operation of the API as a `Call`: what to send, how its response is read, what makes a repeat safe. Pure."""

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


# --- operations that flows are made of, too -------------------------------------------------------
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


def keyed(path: str, parse: Callable[[httpx.Response], T], body: PayloadLike | None, key: str | None) -> Call[T]:
    """A POST that is one, however often it is repeated.

    Args:
        path: of the operation.
        parse: reads its response.
        body: None for none.
        key: its idempotency key; generated by default.
    """
    used = key or new_key()
    content = None if body is None else to_json(body)
    return Call("POST", path, parse, Repeat.KEYED, (), content, {"Idempotency-Key": key_header(used)}, used)


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


def items(path: str, kind: type[T], filters: Mapping[str, Any] | None = None) -> Call[list[T]]:
    """A list that is no longer than one response.

    Args:
        path: of the operation.
        kind: of its items.
        filters: parameters of its query.
    """
    read = reading(models.Page[kind])  # type: ignore[valid-type]
    return Call("GET", path, lambda response: read(response).items, params=query(filters or {}))


def nothing(_: httpx.Response) -> None:
    """The reader of a response without a body."""
    return


def _anything(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise unexpected(response, "it is no JSON") from None
