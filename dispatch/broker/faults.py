"""What errors of AMQP connections mean: why RabbitMQ can't be used. The one place that knows its reply texts."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError

from dispatch.config import network
from dispatch.config.tls import BrokerAddress, Where
from dispatch.errors import Trouble

SERVER = "RabbitMQ"

FOREIGN = "something that does not speak AMQP answers at its port"

ALARM = "it has a resource alarm (memory or disk) and takes no messages"

#: Reasons by a reply's code and a part of its text; the first part that is found counts, and an empty one always is.
_REPLIES: dict[int, tuple[tuple[str, str], ...]] = {
    403: (
        ("localhost", "it accepts this user from its own machine only"),
        ("Login", "it does not accept this user and password"),
        ("", "its user lacks a right"),
    ),
    404: (("queue", "a queue is missing: run `topology apply`"), ("", "an exchange is missing: run `topology apply`")),
    406: (("", "a queue or an exchange has other arguments than the map: see `topology plan`"),),
    530: (
        ("limit", "its limit of connections is reached"),
        ("not found", "its vhost does not exist"),
        ("refused", "its user has no access to the vhost"),
        ("down", "its vhost is down"),
        ("", "it does not allow this connection"),
    ),
    320: (("", "it closed the connection: it shuts down, or an operator did"),),
    541: (("", "it failed inside"),),
}

#: Reasons that leave open who answered: there the port itself is asked.
_VAGUE = (network.CLOSED, network.SILENT, "")

#: Seconds for asking a port, and for which the answer holds.
_ASK, _HOLDS = 0.5, 10.0

#: Eight bytes: RabbitMQ answers as many that it does not understand with the version that it would speak. A line, at which
#: servers of text protocols answer.
_GREETING = b"PING\r\n\r\n"

_asked: dict[tuple[str, int], tuple[float, bool]] = {}


def trouble(where: Where, exc: BaseException | None) -> Trouble:
    """Why RabbitMQ can't be used.

    Args:
        where: what was connected to. Of one URL without TLS, the port may be asked once more for what it speaks.
        exc: what a connection or a channel raised.
    """
    if isinstance(known := getattr(exc, "trouble", None), Trouble):
        return known
    urls = where.urls if isinstance(where, BrokerAddress) else where
    reason = _replied(exc) or network.failure(exc)
    if reason in _VAGUE and _foreign(urls):
        reason = FOREIGN
    return Trouble(
        SERVER, reason or type(exc).__name__, network.shown(urls), network.words(exc), refuses=_on_channel(exc)
    )


def alarm(where: Where) -> Trouble:
    """RabbitMQ has a resource alarm, and blocks every connection that publishes; py-amqp does not hand on which one.

    Args:
        where: what was connected to.
    """
    urls = where.urls if isinstance(where, BrokerAddress) else where
    return Trouble(SERVER, ALARM, network.shown(urls), refuses=True)


def _replied(exc: BaseException | None) -> str:
    for cause in network.causes(exc):
        code, text = getattr(cause, "reply_code", None), str(cause)
        if isinstance(cause, AMQPError) and code in _REPLIES:
            return next(reason for part, reason in _REPLIES[code] if part in text)
    return ""


def _on_channel(exc: BaseException | None) -> bool:
    codes = [getattr(cause, "reply_code", None) for cause in network.causes(exc)]
    return bool({404, 406}.intersection(codes))


def _foreign(url: str) -> bool:
    """Whether what answers at the port of a URL speaks another protocol; False where that can't be known."""
    if ";" in url or not url.startswith("amqp://"):
        return False
    parts = urlsplit(url)
    place = (parts.hostname or "localhost", parts.port or 5_672)
    until, found = _asked.get(place, (0.0, False))
    if time.monotonic() >= until:
        found = _speaks_another(place)
        _asked[place] = (time.monotonic() + _HOLDS, found)
    return found


def _speaks_another(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, _ASK) as sock:
            sock.settimeout(_ASK)
            sock.sendall(_GREETING)
            answer = sock.recv(16)
    except OSError:
        return False
    return bool(answer) and not answer.startswith(b"AMQP")
