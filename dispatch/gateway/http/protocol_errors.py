"""What gunicorn itself refuses, before any of our code sees a request: as problem details, too (RFC 9457).

gunicorn answers with an HTML page that quotes what the client sent; this says the same as JSON, and quotes nothing.
"""

from __future__ import annotations

import http
import json
import secrets
from typing import Any

from gunicorn import util

from dispatch.gateway.http.problems import MEDIA_TYPE, Problem, plain

#: What a client can do about it, by status.
_DETAILS = {
    400: "The bytes sent are not a valid HTTP/1.1 request.",
    414: "The request line is too long: 8,190 bytes are read.",
    417: "Only `Expect: 100-continue` is understood.",
    431: "The header fields are too many or too long.",
    501: "The transfer coding is not supported.",
}


def answer(status: int) -> bytes:
    """A whole HTTP response for a request that could not be read.

    Args:
        status: HTTP status.
    """
    problem = Problem(plain(status), _DETAILS.get(status))
    request_id = secrets.token_hex(16)
    body = json.dumps(problem.body() | {"instance": "", "requestId": request_id, "traceId": ""}, separators=(",", ":"))
    head = [
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
        "Connection: close",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"X-Request-Id: {request_id}",
    ]
    return "\r\n".join([*head, "", body]).encode("latin-1")


def install() -> None:
    """Have gunicorn's workers answer so; there is no setting for it."""
    util.write_error = _write


def _write(sock: Any, status: int, reason: str, message: str) -> None:
    del reason, message  # the message quotes the client
    util.write_nonblock(sock, answer(status))
