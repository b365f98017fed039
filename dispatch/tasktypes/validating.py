"""Validation of JSON values by strict models. Pure.

A strict model of pydantic refuses 1.0 and 1e2 for an integer, which JSON Schema, and so the published schemas, allow.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

Model = TypeVar("Model", bound=pydantic.BaseModel)

#: Beyond, a parser's double may be another integer than the one that was written.
MAX_EXACT = 2**53


def validated(model: type[Model], value: Any, text: bytes | None = None) -> Model:
    """Validate a value in JSON mode, so that a strict model can have dates or tuples.

    Args:
        model: the schema.
        value: parsed JSON.
        text: the same before it was parsed, where the caller has it.

    Raises:
        pydantic.ValidationError: it is not valid.
    """
    try:
        return model.model_validate_json(json.dumps(value) if text is None else text)
    except pydantic.ValidationError as exc:
        if not _has_whole_float(value):
            raise
        mended = _with_integers(value, exc)
    return model.model_validate_json(json.dumps(mended))


def place(loc: Sequence[str | int], value: Any) -> list[str | int]:
    """The part of pydantic's location that exists in the document, plus the last name when it is missing there.

    A location also contains the branches of unions and the validators on its path.

    Args:
        loc: of an error.
        value: the document.
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


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, Mapping | list):
        return any(map(_has_whole_float, value.values() if isinstance(value, Mapping) else value))
    return _is_whole(value)


def _with_integers(value: Any, exc: pydantic.ValidationError) -> Any:
    """A copy of the value with an integer wherever the model refused a whole number for being written as a fraction."""
    mended = json.loads(json.dumps(value))
    for error in exc.errors(include_url=False, include_context=False):
        if error["type"] == "int_type" and _is_whole(error["input"]) and (path := place(error["loc"], mended)):
            *parents, last = path
            parent: Any = functools.reduce(operator.getitem, parents, mended)
            if parent[last] == error["input"]:
                parent[last] = int(error["input"])
    return mended
