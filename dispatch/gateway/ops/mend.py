"""``/ops/dead-letters/<id>/mend``: send a dead letter again with another payload."""

from __future__ import annotations

import json
from typing import Any

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.http import context, heavy
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.ops import letters, payload_input
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import Rule
from dispatch.gateway.ops.payload_input import PayloadInput
from dispatch.gateway.parts import Parts
from dispatch.gateway.views import dead_letters, mending
from dispatch.protocol.mending import Mend
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record
from dispatch.protocol.sealing import SealError, Sealing
from dispatch.tasktypes.registry import TaskType

_PAYLOAD = "/payload"


class MendPage:
    """The form, which is the question, and the act.

    Args:
        frame: renders the page.
        parts: of the application.
    """

    rule = Rule(
        "dead_letters_mend",
        "/dead-letters/<task_id>/mend",
        api_keys.DEADLETTERS_WRITE,
        methods=("GET", "POST"),
        verb="redriveDeadLetter",
    )

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._parts = frame, parts

    def view(self, task_id: str) -> Response:
        """Show the form, or send."""
        record = letters.find(self._parts, task_id)
        task_type = mending.permitted(self._parts.types, record.type, context.principal().scopes)
        payload = PayloadInput(task_type, _payload(record.message, self._parts.settings.sealing))
        if flask.request.method == "GET":
            return self._page(record, payload, None)
        given = flask.request.form.to_dict()
        if (grown := payload_input.grown(given)) is not None:
            context.current().audited = False  # nothing is sent
            return self._page(record, payload, grown)
        try:
            self._send(task_id, task_type, payload, given)
        except Problem as problem:
            if not problem.errors:
                raise
            context.current().problem = problem.kind.slug
            errors = payload_input.below(problem.errors, _PAYLOAD)
            return self._page(record, payload, given, errors, problem.kind.status)
        return self._frame.done("The task is on its way again, with the mended payload.", letters.after(task_id))

    def _send(self, task_id: str, task_type: TaskType, payload: PayloadInput, given: dict[str, str]) -> None:
        value, errors = payload.read(given)
        if errors:
            raise Problem(
                "validation-error", errors=[FieldError(_PAYLOAD + e.pointer, e.detail, e.code) for e in errors]
            )
        mend = Mend(value)
        mend = heavy.run(len(json.dumps(value)), lambda: mending.checked(mend, task_type))
        request = context.current()
        if payload.kept:
            request.details = {**request.details, "secretsKept": payload.kept}
        dead_letters.redrive_one(self._parts.dead_letters, task_id, mend)

    def _page(
        self,
        record: Record,
        payload: PayloadInput,
        given: dict[str, str] | None,
        errors: list[FieldError] | None = None,
        status: int = 200,
    ) -> Response:
        path = f"{letters.PATH}/{record.task_id}"
        shown = payload.shown(given, errors or [])
        return self._frame.page("mend.html", status, record=record, path=path, input=shown, failed=bool(errors))


def _payload(message: Message | None, sealing: Sealing) -> Any:
    """What the client sent; an empty object of a body that nothing can read: it is then given anew."""
    try:
        (payload, *_), *_ = json.loads(sealing.open(message).body) if message else ([{}],)
    except (ValueError, LookupError, TypeError, RecursionError, SealError):
        return {}
    return payload
