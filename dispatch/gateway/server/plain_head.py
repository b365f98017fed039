"""The usual head of a request, read at once: what nearly all clients send, and what can be read in one way only. Pure.

Whatever is not plain is left to gunicorn's parser and the checks of `dispatch.gateway.server.wire`, from its first byte on, and so is
whatever these would refuse: a head is plain only if they take it, for the same request. A property test compares both.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from dispatch.gateway.server import wire

#: Bytes of a head at most: far below the limits of a line, a field, or all fields together.
LONGEST = 4_096

#: Fields at most.
MOST = 32

_LINE = re.compile(
    rb"(GET|POST|HEAD|PUT|DELETE|OPTIONS) (/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@/-]*)(?:\?([\x21\x22\x24-\x7e]*))? HTTP/1\.1\r\n"
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")

_LENGTH = re.compile(r"[0-9]{1,9}")

#: Fields that decide how a body is framed, or what a connection becomes.
_SPECIAL = frozenset({
    "TRANSFER_ENCODING", "TRAILER", "TE", "EXPECT", "UPGRADE", "HTTP2_SETTINGS", "PROXY_CONNECTION", "KEEP_ALIVE",
})  # fmt: skip

#: Fields that WSGI names otherwise than the rest.
_CGI = {"CONTENT_TYPE": "CONTENT_TYPE", "CONTENT_LENGTH": "CONTENT_LENGTH"}


@dataclasses.dataclass(slots=True)
class PlainHead:
    """A head."""

    method: str
    path: str
    query: str
    uri: str  #: path and query as they were sent
    fields: dict[str, str]  #: by their names in the WSGI environment
    length: int  #: bytes of the body
    closes: bool  #: the client asks for the end of the connection
    end: int  #: where the body begins


def read(data: bytes) -> PlainHead | None:
    """Read a head.

    Args:
        data: the connection from the first byte of a request on, as far as it has come.

    Returns:
        The head; None where it is not plain, or not whole.
    """
    end = data.find(b"\r\n\r\n", 0, LONGEST)
    line = _LINE.match(data) if end >= 0 else None
    if line is None or line.end() > end:
        return None
    fields = _fields(data[line.end() : end])
    if fields is None or not _is_host(fields.get("HTTP_HOST", "")):
        return None
    length, connection = fields.get("CONTENT_LENGTH", "0"), fields.get("HTTP_CONNECTION", "keep-alive").lower()
    if not _LENGTH.fullmatch(length) or connection not in {"keep-alive", "close"}:
        return None
    method, path, query = (part.decode("ascii") if part else "" for part in line.groups())
    uri = data[len(method) + 1 : line.end() - len(" HTTP/1.1\r\n")].decode("ascii")
    return PlainHead(method, path, query, uri, fields, int(length), connection == "close", end + 4)


def _fields(raw: bytes) -> dict[str, str] | None:
    """The fields; None where one is not plain, or comes twice."""
    text = raw.decode("latin-1")
    lines = text.split("\r\n")
    # Neither is a control character in it, a tab, CR and LF by themselves included, nor a byte beyond ASCII.
    if len(lines) > MOST or not (text.isascii() and "".join(lines).isprintable()):
        return None
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = _key(name)
        if not key or not colon or key in fields:
            return None
        fields[key] = value.strip(" ")
    return fields


@functools.lru_cache(256)
def _key(name: str) -> str:
    """The name of a field in the WSGI environment; empty for one that is not plain."""
    if not _NAME.fullmatch(name):
        return ""
    key = name.upper().replace("-", "_")
    return "" if key in _SPECIAL else _CGI.get(key, f"HTTP_{key}")


@functools.lru_cache(64)
def _is_host(value: str) -> bool:
    return wire.HOST.fullmatch(value) is not None
