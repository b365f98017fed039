"""A payload that is filled in: by a form made from its type's schema, or as JSON; what is shown of one without its secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import flask

from dispatch.gateway.http import jsonbody
from dispatch.gateway.http.problems import FieldError
from dispatch.gateway.ops import schema_form
from dispatch.gateway.ops.schema_form import ABSENT, MOST_INPUTS, SchemaForm, Source
from dispatch.tasktypes import masking
from dispatch.tasktypes.registry import TaskType

#: Names of the input that has the whole as JSON, and of the buttons that add a row or change between the two.
JSON, ADD, SWITCH = "json", "add", "switch"


class PayloadInput:
    """The inputs of one payload.

    Args:
        task_type: its type.
        payload: what there is already; `schema_form.ABSENT` for nothing.
    """

    def __init__(self, task_type: TaskType, payload: Any = ABSENT) -> None:
        self._type = task_type
        shown = ABSENT if payload is ABSENT else masking.masked(task_type.payload, payload).value
        self._source = Source(shown, payload)
        self._form = SchemaForm(task_type.payload.model_json_schema(), self._source)
        whole = self._form.inputs()
        self.fits = whole.kind == "group" and sum(1 for _ in whole.walk()) <= MOST_INPUTS  #: whether a form can have it
        self.kept: list[str] = []  #: JSON Pointers to secrets that stay, after `read`

    def shown(self, given: Mapping[str, str] | None, errors: Sequence[FieldError] = ()) -> dict[str, Any]:
        """What the template needs.

        Args:
            given: what was filled in; None: nothing was.
            errors: of that.
        """
        as_json = not self.fits or self._as_json(given)
        if as_json:
            text = (given or {}).get(JSON)
            return {"json": self._text() if text is None else text, "form": None, "fits": self.fits, "errors": errors}
        form = self._form.inputs(given)
        lost = schema_form.with_errors(form, errors)
        return {"json": None, "form": form, "fits": True, "errors": lost}

    def read(self, given: Mapping[str, str]) -> tuple[Any, list[FieldError]]:
        """The payload that was filled in, secrets included; and what is wrong with it, before its type validates it."""
        self.kept = []
        if JSON in given:
            try:
                value = jsonbody.parse(given[JSON].encode())
            except jsonbody.MalformedJson as exc:
                return ABSENT, [FieldError("", f"The payload is no JSON: {exc}.", "malformed_json")]
            if not isinstance(value, dict):
                return ABSENT, [FieldError("", "The payload must be an object.", "object_type")]
            value, errors = schema_form.restored(value, self._source, (), self.kept), []
        else:
            form = SchemaForm(self._type.payload.model_json_schema(), self._source)
            value = form.value(given)
            self.kept, errors = form.kept, form.errors
        return value, errors or schema_form.moved(value, self._source, self.kept)

    def _as_json(self, given: Mapping[str, str] | None) -> bool:
        return JSON in given if given is not None else flask.request.args.get("as") == "json"

    def _text(self) -> str:
        value = {} if self._source.shown is ABSENT else self._source.shown
        return json.dumps(value, indent=2, ensure_ascii=False)


def grown(given: Mapping[str, str]) -> dict[str, str] | None:
    """What was filled in, with a row more, where that is what was asked for; None otherwise."""
    at = given.get(ADD)
    if at is None:
        return None
    rows = given.get(schema_form.ROWS + at, "0")
    more = str(int(rows) + 1) if rows.isascii() and rows.isdigit() and len(rows) < 4 else rows
    return {**given, schema_form.ROWS + at: more}


def below(errors: Sequence[FieldError], at: str) -> list[FieldError]:
    """Errors with pointers into a part of the body, as pointers into that part."""
    return [
        FieldError(each.pointer.removeprefix(at), each.detail, each.code)
        for each in errors
        if each.pointer == at or each.pointer.startswith(f"{at}/")
    ]
