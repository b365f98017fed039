"""What the gateway takes as an HTTP request, beyond gunicorn's own checks; and for how long it reads one.

gunicorn's parser stays in charge of the syntax. This adds deadlines for head and body, the Host rules of RFC 9112 (3.2),
headers that may not be repeated, a body that is known to be cut off, and the draining of a body that no view has read.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from gunicorn import util
from gunicorn.http import body, errors, message, parser, unreader, wsgi

from dispatch.gateway.http.problems import Problem, plain
from dispatch.gateway.server import closing, pacing, protocol_errors
from dispatch.telemetry import metrics

Header = tuple[str, str]

#: A second value of these could only be chosen from or joined, and either way authorise something else than was meant.
_SINGLE = frozenset({"AUTHORIZATION", "ORIGIN"})

HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::\d{0,5})?")

STREAM = "text/event-stream"

_STEP = 65_536  #: bytes of one read of a body that is discarded

#: Chunks of a body: so many whatever they have, and one more for so many bytes. Each costs some µs, however few bytes it has.
CHUNKS, CHUNK_BYTES = 2_000, 32

#: Seconds after which a body must have arrived at its least rate.
PATIENCE = 5.0

#: Sockets of the connections that wait for the first byte of a request; the one that has waited longest first.
IDLE: dict[Any, None] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much of a request is read."""

    head: float = 5.0  #: seconds from the first byte of a request to the end of its headers
    head_bytes: int = 32_768  #: bytes of the headers, and of trailers
    body: float = 10.0  #: seconds from there to the end of its body
    body_rate: float = 0.0  #: bytes a second that the body arrives with on average, after `PATIENCE`; 0: any
    idle: float | None = None  #: seconds that a connection may be open without a request
    write: float | None = None  #: seconds a client has to take each part of a response
    drain: float = 2.0  #: seconds for the rest of a body that no view reads
    drain_bytes: int = 8_388_608  #: bytes of that rest


#: gunicorn's, which makes a response and the environment of its request.
_create = wsgi.create


class Expired(Exception):
    """The client sends too slowly: stop reading."""


class TimedUnreader(unreader.SocketUnreader):  # type: ignore[misc]
    """Reads of a connection that end at a deadline."""

    limits = Limits()
    paced = False  #: the request that is read next has had its turn already
    trusted: bool | None = None  #: whether the peer may set headers of a proxy; None: not asked yet
    environ: dict[str, Any] | None = None  #: what requests of the connection have in common; None: not made yet

    _end: float | None = None  # `time.monotonic` seconds
    _from_first_byte: float | None = None  # seconds
    _rate = 0.0  # bytes a second
    _began = 0.0  # `time.monotonic` seconds
    _received = 0  # bytes since then
    _in_parts = False  # one read brings a few bytes of a long text

    @property
    def has_more(self) -> bool:
        """Whether bytes have been read beyond the last request."""
        return bool(self.buf.tell())

    def limit(
        self, seconds: float, *, when_it_begins: bool = False, rate: float = 0.0, in_parts: bool | None = None
    ) -> None:
        """Set the deadline of the following reads.

        Args:
            seconds: from now.
            when_it_begins: from the next byte on, if none was read ahead: the connection may be idle until then.
            rate: bytes a second that must arrive on average, after `PATIENCE`; 0: any.
            in_parts: whether other requests pass after each read; None: as before.
        """
        if in_parts is not None:
            self._in_parts = in_parts
        idle = when_it_begins and not self.buf.getvalue()
        self._began, self._received, self._rate = time.monotonic(), 0, rate
        self._from_first_byte = seconds if idle else None
        self._end = None if idle else self._began + seconds
        if idle:
            self.sock.settimeout(self.limits.idle)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes; raises Expired, or TimeoutError on an idle connection."""
        if self._end is None:
            return self._first(size_hint)
        left = self._deadline(self._end) - time.monotonic()
        if left <= 0:
            raise Expired
        self.sock.settimeout(left)
        try:
            data: bytes = super().chunk(size_hint)
        except TimeoutError as exc:
            raise Expired from exc
        finally:
            self.sock.settimeout(self.limits.write)
        self._received += len(data)
        if self._in_parts:  # bytes that are there are read without a wait, for as long as a client sends fast enough
            pacing.give_way()
        return data

    def _first(self, size_hint: int | None) -> bytes:
        """Bytes that may be a long time in coming."""
        IDLE[self.sock] = None
        try:
            data: bytes = super().chunk(size_hint)
        finally:
            IDLE.pop(self.sock, None)
        self.sock.settimeout(self.limits.write)
        if self._from_first_byte is not None:
            self.limit(self._from_first_byte)
        return data

    def _deadline(self, end: float) -> float:
        return min(end, self._began + PATIENCE + self._received / self._rate) if self._rate else end


class Closable(Protocol):
    """A request whose connection can be ended."""

    unreader: TimedUnreader

    def force_close(self) -> None:
        """End the connection after the response."""


class DrainableBody(body.Body):  # type: ignore[misc]
    """A request body whose end is certain, and which can be drained.

    Args:
        reader: gunicorn's, of a body with a length or in chunks.
        request: closes the connection where the next request could not be found.
        limits: of draining.
    """

    failed: bool  # set by gunicorn: where the next request begins is unknown

    def __init__(self, reader: Any, request: Closable, limits: Limits) -> None:
        super().__init__(reader)
        self._request, self._limits = request, limits
        self._missing: int | None = reader.length if isinstance(reader, body.LengthReader) else None
        if isinstance(reader, body.ChunkedReader):
            reader.parser = _few(reader.parser)

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
            metrics.HTTP_CUT.inc("body")
            raise Problem(plain(408), _too_slow(self._limits)) from exc
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

    @property
    def waits(self) -> bool:
        """Whether it asks for a response that may take its time: a long poll (RFC 7240, 4.3) or an event stream."""
        return any(name == "PREFER" or (name == "ACCEPT" and STREAM in value) for name, value in self.headers)

    def parse(self, unreader: TimedUnreader) -> bytes:
        """Read and check the head."""
        self.max_buffer_headers = self.limits.head_bytes  # gunicorn's own: all fields of the greatest length
        unreader.limit(self.limits.head, when_it_begins=True, in_parts=False)
        try:
            rest: bytes = super().parse(unreader)
        except Expired as exc:
            metrics.HTTP_CUT.inc("head")
            with contextlib.suppress(OSError):  # the client reads no response either
                protocol_errors.refuse(unreader.sock, 408)
            raise errors.NoMoreData from exc
        except TimeoutError as exc:
            raise errors.NoMoreData from exc  # it was idle for too long
        _check_host(self.uri, [value for name, value in self.headers if name == "HOST"], self.version)
        self.headers = _combined(self.headers)
        if any("close" in _tokens(value) for name, value in self.headers if name == "CONNECTION"):
            self.force_close()
        return rest

    def _peer_is_trusted_proxy(self) -> bool:
        """As gunicorn's, which reads the peer's address for each request; here for each connection."""
        if self.unreader.trusted is None:
            self.unreader.trusted = bool(super()._peer_is_trusted_proxy())
        return self.unreader.trusted

    def set_body_reader(self) -> None:
        """Choose how the body is read."""
        super().set_body_reader()
        reader = self.body.reader
        self.unreader.limit(
            self.limits.body, rate=self.limits.body_rate, in_parts=isinstance(reader, body.ChunkedReader)
        )
        self.body = DrainableBody(reader, self, self.limits)


class WholeResponse(wsgi.Response):  # type: ignore[misc]
    """A response that is one piece leaves in one write: gunicorn writes head and body apart."""

    headers_sent: bool
    sent: int

    def write(self, arg: bytes) -> None:
        """As gunicorn's."""
        if self.headers_sent or self.chunked or self.upgrade or self._omits_body or len(arg) != self.response_length:
            super().write(arg)
            return
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}",
            f"Server: {self.version}",
            f"Date: {date()}",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}",
            *[f"{name}: {value}" for name, value in self.headers],
            "\r\n",
        ]
        self.headers_sent, self.sent = True, len(arg)
        util.write(self.sock, "\r\n".join(lines).encode("latin-1") + arg)


def date() -> str:
    """The current time for a response's head."""
    return _date(int(time.time()))


@functools.lru_cache(2)
def _date(seconds: int) -> str:
    """As gunicorn's, which makes it for each response; of this second, and of the one before."""
    return str(util.http_date(seconds))


def install(limits: Limits) -> None:
    """Have gunicorn read requests, and write responses, with these classes; there is no setting for it.

    Args:
        limits: of every request.
    """
    StrictRequest.limits = TimedUnreader.limits = limits
    parser.SocketUnreader = TimedUnreader
    parser.RequestParser.mesg_class = StrictRequest
    wsgi.create = functools.partial(_create, response_class=WholeResponse)


def _few(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts of a body in chunks, while there are few for their bytes."""
    left = CHUNKS * CHUNK_BYTES
    for part in parts:
        left += len(part) - CHUNK_BYTES
        if left < 0:
            raise errors.InvalidChunkSize(b"too many chunks")
        yield part


def _check_host(target: str, hosts: Sequence[str], version: tuple[int, int]) -> None:
    """RFC 9112, 3.2: one Host, and in absolute-form (3.2.2) that of the target."""
    if not hosts and version >= (1, 1):
        raise errors.InvalidHeader("HOST")
    if not all(HOST.fullmatch(host) for host in hosts):
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
    if len({name for name, _ in headers}) == len(headers):
        return headers
    counts = collections.Counter(name for name, _ in headers)
    if any(counts[name] > 1 for name in _SINGLE):
        raise errors.InvalidHeader("repeated")
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return [(name, ", ".join(several)) for name, several in values.items()]


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def _too_slow(limits: Limits) -> str:
    least = f", or {limits.body_rate:g} bytes a second of it after {PATIENCE:g} s" if limits.body_rate else ""
    return f"The body did not arrive within {limits.body:g} s{least}."


def _cut_off() -> Problem:
    return Problem(
        "malformed-json", "The body could not be read: it ended early, or its chunks are malformed or too many."
    )
