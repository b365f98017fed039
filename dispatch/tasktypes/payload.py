"""Payload models, and the secrets in payloads."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

import pydantic


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


class Payload(pydantic.BaseModel):
    """Base of payload models: strict, frozen, camelCase in JSON, unknown fields refused."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=_camel, validate_by_name=True, validate_by_alias=True
    )


#: A payload field that nobody but the handler may read: ``order.token.get_secret_value()``. Its value is taken out of
#: logs, errors, progress and events; it travels in the message and in the record, which sends it again.
Secret = Annotated[
    pydantic.SecretStr,
    pydantic.PlainSerializer(lambda secret: secret.get_secret_value(), return_type=str, when_used="json"),
]


#: What pydantic would send as asterisks.
_MASKED = (pydantic.SecretStr, pydantic.SecretBytes)


def masked_fields(model: type[pydantic.BaseModel]) -> list[str]:
    """The fields, of the model and of those within it, whose values pydantic masks: a worker would get asterisks.

    Args:
        model: a payload model.

    Returns:
        ``Model.field``, for each that is a `pydantic.SecretStr` or `pydantic.SecretBytes` and not `Secret`.
    """
    found: list[str] = []
    seen: set[type] = set()

    def look(annotation: Any, place: str, *, told: bool = False) -> None:
        if get_origin(annotation) is Annotated:
            inner, *notes = get_args(annotation)
            look(inner, place, told=told or any(isinstance(note, pydantic.PlainSerializer) for note in notes))
        elif isinstance(annotation, type) and issubclass(annotation, _MASKED):
            found.extend([] if told else [place])
        elif isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            walk(annotation)
        else:
            for each in get_args(annotation):
                look(each, place)

    def walk(each: type[pydantic.BaseModel]) -> None:
        if each in seen:
            return
        seen.add(each)
        for name, field in each.model_fields.items():
            told = any(isinstance(note, pydantic.PlainSerializer) for note in field.metadata)
            look(field.annotation, f"{each.__name__}.{name}", told=told)

    walk(model)
    return found


def secrets_of(model: type[Payload], payload: Any) -> tuple[str, ...]:
    """The values of a payload's secret fields.

    Args:
        model: what the payload should be; fields marked ``writeOnly`` in its JSON Schema are secret.
        payload: as it came, valid or not.
    """
    return tuple(dict.fromkeys(text for _, value in _secrets_in(model, payload) for text in _texts(value)))


def veiled(model: type[Payload], payload: Any, veil: str) -> Any:
    """A copy of a payload with another text in the place of each secret, however short.

    Args:
        model: what the payload should be.
        payload: JSON-like, valid or not.
        veil: what is shown instead.
    """
    shown = copy.deepcopy(payload)
    # The deepest first: a secret may be within what is a secret as a whole by another branch of the schema.
    for *way, last in sorted((way for way, _ in _secrets_in(model, payload)), key=len, reverse=True):
        functools.reduce(operator.getitem, way, shown)[last] = veil
    return shown


def _secrets_in(model: type[Payload], payload: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where in a payload its secrets are, and what they are."""
    return (found for schema in _schemas(model) for found in _secrets(schema, payload, schema, ()))


@functools.cache
def _schemas(model: type[Payload]) -> tuple[dict[str, Any], ...]:
    """With the names in JSON and with those in Python, for both are taken; none when nothing is secret."""
    both = tuple(model.model_json_schema(by_alias=by_alias) for by_alias in (True, False))
    return both if "'writeOnly': True" in str(both) else ()


def _secrets(
    schema: Any, value: Any, root: Mapping[str, Any], way: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(schema, Mapping):
        return
    if schema.get("writeOnly"):
        if value is not None:
            yield way, value
        return
    if "$ref" in schema:
        yield from _secrets(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root, way)
    for branch in (each for word in ("anyOf", "oneOf", "allOf") for each in schema.get(word, ())):
        yield from _secrets(branch, value, root, way)
    if isinstance(value, Mapping):
        known = schema.get("properties", {})
        for name, each in value.items():
            yield from _secrets(known.get(name, schema.get("additionalProperties")), each, root, (*way, name))
    elif isinstance(value, list):
        first = schema.get("prefixItems", ())
        for number, each in enumerate(value):
            yield from _secrets(
                first[number] if number < len(first) else schema.get("items"), each, root, (*way, number)
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
