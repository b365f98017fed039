"""Parsing of bodies and queries; pydantic's errors become problem details."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flask
import pydantic

from dispatch.gateway.http import jsonbody
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.store.index import Page

Model = TypeVar("Model", bound=pydantic.BaseModel)


def read_object() -> dict[str, Any]:
    """The JSON object in the body of the current request.

    Raises:
        Problem: 415, 413, 400, or 422 when it is JSON but not an object.
    """
    request = flask.request
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset not in {"utf-8", "utf8"}:
        raise Problem("unsupported-media-type", headers={"Accept": "application/json"})
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", headers={"Accept-Encoding": "identity"})
    raw = request.get_data(cache=False)
    # Werkzeug rejects a Content-Length over its limit but truncates a chunked body there: the limit is one byte over.
    if raw and len(raw) == request.max_content_length:
        raise Problem("body-too-large")
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


def parse(model: type[Model], value: Mapping[str, Any], at: str = "") -> Model:
    """Validate a part of the body.

    Args:
        model: the schema. Validates in JSON mode, so that a strict model can have dates or tuples.
        value: from `read_object`.
        at: JSON Pointer of the part in the body.

    Raises:
        Problem: 422 with a pointer to each error.
    """
    try:
        return model.model_validate_json(json.dumps(value))
    except pydantic.ValidationError as exc:
        raise invalid(*_field_errors(exc, value, at)) from exc


def read_query(model: type[Model]) -> Model:
    """Validate the query parameters of the current request.

    Raises:
        Problem: 422, also for a duplicate parameter.
    """
    parameters = flask.request.args.to_dict(flat=False)
    duplicates = [
        FieldError(pointer(["query", name]), "The parameter occurs more than once.", "duplicate")
        for name, values in parameters.items()
        if len(values) > 1
    ]
    if duplicates:
        raise invalid(*duplicates)
    values = {name: values[0] for name, values in parameters.items()}
    try:
        return model.model_validate(values, by_alias=True, by_name=False)
    except pydantic.ValidationError as exc:
        raise invalid(*_field_errors(exc, values, "/query")) from exc


def page(fetch: Callable[[], Page]) -> Page:
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


def invalid(*errors: FieldError) -> Problem:
    """A validation problem."""
    places = "one place" if len(errors) == 1 else f"{len(errors)} places"
    return Problem("validation-error", f"The request is not valid in {places}.", errors=errors)


def pointer(path: Sequence[str | int]) -> str:
    """A JSON Pointer (RFC 6901, 3)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _field_errors(exc: pydantic.ValidationError, value: Any, at: str) -> list[FieldError]:
    # Without input and context, which contain values of the request, secrets included.
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    return [
        FieldError(at + pointer(_place(error["loc"], value)), _sentence(error["msg"]), error["type"])
        for error in errors
    ]


def _place(loc: Sequence[str | int], value: Any) -> list[str | int]:
    """The part of pydantic's location that exists in the document, plus the last name when it is missing there.

    A location also contains the branches of unions and the validators on its path.
    """
    path: list[str | int] = []
    for number, part in enumerate(loc):
        if isinstance(value, Mapping) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif not isinstance(value, Mapping) or number + 1 < len(loc):
            continue
        path.append(part)
    return path


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _chunked() -> bool:
    return "chunked" in flask.request.headers.get("Transfer-Encoding", "").lower()
