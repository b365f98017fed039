"""Parsing of bodies and queries; pydantic's errors become problem details."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_origin

import flask
import pydantic
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_input_stream

from dispatch.gateway.http import context, jsonbody
from dispatch.gateway.http.problems import MAX_ERRORS, FieldError, Problem
from dispatch.tasktypes.validating import place, validated

Model = TypeVar("Model", bound=pydantic.BaseModel)
Listed = TypeVar("Listed")


class WholeInput(io.BytesIO):
    """A body that came with its head: `wsgi.input` of a request that has nothing left on its connection."""


def read_object() -> dict[str, Any]:
    """The JSON object in the body of the current request.

    Raises:
        Problem: 415, 413, 400, or 422 when it is JSON but not an object.
    """
    return parse_object(read_body())


def read_body(max_body: int = 0) -> bytes:
    """The body of the current request, which claims to be JSON.

    Args:
        max_body: bytes that it may have; 0: as many as any.

    Raises:
        Problem: 415, 413, or 400 when it is not whole.
    """
    request = context.current()
    if not _is_json(request.header("CONTENT_TYPE") or ""):
        raise Problem("unsupported-media-type", headers={"Accept": "application/json"})
    if (request.header("HTTP_CONTENT_ENCODING") or "identity").lower() != "identity":
        raise Problem("unsupported-media-type", headers={"Accept-Encoding": "identity"})
    most = (max_body or request.site.max_body) + 1
    stream = request.environ["wsgi.input"]
    if isinstance(stream, WholeInput):
        raw = stream.getvalue()
    else:
        # One byte more than is allowed: werkzeug cuts a body in chunks off there, and refuses a greater Content-Length.
        raw = get_input_stream(request.environ, max_content_length=most).read()  # type: ignore[arg-type]
    if len(raw) >= most:
        raise Problem("body-too-large")
    return raw


@functools.lru_cache(64)
def _is_json(content_type: str) -> bool:
    """Whether a Content-Type is that of JSON in UTF-8."""
    media_type, parameters = parse_options_header(content_type)
    charset = parameters.get("charset", "utf-8").lower()
    return media_type.lower() == "application/json" and charset in {"utf-8", "utf8"}


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Pure.

    Raises:
        Problem: 400, or 422 when it is JSON but not an object.
    """
    try:
        value = jsonbody.parse(raw)
    except jsonbody.MalformedJson as exc:
        raise Problem("malformed-json", f"The body could not be read: {exc}.") from exc
    if not isinstance(value, dict):
        raise invalid(FieldError("", "The body must be an object.", "object_type"))
    return value


def read_optional_object() -> dict[str, Any]:
    """As `read_object`; an absent body is an empty object."""
    return read_object() if flask.request.content_length or _chunked() else {}


def read_optional_body() -> bytes:
    """As `read_body`; an absent body is an empty object."""
    return read_body() if flask.request.content_length or _chunked() else b"{}"


def parse(model: type[Model], value: Mapping[str, Any], at: str = "", *, text: bytes | None = None) -> Model:
    """Validate a part of the body.

    Args:
        model: the schema.
        value: from `read_object`.
        at: JSON Pointer of the part in the body.
        text: the part as JSON, where it is at hand.

    Raises:
        Problem: 422 with a pointer to each error.
    """
    try:
        return validated(model, value, text)
    except pydantic.ValidationError as exc:
        raise invalid(*_field_errors(exc, value, at), count=exc.error_count()) from exc


def read_query(model: type[Model]) -> Model:
    """Validate the query parameters of the current request.

    Raises:
        Problem: 422, also for a duplicate of a parameter that is no list.
    """
    parameters, lists = flask.request.args.to_dict(flat=False), _lists(model)
    duplicates = [
        FieldError(pointer(["query", name]), "The parameter occurs more than once.", "duplicate")
        for name, values in parameters.items()
        if len(values) > 1 and name not in lists
    ]
    if duplicates:
        raise invalid(*duplicates)
    values = {name: given if name in lists else given[0] for name, given in parameters.items()}
    try:
        return model.model_validate(values, by_alias=True, by_name=False)
    except pydantic.ValidationError as exc:
        raise invalid(*_field_errors(exc, values, "/query")) from exc


@functools.cache
def _lists(model: type[pydantic.BaseModel]) -> frozenset[str]:
    """The parameters that may be repeated."""
    fields = model.model_fields.items()
    return frozenset(field.alias or name for name, field in fields if get_origin(field.annotation) is list)


def page(fetch: Callable[[], Listed]) -> Listed:
    """Fetch one page of a list.

    Args:
        fetch: raises ValueError for an invalid cursor.

    Raises:
        Problem: 422 for an invalid cursor.
    """
    try:
        return fetch()
    except ValueError as exc:
        error = FieldError("/query/cursor", "The cursor was not issued by this API.", "invalid_cursor")
        raise invalid(error) from exc


def invalid(*errors: FieldError, count: int | None = None) -> Problem:
    """A validation problem.

    Args:
        errors: of which the first `MAX_ERRORS` are shown.
        count: how many there are, where that is more.
    """
    found = count or len(errors)
    places = "one place" if found == 1 else f"{found} places"
    return Problem("validation-error", f"The request is not valid in {places}.", errors=errors)


def pointer(path: Sequence[str | int]) -> str:
    """A JSON Pointer (RFC 6901, 3)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _field_errors(exc: pydantic.ValidationError, value: Any, at: str) -> list[FieldError]:
    # Without input and context, which contain values of the request, secrets included.
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    return [
        FieldError(at + pointer(place(error["loc"], value)), _sentence(error["msg"]), error["type"])
        for error in errors[:MAX_ERRORS]
    ]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _chunked() -> bool:
    return "chunked" in flask.request.headers.get("Transfer-Encoding", "").lower()
