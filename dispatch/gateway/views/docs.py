"""``/openapi.json``, ``/docs`` (offline: Swagger UI is part of this package) and ``/problems/{slug}``."""

from __future__ import annotations

import functools
import html
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flask
from flask import Response

from dispatch.gateway.contract import models
from dispatch.gateway.http import problems
from dispatch.gateway.http.context import json_response
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem, ProblemKind

STATIC = pathlib.Path(__file__).parents[1] / "static"

_CACHED = {"Cache-Control": "public, max-age=300"}

#: Swagger UI sets inline styles from its script; everything else must be same-origin, and framing is denied.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

_DOCS = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8"><title>Robot Dispatch API</title>
<link rel="icon" href="/docs/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui/swagger-ui.css">
<div id="ui"></div>
<script src="/docs/swagger-ui/swagger-ui-bundle.js"></script>
<script src="/docs/docs.js"></script>
</html>
"""

_PROBLEM = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8"><title>{title}</title>
<h1>{title}</h1>
<p><code>{slug}</code>, HTTP status {status}</p>
<h2>What happened</h2><p>{meaning}</p>
<h2>What to do</h2><p>{remedy}</p>
<p>All problems: {others}</p>
</html>
"""


class DocsViews:
    """Documentation of the API; no authentication."""

    def __init__(self) -> None:
        self._build: Callable[[], Mapping[str, Any]] = dict

    def describe(self, build: Callable[[], Mapping[str, Any]]) -> None:
        """Set the builder of the OpenAPI document: it needs every operation, these included, so it runs on first use."""
        self._build = build

    @functools.cached_property
    def _document(self) -> str:
        return json.dumps(self._build(), separators=(",", ":"))

    @operation(
        Operation(
            "GET", "/openapi.json", "getOpenApi", "About", "This document",
            (ResponseSpec(200, "OpenAPI 3.1.", dict[str, Any]),),
        )
    )  # fmt: skip
    def openapi(self) -> Response:
        """The OpenAPI document."""
        return Response(self._document, headers=_CACHED, mimetype="application/json")

    @operation(
        Operation(
            "GET", "/docs", "getDocs", "About", "This document as a web page",
            (ResponseSpec(200, "A page that loads nothing from other servers.", str, media_type="text/html"),),
        )
    )  # fmt: skip
    def docs(self) -> Response:
        """Swagger UI."""
        return Response(_DOCS, headers={**_CACHED, "Content-Security-Policy": _POLICY}, mimetype="text/html")

    @operation(
        Operation(
            "GET", "/problems/{slug}", "getProblem", "About", "Explain a problem type",
            (ResponseSpec(200, "The explanation; HTML for browsers.", models.ProblemPageModel),),
            problems=("not-found",),
        )
    )  # fmt: skip
    def problem(self, slug: str) -> Response:
        """One problem type, explained."""
        kind = problems.KINDS.get(slug)
        if kind is None:
            raise Problem("not-found", "There is no problem type with that slug.")
        best = flask.request.accept_mimetypes.best_match(["application/json", "text/html"], "application/json")
        more = {**_CACHED, "Vary": "Accept"}
        if best == "text/html":
            return Response(_page(kind), headers={**more, "Content-Security-Policy": _POLICY}, mimetype="text/html")
        page = models.ProblemPageModel(
            type=kind.type, title=kind.title, status=kind.status, meaning=kind.meaning, remedy=kind.remedy
        )
        return json_response(page.model_dump(by_alias=True), headers=more)


def serve_static(app: flask.Flask) -> None:
    """Serve the vendored files under ``/docs/``."""

    def static(name: str) -> Response:
        response = flask.send_from_directory(STATIC, name, max_age=86_400)
        del response.headers["Date"]  # gunicorn adds its own
        return response

    app.add_url_rule("/docs/<path:name>", "static", static, methods=["GET"])


def _page(kind: ProblemKind) -> str:
    others = ", ".join(f'<a href="{other.type}">{other.slug}</a>' for other in problems.KINDS.values())
    text = {name: html.escape(getattr(kind, name)) for name in ("slug", "title", "meaning", "remedy")}
    return _PROBLEM.format(status=kind.status, others=others, **text)
