"""A form made from a JSON Schema: inputs for a value, and the value that the inputs have. Pure.

A value may have secrets that the user who fills in the form must not see. The form has what is shown in their place; where an input comes
back as it was shown, its part of the value stays as it was, secret or not. A mask is never taken for a value.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dispatch.gateway.http.problems import FieldError
from dispatch.gateway.http.validation import pointer
from dispatch.tasktypes.masking import MASK

#: Inputs of a form at most, and levels of nesting: beyond, a part is edited as JSON.
MOST_INPUTS, DEEPEST = 300, 6

#: Characters from which a text has an input of several lines.
_LONG = 100

#: What begins the name of an input: its value, how many rows a list has, whether it is removed, and a new member's name and value.
VALUE, ROWS, REMOVE, NEW_NAME, NEW_VALUE = "p:", "n:", "remove:", "name:", "value:"

#: In the place of a value that is not there.
ABSENT: Any = object()

#: Whatever stands for a host in a text.
_AUTHORITY = re.compile(r"//([^/?#\\\s\"'<>]*)")

_ELSEWHERE = "A secret stays as it is only while the payload names no other host than before: give the secret itself."


@dataclasses.dataclass(slots=True)
class Input:
    """One input, or a group of them."""

    pointer: str
    kind: str  #: ``group``, ``list``, ``map``; ``text``, ``long``, ``number``, ``choice``, ``secret``, ``json``
    label: str
    hint: str = ""
    required: bool = False
    text: str = ""  #: what it has
    choices: Sequence[tuple[str, str]] = ()
    inputs: list[Input] = dataclasses.field(default_factory=list)
    removable: bool = False
    removed: bool = False
    kept: bool = False  #: there is a secret that stays when it is left empty
    grows: bool = False  #: members can be added
    error: str = ""

    def walk(self) -> Iterator[Input]:
        """Itself and all within it."""
        yield self
        for each in self.inputs:
            yield from each.walk()


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """What a form is about: a value as it is, and as it may be shown."""

    shown: Any = ABSENT
    value: Any = ABSENT

    def member(self, name: str | int) -> Source:
        """A part of it."""
        return Source(_part(self.shown, name), _part(self.value, name))


#: Nothing yet.
EMPTY = Source()


class SchemaForm:
    """A form.

    Args:
        schema: of an object, e.g. by `pydantic.BaseModel.model_json_schema`.
        source: what there is already.
    """

    def __init__(self, schema: Mapping[str, Any], source: Source = EMPTY) -> None:
        self._schema, self._source = schema, source
        self._definitions = schema.get("$defs", {})
        self.kept: list[str] = []  #: JSON Pointers to secrets that `value` has kept
        self.errors: list[FieldError] = []  #: of `value`: texts that are no JSON

    # --- inputs ----------------------------------------------------------------------------------
    def inputs(self, given: Mapping[str, str] | None = None) -> Input:
        """The whole form.

        Args:
            given: what was filled in; None: what there is already.
        """
        return self._input(self._schema, self._source, (), given, "", required=True)

    def _input(
        self, schema: Any, source: Source, path: tuple[str | int, ...], given: Mapping[str, str] | None, label: str, *, required: bool
    ) -> Input:  # fmt: skip
        schema = self._resolved(schema)
        at, kind = pointer(path), self._kind(schema, source, len(path))
        made = Input(at, kind, label, str(schema.get("description", "")), required=required, removable=not required)
        if kind == "group":
            made.inputs = list(self._members(schema, source, path, given))
        elif kind == "map":
            made.grows = True
            names = source.shown if isinstance(source.shown, Mapping) else {}
            made.inputs = [
                self._input(schema["additionalProperties"], source.member(name), (*path, name), given, str(name), required=False)
                for name in names
            ]  # fmt: skip
        elif kind == "list":
            made.grows = True
            made.inputs = [
                self._input(schema["items"], source.member(number), (*path, number), given, f"{number + 1}", required=False)
                for number in range(self._rows(source, at, given))
            ]  # fmt: skip
        else:
            text = None if given is None else given.get(VALUE + at)
            made.text = ("" if kind == "secret" else _text(source.shown, kind)) if text is None else text
            made.choices = _choices(schema) if kind == "choice" else ()
            made.kept = kind == "secret" and source.value is not ABSENT
            if kind == "secret":
                made.text = ""
        made.removed = given is not None and REMOVE + at in given
        return made

    def _members(
        self, schema: Mapping[str, Any], source: Source, path: tuple[str | int, ...], given: Mapping[str, str] | None
    ) -> Iterator[Input]:
        required = schema.get("required", ())
        for name, each in self._properties(schema, source).items():
            yield self._input(each, source.member(name), (*path, name), given, name, required=name in required)

    def _properties(self, schema: Mapping[str, Any], source: Source) -> dict[str, Any]:
        """Those of the schema, and what there is besides."""
        there = source.shown if isinstance(source.shown, Mapping) else {}
        more = {
            name: {"description": "Not in the type's schema."} for name in there if name not in schema["properties"]
        }
        return {**schema["properties"], **more}

    def _rows(self, source: Source, at: str, given: Mapping[str, str] | None) -> int:
        there = len(source.shown) if isinstance(source.shown, Sequence) and not isinstance(source.shown, str) else 0
        wanted = (given or {}).get(ROWS + at, "")
        more = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 4 else 0
        return min(max(there, more), MOST_INPUTS)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """A schema without references, and without the branch that permits null."""
        found: dict[str, Any] = dict(schema) if isinstance(schema, Mapping) else {}
        for _ in range(8):
            whole = found.pop("allOf", None)
            branches = [each for each in found.get("anyOf", ()) if each.get("type") != "null"]
            if "$ref" in found:
                found = {**self._definitions.get(found.pop("$ref").rpartition("/")[2], {}), **found}
            elif whole and len(whole) == 1:
                found = {**whole[0], **found}
            elif len(branches) == 1:
                del found["anyOf"]
                found = {**branches[0], **found, "nullable": True}
            else:
                break
        return found

    def _kind(self, schema: Mapping[str, Any], source: Source, depth: int) -> str:
        """The kind of input that a schema and a value have; JSON where the one does not fit the other."""
        shown = source.shown
        if schema.get("writeOnly") and (shown is ABSENT or shown is None or isinstance(shown, str)):
            return "secret"
        if shown == MASK:
            return "secret"
        if "enum" in schema or "const" in schema or schema.get("type") == "boolean":
            fits = shown is ABSENT or shown is None or _text(shown, "choice") in dict(_choices(schema))
            return "choice" if fits else "json"
        kind = _KINDS.get(str(schema.get("type")), "json")
        if kind == "group" and not schema.get("properties"):
            kind = "map" if isinstance(schema.get("additionalProperties"), Mapping) else "json"
        if kind == "list" and not isinstance(schema.get("items"), Mapping):
            return "json"
        if depth > DEEPEST or not _fits(kind, shown):
            return "json"
        long = kind == "text" and isinstance(shown, str) and (len(shown) > _LONG or "\n" in shown or "\r" in shown)
        return "long" if long else kind

    # --- the value -------------------------------------------------------------------------------
    def value(self, given: Mapping[str, str]) -> Any:
        """The value that the inputs have; what it keeps of secrets is in `kept` afterwards, what is no JSON in `errors`.

        Args:
            given: what was filled in.
        """
        found = self._value(self._schema, self._source, (), given, required=True)
        return {} if found is ABSENT else found

    def _value(
        self, schema: Any, source: Source, path: tuple[str | int, ...], given: Mapping[str, str], *, required: bool
    ) -> Any:
        schema, at = self._resolved(schema), pointer(path)
        kind = self._kind(schema, source, len(path))
        if REMOVE + at in given and not required:
            return ABSENT
        if kind == "group":
            needed = schema.get("required", ())
            members = {
                name: self._value(each, source.member(name), (*path, name), given, required=name in needed)
                for name, each in self._properties(schema, source).items()
            }
            found = {name: each for name, each in members.items() if each is not ABSENT}
            blank = all(each == "" for each in found.values())
            return ABSENT if blank and not required and source.value is ABSENT else found
        if kind == "map":
            return self._map(schema["additionalProperties"], source, path, given, required=required)
        if kind == "list":
            rows = range(self._rows(source, at, given))
            items = [
                self._value(schema["items"], source.member(row), (*path, row), given, required=False) for row in rows
            ]
            found_items = [each for each in items if each is not ABSENT]
            return found_items if found_items or required or source.value is not ABSENT else ABSENT
        return self._leaf(schema, kind, source, path, given.get(VALUE + at), required=required)

    def _map(
        self, schema: Any, source: Source, path: tuple[str | int, ...], given: Mapping[str, str], *, required: bool
    ) -> Any:
        at, there = pointer(path), source.shown if isinstance(source.shown, Mapping) else {}
        members = {
            name: self._value(schema, source.member(name), (*path, name), given, required=False) for name in there
        }
        if name := given.get(NEW_NAME + at, ""):
            resolved = self._resolved(schema)
            kind = self._kind(resolved, EMPTY, len(path))
            members[name] = self._leaf(resolved, kind, EMPTY, (*path, name), given.get(NEW_VALUE + at), required=True)
        found = {name: each for name, each in members.items() if each is not ABSENT}
        return found if found or required or source.value is not ABSENT else ABSENT

    def _leaf(
        self, schema: Mapping[str, Any], kind: str, source: Source, path: tuple[str | int, ...], text: str | None, *, required: bool
    ) -> Any:  # fmt: skip
        if text is None:  # the form had no such input
            return ABSENT
        plain = _lines(text)
        untouched = plain == ("" if kind == "secret" else _lines(_text(source.shown, kind)))
        if untouched and source.value is not ABSENT:
            if source.value != source.shown:
                self.kept.append(pointer(path))
            return source.value
        if kind in ("json", "group", "list", "map"):
            return self._json(plain, source, path)
        if plain == "":
            return "" if required and schema.get("type") == "string" else ABSENT
        return _scalar(schema, kind, plain)

    def _json(self, text: str, source: Source, path: tuple[str | int, ...]) -> Any:
        if not text.strip():
            return ABSENT
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            self.errors.append(FieldError(pointer(path), "It is no JSON.", "malformed_json"))
            return ABSENT
        return restored(given, source, path, self.kept)


def restored(given: Any, source: Source, path: tuple[str | int, ...], kept: list[str]) -> Any:
    """A value with its secrets, where it has the mask that was shown in the same place.

    A list's item gets back the secrets of the one item that was shown as it is, wherever that was; of several, those of the item in
    its place, in a list as long as before. An item that was changed gets none: they might be another item's.

    Args:
        given: what was filled in.
        source: what was shown, and what it stands for.
        path: where it is.
        kept: takes JSON Pointers to secrets that were put back.
    """
    if source.value is ABSENT:
        return given
    if given == source.shown:
        if source.value != source.shown:
            kept.append(pointer(path))
        return source.value
    if isinstance(given, Mapping) and isinstance(source.shown, Mapping) and isinstance(source.value, Mapping):
        return {name: restored(each, source.member(name), (*path, name), kept) for name, each in given.items()}
    if isinstance(given, list) and isinstance(source.shown, list) and isinstance(source.value, list):
        return [_item(each, number, given, source, (*path, number), kept=kept) for number, each in enumerate(given)]
    return given


def _item(
    item: Any, number: int, given: list[Any], source: Source, path: tuple[str | int, ...], *, kept: list[str]
) -> Any:
    same = [each for each, shown in enumerate(source.shown) if shown == item]
    if len(same) > 1 and len(given) == len(source.shown) and number in same:
        same = [number]
    return restored(item, source.member(same[0]), path, kept) if len(same) == 1 else item


def moved(value: Any, source: Source, kept: Sequence[str]) -> list[FieldError]:
    """What speaks against keeping secrets: a value that names a host which it did not name before would carry them there.

    Args:
        value: with its secrets.
        source: what there was.
        kept: JSON Pointers to secrets that the user who changes it has not seen.
    """
    known = set(_hosts(source.value))
    elsewhere = kept and any(host not in known for host in _hosts(value))
    return [FieldError(place, _ELSEWHERE, "masked_secret") for place in kept] if elsewhere else []


def with_errors(form: Input, errors: Sequence[FieldError]) -> list[FieldError]:
    """Put errors to their inputs; returns those that belong to none."""
    by_pointer = {each.pointer: each for each in form.walk() if each.pointer}
    lost = []
    for error in errors:
        place = error.pointer
        while place and place not in by_pointer:
            place = place.rpartition("/")[0]
        if place:
            by_pointer[place].error = f"{by_pointer[place].error} {error.detail}".strip()
        else:
            lost.append(error)
    return lost


_KINDS = {
    "object": "group", "array": "list", "string": "text", "integer": "number", "number": "number",
}  # fmt: skip

_TYPES: Mapping[str, tuple[type, ...]] = {
    "group": (Mapping,), "map": (Mapping,), "list": (list, tuple), "text": (str,), "number": (int, float),
}  # fmt: skip


def _fits(kind: str, shown: Any) -> bool:
    return shown is ABSENT or shown is None or kind not in _TYPES or (
        isinstance(shown, _TYPES[kind]) and not isinstance(shown, bool)
    )  # fmt: skip


def _part(value: Any, name: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, ABSENT)
    if isinstance(value, list) and isinstance(name, int) and name < len(value):
        return value[name]
    return ABSENT


def _choices(schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [True, False])
    default = f"default ({_text(schema['default'], 'choice')})" if schema.get("default") is not None else "none"
    return [("", default), *((_text(each, "choice"), _text(each, "choice")) for each in values)]


def _text(value: Any, kind: str) -> str:
    """What an input has for a value."""
    if value is ABSENT or (value is None and kind != "json"):
        return ""
    if isinstance(value, str) and kind != "json":
        return value
    return json.dumps(value, ensure_ascii=False, indent=2 if kind == "json" else None)


def _lines(text: str) -> str:
    """Line ends as they are compared: browsers send their own."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _scalar(schema: Mapping[str, Any], kind: str, text: str) -> Any:
    if kind == "choice":
        values = schema.get("enum", [schema["const"]] if "const" in schema else [True, False])
        return next((each for each in values if _text(each, "choice") == text), text)
    if kind != "number":
        return text
    for read in (int, float) if schema.get("type") != "integer" else (int,):
        try:
            number = read(text)
        except ValueError:
            continue
        return number if abs(number) < 1e308 else text  # no infinity, no NaN: the schema refuses the text
    return text


def _hosts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _hosts(name)
            yield from _hosts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _hosts(each)
    elif isinstance(value, str):
        for authority in _AUTHORITY.findall(value):
            yield authority.rpartition("@")[2].lower()
