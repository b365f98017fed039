"""What the gateway takes as an HTTP request, beyond gunicorn's own checks; and for how long it reads one.

gunicorn's parser stays in charge of the syntax. This adds deadlines for head and body, the Host rules of RFC 9112 (3.2),
headers that may not be repeated, a body that is known to be cut off, and the draining of a body that no view has read.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from gunicorn.http import body, errors, message, parser, unreader

from dispatch.gateway.http import closing, protocol_errors
from dispatch.gateway.http.problems import Problem, plain

Header = tuple[str, str]

#: A second value of these could only be chosen from or joined, and either way authorise something else than was meant.
_SINGLE = frozenset({"AUTHORIZATION", "ORIGIN"})

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::\d{0,5})?")

_STEP = 65_536  #: bytes of one read of a body that is discarded


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much of a request is read."""

    head: float = 5.0  #: seconds from the first byte of a request to the end of its headers
    body: float = 10.0  #: seconds from there to the end of its body
    drain: float = 2.0  #: seconds for the rest of a body that no view reads
    drain_bytes: int = 8_388_608  #: bytes of that rest


class Expired(Exception):
    """The client sends too slowly: stop reading."""


class TimedUnreader(unreader.SocketUnreader):  # type: ignore[misc]
    """Reads of a connection that end at a deadline."""

    _end: float | None = None  # `time.monotonic` seconds
    _from_first_byte: float | None = None  # seconds

    def limit(self, seconds: float, *, when_it_begins: bool = False) -> None:
        """Set the deadline of the following reads.

        Args:
            seconds: from now.
            when_it_begins: from the next byte on, if none was read ahead: the connection may be idle until then.
        """
        idle = when_it_begins and not self.buf.getvalue()
        self._from_first_byte = seconds if idle else None
        self._end = None if idle else time.monotonic() + seconds

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes; raises Expired."""
        if self._end is None:
            data: bytes = super().chunk(size_hint)
            if self._from_first_byte is not None:
                self.limit(self._from_first_byte)
            return data
        left = self._end - time.monotonic()
        if left <= 0:
            raise Expired
        self.sock.settimeout(left)
        try:
            data = super().chunk(size_hint)
        except TimeoutError as exc:
            raise Expired from exc
        finally:
            self.sock.settimeout(None)
        return data


class DrainableBody(body.Body):  # type: ignore[misc]
    """A request body whose end is certain, and which can be drained.

    Args:
        reader: gunicorn's, of a body with a length or in chunks.
        request: closes the connection where the next request could not be found.
        limits: of draining.
    """

    failed: bool  # set by gunicorn: where the next request begins is unknown

    def __init__(self, reader: Any, request: StrictRequest, limits: Limits) -> None:
        super().__init__(reader)
        self._request, self._limits = request, limits
        self._missing: int | None = reader.length if isinstance(reader, body.LengthReader) else None

    @property
    def unread(self) -> bool:
        """Whether a part of it may still be on the connection."""
        if self.failed:
            return True
        return self._missing > 0 if self._missing is not None else self.reader.parser is not None

    def drain(self) -> bool:
        """Discard the rest; without its end within the limits the connection closes after the response.

        Returns:
            Whether the end was read.
        """
        ended = not self.failed and (self._missing or 0) <= self._limits.drain_bytes and self._discard()
        if not ended:
            self.failed = True  # gunicorn reads no further either
            self._request.force_close()
        return ended

    def linger(self) -> None:
        """After the response: see `closing.linger`."""
        closing.linger(self._request.unreader.sock)

    def _discard(self) -> bool:
        self._request.unreader.limit(self._limits.drain)
        left = self._limits.drain_bytes
        try:
            while left >= 0:
                data = self.read(_STEP)
                if not data:
                    return True
                left -= len(data)
        except Problem:
            pass
        return False

    def _read_reader(self, size: int) -> bytes:
        """As gunicorn's, which takes the end of the connection for the end of a body with a length."""
        try:
            data: bytes = super()._read_reader(size)
        except Expired as exc:
            raise Problem(plain(408), f"The body did not arrive within {self._limits.body:g} s.") from exc
        except (errors.ParseException, OSError) as exc:
            raise _cut_off() from exc
        if self._missing is not None:
            if len(data) < min(size, self._missing):
                self.failed = True
                raise _cut_off()
            self._missing -= len(data)
        return data


class StrictRequest(message.Request):  # type: ignore[misc]
    """A request that can be read in one way only."""

    limits = Limits()

    headers: list[Header]
    body: Any
    unreader: TimedUnreader

    def parse(self, unreader: TimedUnreader) -> bytes:
        """Read and check the head."""
        unreader.limit(self.limits.head, when_it_begins=True)
        try:
            rest: bytes = super().parse(unreader)
        except Expired as exc:
            with contextlib.suppress(OSError):  # the client reads no response either
                protocol_errors.refuse(unreader.sock, 408)
            raise errors.NoMoreData from exc
        _check_host(self.uri, [value for name, value in self.headers if name == "HOST"], self.version)
        self.headers = _combined(self.headers)
        if any("close" in _tokens(value) for name, value in self.headers if name == "CONNECTION"):
            self.force_close()
        return rest

    def set_body_reader(self) -> None:
        """Choose how the body is read."""
        super().set_body_reader()
        self.unreader.limit(self.limits.body)
        self.body = DrainableBody(self.body.reader, self, self.limits)


def install(limits: Limits) -> None:
    """Have gunicorn read requests with these classes; there is no setting for it.

    Args:
        limits: of every request.
    """
    StrictRequest.limits = limits
    parser.SocketUnreader = TimedUnreader
    parser.RequestParser.mesg_class = StrictRequest


def _check_host(target: str, hosts: Sequence[str], version: tuple[int, int]) -> None:
    """RFC 9112, 3.2: one Host, and in absolute-form (3.2.2) that of the target."""
    if not hosts and version >= (1, 1):
        raise errors.InvalidHeader("HOST")
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise errors.InvalidHeader("HOST")
    if "://" in target and not target.startswith("/"):
        parts = urlsplit(target)
        authority = parts.netloc.lower()
        if parts.scheme not in {"http", "https"} or not authority or any(host.lower() != authority for host in hosts):
            raise errors.InvalidRequestLine("absolute-form")


def _combined(headers: list[Header]) -> list[Header]:
    """Join repeated headers with comma and space (RFC 9110, 5.3).

    gunicorn joins them with a comma alone, which makes two Idempotency-Keys look like one that has a comma. No key may
    have a space.
    """
    counts = collections.Counter(name for name, _ in headers)
    if len(counts) == len(headers):
        return headers
    if any(counts[name] > 1 for name in _SINGLE):
        raise errors.InvalidHeader("repeated")
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return [(name, ", ".join(several)) for name, several in values.items()]


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def _cut_off() -> Problem:
    return Problem("malformed-json", "The body could not be read: it ended early, or its chunks are malformed.")
