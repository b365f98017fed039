"""``/ops/sign-in`` and ``/ops/sign-out``."""

from __future__ import annotations

import flask
from flask import Response

from dispatch.gateway.http import context
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops import door as doors
from dispatch.gateway.ops.door import ROOT, SIGN_IN, SIGN_OUT, Door
from dispatch.gateway.ops.frame import Frame


class SignInPages:
    """The pages.

    Args:
        frame: renders them.
        door: makes and ends sessions.
    """

    def __init__(self, frame: Frame, door: Door) -> None:
        self._frame, self._door = frame, door

    def add(self, blueprint: flask.Blueprint) -> None:
        """Add the pages to the console."""
        blueprint.add_url_rule("/sign-in", "sign_in", self.sign_in, methods=["GET", "POST"])
        blueprint.add_url_rule("/sign-out", "sign_out", self.sign_out, methods=["POST"])

    def sign_in(self) -> Response:
        """The form, and what it sends."""
        if not self._door.keyed:
            return flask.redirect(ROOT, 303)  # type: ignore[return-value]
        if flask.request.method == "GET":
            return self._form(flask.request.args.get("next", ""))
        flask.request.max_content_length = doors.MAX_FORM
        wanted = flask.request.form.get("next", "")
        context.current().operation = SIGN_IN
        try:
            self._door.sign_in(flask.request.form.get("key", "").strip())
        except Problem as problem:
            context.current().problem = problem.kind.slug
            return self._form(wanted, problem)
        context.current().audited = True
        return flask.redirect(doors.way_back(wanted), 303)  # type: ignore[return-value]

    def sign_out(self) -> Response:
        """End the session."""
        visitor = self._door.enter()
        request = context.current()
        request.operation, request.audited = SIGN_OUT, True
        self._door.sign_out(visitor)
        return flask.redirect(f"{ROOT}/sign-in", 303)  # type: ignore[return-value]

    def _form(self, wanted: str, problem: Problem | None = None) -> Response:
        status = problem.kind.status if problem else 200
        response = self._frame.page(
            "sign_in.html", status, token=self._door.entry(), next=doors.way_back(wanted), problem=problem
        )
        response.headers.update(problem.headers if problem else {})
        return response
