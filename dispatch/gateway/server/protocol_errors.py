"""Requests that gunicorn rejects before the application runs: problem details for them as well (RFC 9457).

gunicorn responds with an HTML page that quotes the request; this responds with JSON and quotes nothing.
"""

from __future__ import annotations

import http
import json
import secrets
from typing import Any

from gunicorn import util

from dispatch.gateway.http.problems import MEDIA_TYPE, Problem, plain
from dispatch.gateway.server import closing
from dispatch.telemetry import metrics

#: `detail` by status.
_DETAILS = {
    400: "The bytes sent are not a valid HTTP/1.1 request.",
    408: "The request line and the header fields did not arrive in time.",
    414: "The request line is too long: 8,190 bytes are read.",
    417: "Only `Expect: 100-continue` is understood.",
    429: "Too many connections from this address.",
    431: "The header fields are too many or too long.",
    501: "The transfer coding is not supported.",
    503: "The gateway has as many connections as it can hold.",
}


#: Seconds after which a client whose connection was refused may try again.
_RETRY_AFTER = 5

#: Statuses with a label value of their own in metrics.
STATUSES = tuple(str(status) for status in sorted({*_DETAILS, 403, 500}))


def response(status: int) -> bytes:
    """A complete HTTP response to a request that could not be parsed.

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
        *([f"Retry-After: {_RETRY_AFTER}"] if status in {429, 503} else []),
    ]
    return "\r\n".join([*head, "", body]).encode("latin-1")


def install() -> None:
    """Patch gunicorn's `write_error`; there is no setting for it."""
    util.write_error = _write


def refuse(sock: Any, status: int, *, linger: bool = True) -> None:
    """Respond and end the gateway's half of the connection.

    Args:
        sock: of the client.
        status: HTTP status.
        linger: whether to wait until the client has read it.
    """
    metrics.HTTP_REJECTED.inc(metrics.one_of(str(status), STATUSES))
    util.write_nonblock(sock, response(status))
    if linger:
        closing.linger(sock)


def _write(sock: Any, status: int, reason: str, message: str) -> None:
    del reason, message  # the message quotes the request
    refuse(sock, status)
