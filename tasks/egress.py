"""Where a request of a client's choosing may connect: to public addresses, and to those that the allow-list names.

The host is resolved once, its addresses are checked, and the connection goes to a checked address: a name server that
gives another address a moment later has no effect. TLS and the Host header keep the name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import httpx

from dispatch.errors import PermanentError

if TYPE_CHECKING:
    import httpcore

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Addresses of a name that are tried at most: each may take the whole timeout of connecting.
MAX_ADDRESSES = 4

#: Where clouds give credentials to the machine that asks: AWS and most others, AWS over IPv6, Alibaba, Oracle, Azure.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    )
)

#: RFC 6052: an IPv4 address in the last 32 bits, which a NAT64 gateway connects to.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def objection(address: Address) -> str | None:
    """Why no client may have a worker connect to an address.

    Args:
        address: as resolved.

    Returns:
        What kind of address it is; None for a public one.
    """
    inner = _embedded(address)
    if inner is not None:
        return objection(inner)
    kinds = {
        "metadata service": address in _METADATA,
        "unspecified": address.is_unspecified,
        "loopback": address.is_loopback,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "private": address.is_private or (address.version == 6 and address.is_site_local),
        "reserved": address.is_reserved or not address.is_global,
    }
    return next((kind for kind, applies in kinds.items() if applies), None)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: IPv4-mapped, 6to4, NAT64."""
    if address.version == 4:
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def permitted(host: str, port: int, found: Iterable[Address], is_listed: Callable[[str, int], bool]) -> list[Address]:
    """The addresses of a host that may be connected to.

    Args:
        host: as in the URL.
        port: as in the URL.
        found: its addresses.
        is_listed: whether the allow-list has an address and port.

    Returns:
        Those that are public or listed; empty when the host has no address.

    Raises:
        PermanentError: ``address-not-allowed``: none of its addresses is.
    """
    refused: list[str] = []
    passed: list[Address] = []
    for address in found:
        kind = objection(address)
        if kind is None or is_listed(str(address), port):
            passed.append(address)
        else:
            refused.append(f"{address} ({kind})")
    if refused and not passed:
        msg = (
            f"{host} has no address that http.request may connect to: {', '.join(refused[:MAX_ADDRESSES])} "
            f"at port {port} is neither public nor itself among DISPATCH_HTTP_ALLOWED_HOSTS"
        )
        raise PermanentError(msg, type="address-not-allowed")
    return passed


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, each once, in the system's order.

    Args:
        host: a name or an address, in any form that the C library reads.
        port: to connect to.

    Raises:
        httpx.ConnectError: it cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpx.ConnectError(str(exc)) from exc
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


class Transport(httpx.HTTPTransport):
    """Connects to permitted addresses only, without a proxy.

    Args:
        tls: for https.
        is_listed: whether the allow-list has an address and port.
    """

    def __init__(self, tls: ssl.SSLContext, is_listed: Callable[[str, int], bool]) -> None:
        import httpcore  # noqa: PLC0415 - it imports anyio, which only the children that send requests need

        super().__init__(verify=tls, trust_env=False)
        # httpx has no parameter for this. The call fails, rather than the check, if httpx renames its pool.
        self._pool.close()
        backend: Any = _CheckedBackend(
            httpcore.SyncBackend(), (httpcore.ConnectError, httpcore.ConnectTimeout), is_listed
        )
        self._pool = httpcore.ConnectionPool(ssl_context=tls, network_backend=backend)


class _CheckedBackend:
    """An httpcore network backend; httpcore starts TLS on its streams with the URL's host.

    Args:
        plain: opens connections.
        trouble: its errors after which another address may do.
        is_listed: whether the allow-list has an address and port.
    """

    def __init__(
        self,
        plain: httpcore.NetworkBackend,
        trouble: tuple[type[Exception], ...],
        is_listed: Callable[[str, int], bool],
    ) -> None:
        self._plain = plain
        self._trouble = trouble
        self._is_listed = is_listed

    def connect_tcp(self, host: str, port: int, **options: Any) -> httpcore.NetworkStream:
        addresses = permitted(host, port, resolve(host, port), self._is_listed)[:MAX_ADDRESSES]
        for address in addresses[:-1]:
            with contextlib.suppress(*self._trouble):
                return self._plain.connect_tcp(str(address), port, **options)
        if not addresses:
            raise httpx.ConnectError("the host has no address")
        return self._plain.connect_tcp(str(addresses[-1]), port, **options)
