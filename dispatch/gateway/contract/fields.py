"""What the models of the HTTP contract have in common: bases, bounds, types of fields. The suffix `Model` is no part of a component's name."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pydantic
from pydantic import Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from dispatch.protocol import labels, moments

MAX_NAME = 128  #: characters of a task type's or an error type's name
MAX_PAGE = 200  #: items on one page
MAX_BATCH = 1_000  #: items of one batch

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Cursor = Annotated[str, Field(min_length=1, max_length=4_096, description="`next` of the previous page.")]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="Maximum of items on a page.")]
Moment = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
        examples=["2026-11-24T02:36:00.000Z"],
    ),
]


def _moment(value: Any) -> int:
    return moments.millis(str(value))


def _labels(value: dict[str, str]) -> dict[str, str]:
    if not all(re.fullmatch(labels.KEY, key) and re.fullmatch(labels.VALUE, text) for key, text in value.items()):
        text = (
            "A label has a key of 1 to 63 of a-z, 0-9, '.', '_', '-', and a value of 1 to 63 visible ASCII characters"
        )
        raise PydanticCustomError("invalid_label", text)
    return value


#: A time in a query, as epoch milliseconds.
SearchTime = Annotated[
    int,
    pydantic.BeforeValidator(_moment),
    pydantic.WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-24T02:36:00Z"]}),
]
LabelPair = Annotated[str, Field(pattern=f"^{labels.KEY}={labels.VALUE}$")]
Labels = Annotated[
    dict[str, str],
    pydantic.AfterValidator(_labels),
    Field(
        max_length=labels.MAX_LABELS,
        json_schema_extra={
            "propertyNames": {"pattern": f"^{labels.KEY}$"},
            "additionalProperties": {"type": "string", "pattern": f"^{labels.VALUE}$"},
        },
        examples=[{"customer": "acme"}],
    ),
]
Whose = Annotated[
    Name | None,
    Field(
        description="Another principal's tasks, or `*` for those of all: needs the scope `tasks:read-all`. "
        "Your own by default."
    ),
]


def _title(model: type) -> str:
    return model.__name__.removesuffix("Model")


class _Base(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True,
        model_title_generator=_title,
    )  # fmt: skip


class Body(_Base):
    """Base of request bodies: strict, unknown members are rejected."""

    model_config = pydantic.ConfigDict(strict=True)


class ResponseBase(_Base):
    """Base of what views answer, for models of other modules."""


class Query(_Base):
    """Base of query parameters: unknown ones are rejected."""
