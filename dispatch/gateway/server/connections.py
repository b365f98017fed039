"""The connections of a gateway process: how many there are, whose, and which wait for a request."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from dispatch.gateway.server import closing, protocol_errors, wire
from dispatch.telemetry import logger, metrics

log = logger(__name__)

PEER, FULL, IDLE, HEAD, BODY, WRITE, TLS = REASONS = ("peer", "full", "idle", "head", "body", "write", "tls")

#: Refused connections that are closed with patience at the same time; beyond, a client may miss the reason.
_LINGERING = 64

#: RST instead of FIN: the kernel must not keep what the client does not take.
_RESET = struct.pack("ii", 1, 0)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a process holds."""

    most: int = 4_096
    a_peer: int = 1_024  #: 0: as many as all together
    exempt: Sequence[Network] = ()  #: peers, such as reverse proxies, that have no limit of their own


def peer(address: Any) -> str:
    """By what the connections of one client are counted: an IPv4 address, the first half of an IPv6 one.

    Args:
        address: of a socket; a text for a Unix socket.
    """
    if not isinstance(address, tuple):
        return ""
    parsed = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class Connections:
    """Admits connections and keeps account of them.

    Args:
        limits: of this process.
        secure: clients speak TLS, so that a refusal before the handshake can't be answered.
    """

    def __init__(self, limits: ConnectionLimits, *, secure: bool = False) -> None:
        self._limits = limits
        self._secure = secure
        self._peers: collections.Counter[str] = collections.Counter()
        self._lingering = 0
        self.count = 0
        self.greenlets: set[Any] = set()  #: of the connections that are open

    @contextlib.contextmanager
    def admitted(self, client: socket.socket, address: Any, greenlet: Any) -> Iterator[bool]:
        """Admit a connection for as long as the context lasts, or answer and close it.

        Args:
            client: its socket.
            address: its peer's.
            greenlet: what serves it.

        Yields:
            Whether it is served.
        """
        who = peer(address)
        reason = self.refusal(who)
        if reason:
            self._refuse(client, reason)
            yield False
            return
        self.count += 1
        self._peers[who] += 1
        self.greenlets.add(greenlet)
        try:
            yield True
        finally:
            self.greenlets.discard(greenlet)
            self.count -= 1
            self._peers[who] -= 1
            if not self._peers[who]:
                del self._peers[who]

    def refusal(self, who: str) -> str:
        """Why a connection of a peer is not served now; empty when it is. Makes room by ending an idle one."""
        if self._limits.a_peer and self._peers[who] >= self._limits.a_peer and not self._exempt(who):
            return PEER
        if self.count >= self._limits.most and not self._end_longest_idle():
            return FULL
        return ""

    def end_idle(self) -> None:
        """End every connection that waits for a request."""
        while _end_longest_idle():
            pass

    def give_up(self, client: socket.socket) -> None:
        """End a connection whose client does not take the response."""
        metrics.HTTP_CUT.inc(WRITE)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def abandon(self, client: socket.socket, reason: OSError) -> None:
        """Close a connection whose TLS handshake failed or took too long."""
        metrics.HTTP_CUT.inc(TLS)
        log.debug("TLS handshake failed", reason=str(reason))
        closing.close(client)

    def _exempt(self, who: str) -> bool:
        if not who:
            return True
        network = ipaddress.ip_network(who)
        return any(network.version == one.version and network.subnet_of(one) for one in self._limits.exempt)  # type: ignore[arg-type]

    def _end_longest_idle(self) -> bool:
        ended = _end_longest_idle()
        if ended:
            metrics.HTTP_CUT.inc(IDLE)
        return ended

    def _refuse(self, client: socket.socket, reason: str) -> None:
        metrics.HTTP_CUT.inc(reason)
        if self._secure:
            closing.close(client)
            return
        patient = self._lingering < _LINGERING
        self._lingering += patient
        try:
            with contextlib.suppress(OSError):
                protocol_errors.refuse(client, 429 if reason == PEER else 503, linger=patient)
        finally:
            self._lingering -= patient
            closing.close(client)


def _end_longest_idle() -> bool:
    """End the connection that has waited for a request for longest; False when there is none."""
    for waiting in wire.IDLE:
        del wire.IDLE[waiting]
        plain = getattr(waiting, "_sock", waiting)  # gevent's own would raise where the connection is read
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_RD)  # the read ends as if the client had closed
        return True
    return False
