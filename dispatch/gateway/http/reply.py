"""A response whose body is there as a whole, without Flask; and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from flask import Response
from werkzeug.http import HTTP_STATUS_CODES

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

#: Statuses of responses without a body.
BODILESS = frozenset({204, 304})

#: What follows the version in a status line, as werkzeug has it.
STATUS_LINES = {status: f"{status} {phrase.upper()}" for status, phrase in HTTP_STATUS_CODES.items()}


class Reply:
    """A response of a view; a Flask `Response` has the same attributes, as far as the steps after a view use them.

    Args:
        body: whole.
        status: HTTP status.
        headers: in their order.
        media_type: of the body; empty without one.
    """

    __slots__ = ("body", "closers", "headers", "status_code")

    def __init__(
        self, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = ""
    ) -> None:
        self.body = body
        self.status_code = status
        self.headers: dict[str, str] = dict(headers) if headers else {}
        if media_type:
            self.headers["Content-Type"] = media_type
            self.headers["Content-Length"] = str(len(body))
        self.closers: list[Callable[[], None]] = []

    def call_on_close(self, closer: Callable[[], None]) -> None:
        """Have something called after the response was written."""
        self.closers.append(closer)

    def response(self) -> Response:
        """The same as Flask's."""
        made = WholeBody(self.body, self.status_code, self.headers)
        for closer in self.closers:
            made.call_on_close(closer)
        return made


class WholeBody(Response):
    """A response with its body as bytes: werkzeug's way to the server, without what none of ours needs.

    werkzeug rewrites a Location that is no URI, sends no body to HEAD, and closes what a response holds.
    """

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """As werkzeug's."""
        if environ["REQUEST_METHOD"] == "HEAD" or self._on_close or self.status_code in BODILESS:
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return self.response


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON response.

    Args:
        value: JSON-ready.
        status: HTTP status.
        headers: additional response headers.
    """
    try:
        body = orjson.dumps(value)
    except TypeError:  # a result may have a number of more than 64 bits, or half of a surrogate pair
        body = _encode(value).encode()
    return Reply(body, status, headers, "application/json")
