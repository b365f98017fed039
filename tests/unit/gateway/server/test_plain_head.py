"""A head that is read at once means what gunicorn's parser and our checks of it take it for."""

import io
import socket

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidResponseHeader
from hypothesis import given
from hypothesis import strategies as st

from dispatch.gateway.http.validation import WholeInput
from dispatch.gateway.server import exchanges, plain_head, wire
from support.cases import each

PEER, LISTENER = ("127.0.0.1", 4711), ("127.0.0.1", 8000)
GET = b"GET /v1/tasks/a?b=c%20&d HTTP/1.1\r\nHost: x:80\r\n"
POST = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-Y: \r\n\r\nabc"


def by_gunicorn(data):
    """The request as gunicorn's parser and `wire` read it, and what is left; raises what they refuse it with."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        unreader = wire.TimedUnreader(ours)
        request = wire.StrictRequest(Config(), unreader, PEER)
        _, environ = wsgi.create(request, ours, PEER, LISTENER, Config())
        body = request.body.read()
        return request, environ, body, unreader.read()


def plain(data):
    """The same of a plain head."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        requests = exchanges.MixedParser(Config(), ours, PEER)
        requests.unreader = unreader = wire.TimedUnreader(ours)
        requests.mesg_class = wire.StrictRequest
        unreader.trusted = True
        request = next(requests)
        if not isinstance(request, exchanges.PlainRequest):
            return None
        environ = request.environ(exchanges.base_environ(ours, PEER, LISTENER, Config()))
        body = request.body.read()
        return request, environ, body, unreader.read()


def comparable(environ):
    others = {"wsgi.input", "wsgi.errors", "wsgi.early_hints", "gunicorn.socket", "wsgi.multithread"}
    return {name: value for name, value in environ.items() if name not in others}


def check_the_same(data):
    if plain(data) is None:
        return
    theirs, their_environ, their_body, their_rest = by_gunicorn(data)
    ours, environ, body, rest = plain(data)

    assert (their_body, their_rest) == (body, rest)
    assert comparable(their_environ) == comparable(environ)
    assert (theirs.method, theirs.path, theirs.query, theirs.uri, theirs.version, theirs.scheme) == (
        ours.method, ours.path, ours.query, ours.uri, ours.version, ours.scheme,
    )  # fmt: skip
    assert sorted(theirs.headers) == sorted(ours.headers)
    assert (theirs.should_close(), theirs.waits) == (ours.should_close(), ours.waits)


@each(
    "data",
    [
        GET + b"\r\n",
        GET + b"Accept:*/*  \r\nUser-Agent: a b\r\n\r\n",
        GET + b"Connection: close\r\n\r\nGET",
        GET + b"connection: Keep-Alive\r\nprefer: wait=1\r\n\r\n" + GET + b"\r\n",
        GET + b"Accept: a, text/event-stream\r\n\r\n",
        GET + b"Content-Length: 0\r\nCookie: a=b; c=\r\n\r\nrest",
        POST,
        POST + POST,
        POST[:-1],
        b"OPTIONS / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    ],
)
def test_a_usual_head_is_plain_and_means_the_same(data):
    assert plain_head.read(data) is not None
    if data != POST[:-1]:
        check_the_same(data)


@each(
    "data",
    [
        b"",
        GET,
        b"\r\n" + GET + b"\r\n",
        GET.replace(b"\r\n", b"\n") + b"\n",
        GET + b"X: a\nY: b\r\n\r\n",
        GET + b"X: a\rb\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
        GET + b"X: \xe4\r\n\r\n",
        GET + b"X: a\r\n b\r\n\r\n",
        GET + b"X : a\r\n\r\n",
        GET + b" X: a\r\n\r\n",
        GET + b"X\r\n\r\n",
        GET + b": a\r\n\r\n",
        GET + b"X_Y: a\r\n\r\n",
        GET + b"X: a\r\nx: b\r\n\r\n",
        GET + b"Host: x\r\n\r\n",
        GET.replace(b"x:80", b"x y") + b"\r\n",
        GET.replace(b"Host", b"Hosts") + b"\r\n",
        GET.replace(b"1.1", b"1.0") + b"\r\n",
        GET.replace(b"1.1", b"1.1 ") + b"\r\n",
        GET.replace(b"GET", b"get") + b"\r\n",
        GET.replace(b"GET", b"BREW") + b"\r\n",
        GET.replace(b" /", b" //") + b"\r\n",
        GET.replace(b" /", b" http://x:80/") + b"\r\n",
        GET.replace(b"/a", b"/%61") + b"\r\n",
        GET.replace(b"/a", b"/a#b") + b"\r\n",
        GET.replace(b"c%20", b"c#") + b"\r\n",
        GET.replace(b" HTTP", b"  HTTP") + b"\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST.replace(b"X-Y", b"Transfer-Encoding"),
        POST.replace(b"X-Y", b"Content-Length"),
        POST.replace(b": 3", b": +3"),
        POST.replace(b": 3", b": 3, 3"),
        POST.replace(b": 3", b": 0x3"),
        POST.replace(b": 3", b": "),
        POST.replace(b": 3", b": " + b"3" * 10),
        GET + b"Expect: 100-continue\r\n\r\n",
        GET + b"Upgrade: h2c\r\n\r\n",
        GET + b"Connection: upgrade\r\n\r\n",
        GET + b"Connection: close, x\r\n\r\n",
        GET + b"".join(b"X-%d: a\r\n" % number for number in range(plain_head.MOST)) + b"\r\n",
        GET + b"X: " + b"a" * plain_head.LONGEST + b"\r\n\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GET + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)  # fmt: skip
def test_whatever_else_comes_is_gunicorns(data):
    assert plain_head.read(data) is None


TOKENS = st.sampled_from(
    [
        "GET", "POST", " ", " ", "  ", "/", "//", "/v1/tasks", "?", "a=b", "%2F", "#", "HTTP/1.1", "HTTP/1.0", "\r\n", "\r\n", "\r\n", "\n",
        "\r", "Host", "Content-Length", "Transfer-Encoding", "Connection", "X-A", "x_a", ":", ": ", "x", "0", "3", "03", "chunked", "close",
        "keep-alive", "\t", "\x00", "\x7f", "\x85", "ä", ",", ";", "[::1]", "@",
    ]
)  # fmt: skip
LINES = st.sampled_from(
    [
        "Host: x", "Host:x", "host: y:1", "Content-Length: 3", "content-length: 0", "Content-Length: 3 ", "Transfer-Encoding: chunked",
        "Connection: close", "Connection: keep-alive", "Connection: Close", "Accept: */*", "Prefer: wait=3", "X-A: b", "x-a:", "Expect: 100-continue",
        "Content-Type: a", "Content-Type: a; b", "Authorization: a", "Origin: b", "Te: trailers", "A'b: c", "X-Forwarded-For: a", "Proxy: b", "X-Forwarded-Proto: https", "X-Forwarded-Proto: http", "X-Forwarded-Ssl: on", "X-Forwarded-Protocol: ssl",
    ]
)  # fmt: skip


def _is_taken(data):
    head = plain_head.read(data)
    if head is not None and len(data) >= head.end + head.length:
        check_the_same(data)


@given(
    line=st.sampled_from(["GET / HTTP/1.1", "POST /v1/tasks HTTP/1.1", "DELETE /a?b HTTP/1.1", "GET /a/../b?c?d HTTP/1.1"]) | st.lists(TOKENS, max_size=8).map("".join),
    lines=st.lists(LINES | st.lists(TOKENS, max_size=5).map("".join), max_size=8),
    body=st.sampled_from([b"", b"abc", b"abcdef", b"\r\n"]),
    host=st.booleans(),
)  # fmt: skip
def test_a_head_is_plain_only_if_gunicorn_reads_the_same_request(line, lines, body, host):
    fields = (["Host: h"] if host else []) + lines

    _is_taken("\r\n".join([line, *fields, "", ""]).encode("latin-1") + body)


@given(st.text(st.characters(max_codepoint=255), max_size=30), st.text(st.characters(max_codepoint=255), max_size=30))
def test_a_field_of_any_bytes_is_plain_only_if_gunicorn_reads_the_same(name, value):
    _is_taken(f"GET / HTTP/1.1\r\nHost: x\r\n{name}:{value}\r\n\r\n".encode("latin-1"))


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_a_target_of_any_bytes_is_plain_only_if_gunicorn_reads_the_same(target):
    _is_taken(f"GET /{target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))


def test_a_body_that_has_not_come_whole_is_read_as_ever():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        head = plain_head.read(POST)
        request = exchanges.PlainRequest(head, b"a", wire.TimedUnreader(ours), "http", wire.Limits())
        theirs.sendall(b"bcGET")

        assert request.body.unread
        assert request.body.read() == b"abc"
        assert not request.body.unread
        assert request.unreader.read() == b"GET"


def test_the_bytes_behind_a_body_are_the_next_request():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        unreader = wire.TimedUnreader(ours)
        request = exchanges.PlainRequest(plain_head.read(POST), b"abcGET", unreader, "http", wire.Limits())

        assert isinstance(request.body, WholeInput)
        assert unreader.has_more
        assert unreader.read() == b"GET"


@each("value", ["a\r\nb", "a\nb", "a\rb", "a\x00"])
def test_a_response_has_no_field_that_begins_another_line(value):
    with pytest.raises(InvalidResponseHeader):
        exchanges.whole("200 OK", [("X", value)], b"", closes=False)


@each("closes", [True, False])
@each(("status", "content"), [("200 OK", b"{}"), ("202 ACCEPTED", b"a" * 9_000), ("404 NOT FOUND", b"")])
def test_a_response_is_written_as_by_gunicorn(closes, status, content):
    class Sink(io.BytesIO):
        def sendall(self, data):
            self.write(data)

    headers = [("Content-Type", "a/b"), ("Content-Length", str(len(content))), ("X", "y")]
    request = exchanges.PlainRequest(plain_head.read(GET + b"\r\n"), b"", None, "http", wire.Limits())
    if closes:
        request.force_close()
    sink = Sink()
    response = wire.WholeResponse(request, sink, Config())
    response.start_response(status, list(headers))
    response.write(content)
    response.close()

    assert exchanges.whole(status, headers, content, closes=closes) == sink.getvalue()


@each(
    ("lines", "trusted", "scheme"),
    [
        ("", None, "http"),
        ("", True, "http"),
        ("X-Forwarded-Proto: https", True, "https"),
        ("X-Forwarded-Proto: http", True, "http"),
        ("X-Forwarded-Ssl: on", True, "https"),
        ("X-Forwarded-Proto: https", False, "http"),
        ("X-Forwarded-Proto: https", None, ""),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on", True, ""),
    ],
)
def test_only_a_trusted_proxy_sets_the_scheme_and_what_is_not_clear_is_gunicorns(lines, trusted, scheme):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GET + (f"{lines}\r\n" if lines else "").encode() + b"\r\n")
        requests = exchanges.MixedParser(Config(), ours, PEER)
        requests.unreader = wire.TimedUnreader(ours)
        requests.mesg_class = type("Untouched", (), {"limits": wire.Limits(), "__init__": lambda *_: None})
        requests.unreader.trusted = trusted
        request = next(requests)

    assert getattr(request, "scheme", "") == scheme
