"""The console's static files: its own, and the vendored ones; one version for all, which their URLs carry."""

from __future__ import annotations

import functools
import hashlib
import pathlib

import flask
from flask import Response

STATIC = pathlib.Path(__file__).parent / "static"

#: Seconds for which browsers keep a file: a year, since another version has another URL.
_KEPT = 31_536_000


@functools.cache
def version() -> str:
    """Changes with every file."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def add(blueprint: flask.Blueprint) -> None:
    """Serve the files; they have no secrets and need no session."""

    def static(name: str) -> Response:
        response = flask.send_from_directory(STATIC, name, max_age=_KEPT)
        response.headers["Cache-Control"] = f"public, max-age={_KEPT}, immutable"
        del response.headers["Date"]  # gunicorn adds its own
        return response

    blueprint.add_url_rule("/static/<path:name>", "static", static, methods=["GET"])
