"""A response that precedes the end of its request's body.

The rest of the body is read before the response where that takes little; otherwise the response closes the connection.
Without either, the next request of a client that keeps connections open would meet a closed one.
"""

from __future__ import annotations

from flask import Response

from dispatch.gateway.http import context
from dispatch.gateway.http.reply import Reply
from dispatch.telemetry import metrics

DRAINED, CLOSED = OUTCOMES = ("drained", "closed")


def settle(response: Response | Reply) -> None:
    """Drain the request's body; runs after every request.

    Only gunicorn's bodies can be drained (`dispatch.gateway.server.wire.DrainableBody`), not those of other servers.
    """
    body = context.current().environ.get("wsgi.input")
    if getattr(body, "unread", False):
        drained = body.drain()  # type: ignore[union-attr]
        metrics.HTTP_UNREAD_BODIES.inc(DRAINED if drained else CLOSED)
        if not drained:
            response.call_on_close(body.linger)  # type: ignore[union-attr]
