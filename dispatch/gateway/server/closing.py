"""Closing a connection so that the client can read the response.

The kernel answers bytes that arrive at a closed socket with a reset, and a reset discards what the client has not read
yet. So the gateway ends its own half, discards what still arrives for a while, and closes then.
"""

from __future__ import annotations

import contextlib
import socket
import time

from gunicorn import util

from dispatch.gateway.server import pacing

#: Seconds and bytes for which a client may go on sending after its response.
LONGEST, MOST = 2.0, 16_777_216

#: Seconds without a byte after which a client counts as having sent everything.
QUIET = 0.5

_STEP = 65_536  #: bytes of one read

#: Reads of what has arrived already.
_READS = 16


def linger(connection: socket.socket) -> None:
    """End the gateway's half and discard what arrives; blocks the thread of the request.

    Args:
        connection: after the response was written; stays open for `close`.
    """
    end, left = time.monotonic() + LONGEST, MOST
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (remaining := end - time.monotonic()) > 0:
            connection.settimeout(min(remaining, QUIET))
            data = connection.recv(_STEP)
            if not data:
                return
            left -= len(data)
            pacing.give_way()  # a fast client's bytes are always there, and reading them never waits


def close(connection: socket.socket) -> None:
    """Close without waiting; discards what has arrived.

    gunicorn's own function waits two seconds for a client that keeps its half open, in the thread that accepts and
    dispatches all connections.
    """
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
        for _ in range(_READS):
            if not connection.recv(_STEP):
                break
    util.close(connection)


def install() -> None:
    """Patch gunicorn's `close_graceful`; there is no setting for it."""
    util.close_graceful = close
