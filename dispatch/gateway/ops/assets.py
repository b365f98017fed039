"""The console's static files: its own, and the vendored ones; one version for all, which their URLs carry.

They are compressed. Pages are not: the length of a compressed page that has a secret and a text of a stranger's choice gives the secret away.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import mimetypes
import pathlib
from collections.abc import Mapping

import flask
from flask import Response

from dispatch.gateway.http.problems import Problem

STATIC = pathlib.Path(__file__).parent / "static"

#: Seconds for which browsers keep a file: a year, since another version has another URL.
_KEPT = 31_536_000


@functools.cache
def _files() -> Mapping[str, bytes]:
    return {str(path.relative_to(STATIC)): path.read_bytes() for path in sorted(STATIC.rglob("*")) if path.is_file()}


@functools.cache
def _packed(name: str) -> bytes:
    return gzip.compress(_files()[name], mtime=0)


@functools.cache
def version() -> str:
    """Changes with every file."""
    digest = hashlib.sha256()
    for content in _files().values():
        digest.update(content)
    return digest.hexdigest()[:12]


def add(blueprint: flask.Blueprint) -> None:
    """Serve the files; they have no secrets and need no session."""

    def static(name: str) -> Response:
        if name not in _files():
            raise Problem("not-found", "The console has no such file.")
        packed = flask.request.accept_encodings.quality("gzip") > 0
        response = Response(_packed(name) if packed else _files()[name], mimetype=mimetypes.guess_type(name)[0])
        response.headers["Cache-Control"] = f"public, max-age={_KEPT}, immutable"
        response.headers["Vary"] = "Accept-Encoding"
        if packed:
            response.content_encoding = "gzip"
        return response

    blueprint.add_url_rule("/static/<path:name>", "static", static, methods=["GET"])
