"""The allow-list of ``http.request``: check its entries, and give each its one form. Pure.

::

    api.example:8443    a host at a port
    api.example         a host at the default port of the URL's scheme: 80 or 443
    192.0.2.7:80        an IPv4 address
    [2001:db8::7]:80    an IPv6 address
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable

_ENTRY = re.compile(r"(?P<host>\[[^\[\]]*]|[^\[\]:]*)(?P<colon>:(?P<port>.*))?", re.DOTALL)
_PORT = re.compile(r"0*[1-9][0-9]{0,4}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)

#: The last part of a host that C libraries and browsers read as an IPv4 address: ``127.1``, ``2130706433``, ``0x7f000001``.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.ASCII)


def canonical(entries: Iterable[str]) -> tuple[str, ...]:
    """The entries in their one form, in which a request's host and port are looked up.

    Args:
        entries: as the operator wrote them.

    Returns:
        Lower case, IPv6 addresses shortened and in brackets, ports without zeros in front.

    Raises:
        ValueError: which entry is wrong and why, without its text: a URL may have a password.
    """
    return tuple(_entry(number, text) for number, text in enumerate(entries, 1))


def contain(entries: Collection[str], host: str, port: int, default: int) -> bool:
    """Whether entries name a host at a port.

    Args:
        entries: from `canonical`.
        host: a name, or an address without brackets.
        port: where the request goes.
        default: the port of the URL's scheme, which an entry without a port means.
    """
    name = _form(host)
    return f"{name}:{port}" in entries or (port == default and name in entries)


def _form(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower()
    return f"[{address.compressed}]" if address.version == 6 else address.compressed


def _entry(number: int, text: str) -> str:
    if "/" in text or "@" in text:
        raise ValueError(f"entry {number} is a URL: write host:port")
    match = _ENTRY.fullmatch(text)
    if match is None or (match["port"] and ":" in match["port"]):
        raise ValueError(f"entry {number} must be host:port, an IPv6 address in brackets: [::1]:80")
    host = _host(match["host"])
    if host is None:
        raise ValueError(
            f"entry {number} has no valid host: write a name in ASCII (xn--…), an IPv4 address a.b.c.d "
            "or an IPv6 address in brackets"
        )
    if not match["colon"]:
        return host
    if not _PORT.fullmatch(match["port"]) or int(match["port"]) > 65_535:
        raise ValueError(f"entry {number}: the port must be a number from 1 to 65535")
    return f"{host}:{int(match['port'])}"


def _host(text: str) -> str | None:
    """The host in its one form; None when it is none."""
    literal = text.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        labels = text.lower().split(".")
        is_name = len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not _NUMERIC.fullmatch(labels[-1])
        return text.lower() if is_name else None
    in_brackets = literal != text
    return _form(literal) if in_brackets is (address.version == 6) and "%" not in literal else None
