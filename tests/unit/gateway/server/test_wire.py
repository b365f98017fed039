"""Heads and bodies as gunicorn's parser gives them to the gateway, without a network."""

import socket
import time

import pytest
from gunicorn.config import Config
from gunicorn.http import errors

from dispatch.gateway.http.problems import Problem
from dispatch.gateway.server import closing, pacing, wire
from support.cases import each

HEAD = "POST /v1/tasks HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def parsed(pair, data, *, limits=None, more=False):
    """The request that those bytes are; `more`: the client keeps its half open."""
    ours, theirs = pair
    theirs.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
    if not more:
        theirs.shutdown(socket.SHUT_WR)
    kind = type("Limited", (wire.StrictRequest,), {"limits": limits or wire.Limits()})
    return kind(Config(), wire.TimedUnreader(ours), ("127.0.0.1", 1))


def test_repeated_headers_are_joined_so_that_they_make_no_valid_single_value(pair):
    request = parsed(pair, f"{HEAD}Idempotency-Key: a\r\nAccept: b\r\nidempotency-key: c,d\r\n\r\n")

    assert dict(request.headers) == {"HOST": "x", "IDEMPOTENCY-KEY": "a, c,d", "ACCEPT": "b"}


@each("lines", ["Authorization: a\r\nAuthorization: a\r\n", "Origin: a\r\norigin: b\r\n"])
def test_two_values_of_a_single_header_are_refused(lines):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(errors.InvalidHeader):
        parsed((ours, theirs), f"{HEAD}{lines}\r\n")


@each(
    ("value", "closes"),
    [("close", True), ("hop, Close", True), ("keep-alive", False), ("hop", False), ("closed", False)],
)
def test_a_connection_closes_when_one_of_its_options_is_close(value, closes):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = parsed((ours, theirs), f"{HEAD}Connection: {value}\r\n\r\n")

    assert request.should_close() is closes


def test_a_body_is_read_to_its_end(pair):
    request = parsed(pair, f"{HEAD}Content-Length: 5\r\n\r\nabcdeGET")

    assert request.body.unread
    assert (request.body.read(2), request.body.read(), request.body.read()) == (b"ab", b"cde", b"")
    assert not request.body.unread


def test_a_body_without_its_end_is_never_taken_for_whole(pair):
    request = parsed(pair, f"{HEAD}Content-Length: 9\r\n\r\n{{}}")

    with pytest.raises(Problem, match="ended early"):
        request.body.read()
    assert request.body.unread
    assert not request.body.drain()
    assert request.should_close()


def test_a_broken_chunk_is_a_problem_and_nothing_behind_it_is_read(pair):
    request = parsed(pair, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\nzz\r\n")

    with pytest.raises(Problem, match="malformed"):
        request.body.read()
    assert not request.body.drain()
    assert request.should_close()


@each(
    ("chunks", "size", "taken"),
    [(wire.CHUNKS, 1, True), (wire.CHUNKS + 100, 1, False), (4 * wire.CHUNKS, wire.CHUNK_BYTES, True)],
)
def test_chunks_may_be_small_or_many_but_not_both(chunks, size, taken):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_194_304)
        text = b"%x\r\n%b\r\n" % (size, b"x" * size) * chunks
        request = parsed((ours, theirs), f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + text + b"0\r\n\r\n")
        if taken:
            assert len(request.body.read()) == chunks * size
        else:
            with pytest.raises(Problem, match="too many"):
                request.body.read()
        assert request.body.drain() is taken


@each(("body", "turns"), [(b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_900, True), (b"\r\n", False)])
def test_other_requests_pass_between_the_reads_of_a_body_in_chunks(body, turns):
    taken = []
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.MonkeyPatch.context() as patched:
        patched.setattr(pacing, "_turn", lambda: taken.append(1))
        parsed((ours, theirs), HEAD.encode() + body + b"0\r\n\r\n").body.read()

    assert bool(taken) is turns


def test_the_fields_of_a_head_are_bounded_together(pair):
    field = f"x: {'y' * 8_000}\r\n"
    parsed(pair, HEAD + field * 3 + "\r\n", more=True)
    with pytest.raises(errors.LimitRequestHeaders):
        parsed(pair, HEAD + field * 5)


def test_a_drained_body_leaves_the_connection_to_the_next_request(pair):
    request = parsed(pair, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\nGET", more=True)

    assert request.body.unread
    assert request.body.drain()
    assert not request.body.unread
    assert not request.should_close()
    assert request.unreader.buf.getvalue() == b"GET"


@each(
    "body",
    [
        "Content-Length: 11\r\n\r\n" + "x" * 11,
        "Transfer-Encoding: chunked\r\n\r\n" + "4\r\nxxxx\r\n" * 3 + "0\r\n\r\n",
        "Content-Length: 5\r\n\r\nx",
    ],
)
def test_a_body_over_the_limits_of_draining_closes_the_connection(body):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = parsed((ours, theirs), HEAD + body, limits=wire.Limits(drain=0.05, drain_bytes=10), more=True)
        began = time.monotonic()

        assert not request.body.drain()
    assert request.should_close()
    assert time.monotonic() - began < 5  # the client never ends


def test_a_slow_body_ends_with_408(pair):
    request = parsed(pair, f"{HEAD}Content-Length: 5\r\n\r\nx", limits=wire.Limits(body=0.05), more=True)

    with pytest.raises(Problem) as caught:
        request.body.read()
    assert (caught.value.kind.status, request.body.failed) == (408, True)


def test_a_body_must_arrive_at_its_least_rate(pair, monkeypatch):
    monkeypatch.setattr(wire, "PATIENCE", 0.02)
    began = time.monotonic()
    slow = parsed(pair, f"{HEAD}Content-Length: 9\r\n\r\n", limits=wire.Limits(body_rate=20), more=True)
    pair[1].sendall(b"x" * 8)
    with pytest.raises(Problem, match="20 bytes a second"):
        slow.body.read()

    assert 0.2 < time.monotonic() - began < 5  # of the 10 s that a body has: 8 bytes are worth 0.4 s


@each("data", ["G", HEAD])
def test_half_a_head_ends_with_408(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(errors.NoMoreData):
            parsed((ours, theirs), data, limits=wire.Limits(head=0.05), more=True)
        assert theirs.recv(100).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_has_no_deadline_before_its_first_byte(pair):
    ours, theirs = pair
    reader = wire.TimedUnreader(ours)
    reader.limit(0.05, when_it_begins=True)
    ours.settimeout(0.2)  # as gevent's own timeout would end the wait
    with pytest.raises(TimeoutError):
        reader.chunk()

    ours.settimeout(None)
    theirs.sendall(b"G")
    assert reader.chunk() == b"G"
    with pytest.raises(wire.Expired):
        reader.chunk()


def test_a_close_never_waits_and_discards_what_has_arrived(pair):
    ours, theirs = pair
    theirs.sendall(b"x" * 10_000)
    began = time.monotonic()
    closing.close(ours)

    assert time.monotonic() - began < 0.5
    assert theirs.recv(1) == b""


def test_lingering_ends_when_the_client_is_quiet(pair):
    ours, theirs = pair
    theirs.sendall(b"x" * 10_000)
    began = time.monotonic()
    closing.linger(ours)

    assert closing.QUIET - 0.05 <= time.monotonic() - began < closing.LONGEST
    assert theirs.recv(1) == b""
