"""Which connections a process admits."""

import contextlib
import ipaddress
import socket

import pytest

from dispatch.gateway.server import wire
from dispatch.gateway.server.connections import ConnectionLimits, Connections, peer
from support.cases import each


@each(
    ("address", "found"),
    [
        (("10.1.2.3", 5), "10.1.2.3"),
        (("::ffff:10.1.2.3", 5, 0, 0), "10.1.2.3"),
        (("2001:db8:1:2:3::4", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (b"", ""),
    ],
)
def test_a_peer_is_an_address_or_half_of_one(address, found):
    assert peer(address) == found


@contextlib.contextmanager
def opened(connections, *addresses):
    """Connections from those addresses: for each whether it is admitted, and what it reads if not."""
    with contextlib.ExitStack() as stack:
        found = []
        for address in addresses:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            theirs.shutdown(socket.SHUT_WR)
            admitted = stack.enter_context(connections.admitted(ours, (address, 1), object()))
            found.append(True if admitted else theirs.recv(4_096))
        yield found


def test_one_peer_has_a_limit_and_proxies_have_none():
    limits = ConnectionLimits(most=10, a_peer=2, exempt=[ipaddress.ip_network("10.0.0.0/8")])
    connections = Connections(limits)
    with opened(connections, "1.1.1.1", "1.1.1.1", "1.1.1.1", "2.2.2.2", *["10.0.0.9"] * 4) as found:
        refused = found.pop(2)

        assert found == [True] * 7
        assert connections.count == 7
    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: " in refused
    assert connections.count == 0
    with opened(connections, "1.1.1.1") as found:
        assert found == [True]


@pytest.fixture
def idle():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.IDLE[ours] = None
        yield theirs
        wire.IDLE.pop(ours, None)


def test_a_full_process_ends_the_longest_idle_connection(idle):
    with opened(Connections(ConnectionLimits(most=1)), "1.1.1.1", "2.2.2.2", "3.3.3.3") as found:
        assert found[:2] == [True, True]
        assert found[2].startswith(b"HTTP/1.1 503 ")
    with pytest.raises(BrokenPipeError):
        idle.send(b"x")
