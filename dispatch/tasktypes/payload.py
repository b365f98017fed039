"""Payload models, and the secrets in payloads."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import pydantic


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


class Payload(pydantic.BaseModel):
    """Base of payload models: strict, frozen, camelCase in JSON, unknown fields are rejected."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=_camel, validate_by_name=True, validate_by_alias=True
    )


#: A payload field for the handler only: ``order.token.get_secret_value()``. Its value is redacted in logs, errors, progress
#: and events; the message contains it, and so does the record, from which the message is published again.
Secret = Annotated[
    pydantic.SecretStr,
    pydantic.PlainSerializer(lambda secret: secret.get_secret_value(), return_type=str, when_used="json"),
]


#: Types that pydantic serialises as asterisks.
_MASKED = (pydantic.SecretStr, pydantic.SecretBytes)


def masked_fields(model: type[pydantic.BaseModel]) -> list[str]:
    """The fields, of the model and of nested models, whose values pydantic masks: a worker would receive asterisks.

    Args:
        model: a payload model.

    Returns:
        ``Model.field``, for each that is a `pydantic.SecretStr` or `pydantic.SecretBytes` and not `Secret`.
    """
    masked: list[str] = []
    visited: set[type] = set()

    def check(annotation: Any, field: str, *, serialised: bool = False) -> None:
        if get_origin(annotation) is Annotated:
            inner, *metadata = get_args(annotation)
            check(inner, field, serialised=serialised or _has_serializer(metadata))
        elif isinstance(annotation, type) and issubclass(annotation, _MASKED):
            masked.extend([] if serialised else [field])
        elif isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            visit(annotation)
        else:
            for argument in get_args(annotation):
                check(argument, field)

    def visit(nested: type[pydantic.BaseModel]) -> None:
        if nested in visited:
            return
        visited.add(nested)
        for name, info in nested.model_fields.items():
            check(info.annotation, f"{nested.__name__}.{name}", serialised=_has_serializer(info.metadata))

    visit(model)
    return masked


def _has_serializer(metadata: Sequence[Any]) -> bool:
    return any(isinstance(item, pydantic.PlainSerializer) for item in metadata)


def secrets_of(model: type[Payload], payload: Any) -> tuple[str, ...]:
    """The values of a payload's secret fields.

    Args:
        model: the payload's model; fields marked ``writeOnly`` in its JSON Schema are secret.
        payload: JSON-like, valid or not.
    """
    return tuple(dict.fromkeys(text for _, value in _secrets_in(model, payload) for text in _texts(value)))


def secret_places(model: type[Payload], payload: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of a payload's secret fields, names of members and numbers of items; arguments as `secrets_of`."""
    return (path for path, _ in _secrets_in(model, payload))


def _secrets_in(model: type[Payload], payload: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The path and the value of each secret in a payload."""
    return (secret for schema in _schemas(model) for secret in _secrets(schema, payload, schema, ()))


@functools.cache
def _schemas(model: type[Payload]) -> tuple[dict[str, Any], ...]:
    """The JSON Schemas with JSON names and with Python names, since both validate; none without secret fields."""
    both = tuple(model.model_json_schema(by_alias=by_alias) for by_alias in (True, False))
    return both if "'writeOnly': True" in str(both) else ()


def _secrets(
    schema: Any, value: Any, root: Mapping[str, Any], path: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(schema, Mapping):
        return
    if schema.get("writeOnly"):
        if value is not None:
            yield path, value
        return
    if "$ref" in schema:
        yield from _secrets(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root, path)
    for branch in (branch for keyword in ("anyOf", "oneOf", "allOf") for branch in schema.get(keyword, ())):
        yield from _secrets(branch, value, root, path)
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        for name, member in value.items():
            yield from _secrets(properties.get(name, schema.get("additionalProperties")), member, root, (*path, name))
    elif isinstance(value, list):
        prefix = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            item_schema = prefix[index] if index < len(prefix) else schema.get("items")
            yield from _secrets(item_schema, item, root, (*path, index))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for child in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(child)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
