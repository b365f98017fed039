"""Requests with a plain head, and their responses, without gunicorn's parser, environment and response object.

`dispatch.gateway.server.plain_head` chooses them. The deadlines, the draining of bodies and the end of connections are those of
`dispatch.gateway.server.wire`. What the application does not carry out directly goes gunicorn's way from the request on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gunicorn import http
from gunicorn.http import body, errors, parser, wsgi
from gunicorn.http.errors import InvalidResponseHeader

from dispatch.gateway.http.validation import WholeInput
from dispatch.gateway.server import plain_head, wire
from dispatch.gateway.server.plain_head import PlainHead

#: Carries a request out, or returns None: environment and `start_response` of WSGI in, the parts of the body out.
Direct = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes] | None]


class PlainRequest:
    """A request with a plain head, with what gunicorn asks of its own.

    Args:
        head: its head.
        rest: what has come of the connection beyond it.
        unreader: of the connection.
        scheme: by which the client came.
        limits: of its body.
    """

    version = (1, 1)
    proxy_protocol_info: Any = None
    _expected_100_continue = False

    def __init__(
        self, head: PlainHead, rest: bytes, unreader: wire.TimedUnreader, scheme: str, limits: wire.Limits
    ) -> None:
        self.fields = head.fields
        self.method, self.path, self.query, self.uri = head.method, head.path, head.query, head.uri
        self.scheme = scheme
        self.unreader = unreader
        self.body: Any
        self._closes = head.closes
        length = head.length
        if len(rest) >= length:
            self.body = WholeInput(rest[:length])
            if len(rest) > length:
                unreader.unread(rest[length:])
        else:
            unreader.unread(rest)
            unreader.limit(limits.body, rate=limits.body_rate, in_parts=False)
            self.body = wire.DrainableBody(body.LengthReader(unreader, length), self, limits)

    @property
    def headers(self) -> list[wire.Header]:
        """The fields as gunicorn has them."""
        return [(key.removeprefix("HTTP_").replace("_", "-"), value) for key, value in self.fields.items()]

    @property
    def waits(self) -> bool:
        """As `wire.StrictRequest.waits`."""
        return "HTTP_PREFER" in self.fields or wire.STREAM in self.fields.get("HTTP_ACCEPT", "")

    def force_close(self) -> None:
        """End the connection after the response."""
        self._closes = True

    def should_close(self) -> bool:
        """Whether the connection ends after the response."""
        return self._closes

    def environ(self, base: dict[str, Any]) -> dict[str, Any]:
        """The environment of WSGI.

        Args:
            base: what all requests of the connection have in common.
        """
        return {
            **base,
            **self.fields,
            "wsgi.input": self.body,
            "wsgi.url_scheme": self.scheme,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "RAW_URI": self.uri,
        }


class MixedParser(parser.RequestParser):  # type: ignore[misc]
    """The requests of a connection, plain or not."""

    unreader: wire.TimedUnreader
    mesg: Any

    def __next__(self) -> Any:
        """The next request."""
        if self.mesg is not None and (self.mesg.should_close() or not self.finish_body()):
            raise StopIteration
        self.req_count += 1
        limits = self.mesg_class.limits
        self.unreader.limit(limits.head, when_it_begins=True, in_parts=False)
        try:
            data = self.unreader.read()
        except TimeoutError as exc:
            raise errors.NoMoreData from exc  # it was idle for too long
        if not data:
            raise StopIteration
        head = plain_head.read(data)
        scheme = "" if head is None else self._scheme(head.fields)
        if head is None or not scheme or head.end > limits.head_bytes:
            self.unreader.unread(data)
            self.mesg = self.mesg_class(self.cfg, self.unreader, self.source_addr, self.req_count)
        else:
            self.mesg = PlainRequest(head, data[head.end :], self.unreader, scheme, limits)
        return self.mesg

    def _scheme(self, fields: Mapping[str, str]) -> str:
        """By which scheme a client came; empty where gunicorn has to find out: whether the peer may set it, or what two fields mean."""
        trusted, marks = self.unreader.trusted, _marks(tuple(self.cfg.secure_scheme_headers.items()))
        given = [] if trusted is False else [name for name in marks if name in fields]
        if not given:
            return "https" if self.cfg.is_ssl else "http"
        if trusted is None or len(given) > 1:
            return ""
        return "https" if fields[given[0]] == marks[given[0]] else "http"

    def finish_body(self, *args: Any) -> bool:
        """As gunicorn's; nothing is left of a body that came with its head."""
        return self.mesg is None or isinstance(self.mesg.body, WholeInput) or bool(super().finish_body(*args))


@functools.lru_cache(1)
def _marks(headers: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """What marks a request that came to a proxy by https, by the names of fields in the WSGI environment."""
    return {f"HTTP_{name.replace('-', '_')}": value for name, value in headers}


def base_environ(sock: Any, peer: Any, listener: Any, cfg: Any) -> dict[str, Any]:
    """What the environments of a connection's plain requests have in common, as gunicorn makes it.

    Args:
        sock: of the connection.
        peer: its address; a text for a Unix socket.
        listener: the address that it came to; the same.
        cfg: gunicorn's settings.
    """
    made = {
        **wsgi.base_environ(cfg),
        "wsgi.multithread": True,
        "gunicorn.socket": sock,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
    }
    if isinstance(peer, tuple):
        made |= {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])}
    else:
        made["REMOTE_ADDR"] = peer
    if isinstance(listener, tuple):
        made |= {"SERVER_NAME": listener[0], "SERVER_PORT": str(listener[1])}
    return made


class _Head:
    """What an application gives to `start_response`."""

    __slots__ = ("headers", "status")

    def __call__(self, status: str, headers: list[wire.Header]) -> None:
        self.status, self.headers = status, headers


def respond(direct: Direct, request: PlainRequest, base: dict[str, Any]) -> bool:
    """Have the application carry out a request directly, and write its response.

    Args:
        direct: of the application.
        request: the request.
        base: see `base_environ`.

    Returns:
        Whether it was carried out.
    """
    head = _Head()
    parts = direct(request.environ(base), head)
    if parts is None:
        return False
    try:
        response = whole(head.status, head.headers, b"".join(parts), closes=request.should_close())
        _send(base["gunicorn.socket"], response)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return True


def _send(sock: Any, data: bytes) -> None:
    """As `sendall`, which asks for the size of the socket's buffer first."""
    sent = sock.send(data)
    if sent < len(data):
        sock.sendall(data[sent:])


def whole(status: str, headers: Iterable[wire.Header], content: bytes, *, closes: bool) -> bytes:
    """A response as gunicorn writes it.

    Args:
        status: code and phrase.
        headers: its own, with the length of its content.
        content: the body.
        closes: whether the connection ends after it.

    Raises:
        InvalidResponseHeader: a value would begin another line.
    """
    lines = [
        f"HTTP/1.1 {status}",
        f"Server: {wsgi.SERVER}",
        f"Date: {wire.date()}",
        "Connection: close" if closes else "Connection: keep-alive",
        *[f"{name}: {value}" for name, value in headers],
    ]
    if not "".join(lines).isprintable():
        raise InvalidResponseHeader("a control character")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1") + content


def install() -> None:
    """Have gunicorn read requests this way; there is no setting for it."""
    http.RequestParser = MixedParser
