"""Names and examples of the submit body's variants, one for each task type. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dispatch.tasktypes.registry import TaskType

#: A value of each JSON type, for a required field that has no example of its own.
_PLAIN: Mapping[str, Any] = {
    "string": "text", "integer": 1, "number": 1.0, "boolean": False, "array": [], "object": {}, "null": None,
}  # fmt: skip


def component_names(envelope: str, types: Iterable[str]) -> dict[str, str]:
    """Names of components that generators can make classes of: ``SubmitBodyHttpRequest`` for ``http.request``.

    Args:
        envelope: the name that each begins with.
        types: names of task types.

    Returns:
        By task type; a number is added to names that differ in punctuation only.
    """
    found: dict[str, str] = {}
    for kind in types:
        wanted = envelope + "".join(part.capitalize() for part in re.split(r"[^0-9A-Za-z]+", kind))
        taken = set(found.values())
        numbered = (f"{wanted}{number}" for number in range(2, len(taken) + 3))
        found[kind] = next(name for name in (wanted, *numbered) if name not in taken)
    return found


def submissions(types: Mapping[str, TaskType]) -> dict[str, Any]:
    """A named example of ``POST /v1/tasks`` for each task type, as OpenAPI has it.

    Args:
        types: by name; the first one's is what a page shows first.
    """
    return {
        kind.name: {"summary": kind.summary, "value": {"type": kind.name, "payload": payload(kind)}}
        for kind in types.values()
    }


def payload(kind: TaskType) -> dict[str, Any]:
    """The required fields of a task type's payload, with the fields' own examples."""
    schema = kind.payload.model_json_schema(by_alias=True)
    return {name: _value(schema["properties"][name], schema.get("$defs", {})) for name in schema.get("required", ())}


def _value(spec: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    for name in ("examples", "enum"):
        if spec.get(name):
            return spec[name][0]
    for name in ("const", "default"):
        if name in spec:
            return spec[name]
    if "$ref" in spec:
        return _value(definitions[spec["$ref"].rpartition("/")[2]], definitions)
    if spec.get("anyOf"):
        return _value(spec["anyOf"][0], definitions)
    return _of_type(spec, definitions)


def _of_type(spec: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    if spec.get("type") == "object":
        properties = spec.get("properties", {})
        return {name: _value(properties[name], definitions) for name in spec.get("required", ())}
    if spec.get("minItems"):
        return [_value(spec["items"], definitions)] * spec["minItems"]
    return spec.get("minimum", _PLAIN[spec.get("type", "null")])
