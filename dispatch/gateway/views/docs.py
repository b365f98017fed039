"""``/openapi.json`` and ``/docs`` (offline: Swagger UI is part of this package)."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flask
from flask import Response

from dispatch.gateway.http.operations import Operation, ResponseSpec, operation

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


def serve_static(app: flask.Flask) -> None:
    """Serve the vendored files under ``/docs/``."""

    def static(name: str) -> Response:
        response = flask.send_from_directory(STATIC, name, max_age=86_400)
        del response.headers["Date"]  # gunicorn adds its own
        return response

    app.add_url_rule("/docs/<path:name>", "static", static, methods=["GET"])
