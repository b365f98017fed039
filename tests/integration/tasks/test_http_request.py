"""http.request against servers on real ports."""

import contextlib
import json
import socket
import threading
import time

import pytest
from flask import Flask, Response, request

from dispatch.config.settings import load
from dispatch.errors import PermanentError, RetryableError, Throttled
from examples.robot_simulator.server import serving
from support.context import FakeContext
from tasks import http, upstream
from tasks.http import HttpRequest


@pytest.fixture
def app():
    app = Flask(__name__)
    app.seen = []

    @app.before_request
    def _see():
        app.seen.append((request.method, request.full_path.rstrip("?"), dict(request.headers), request.get_data()))

    @app.route("/echo", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    def _echo():
        return {"got": request.get_json(silent=True)}, 200, {"ETag": '"1"', "X-Private": "no"}

    @app.route("/status/<int:status>")
    def _status(status):
        return Response("secret words", status, {key: value for key, value in request.args.items() if value})

    @app.route("/big")
    def _big():
        return Response((b"x" * 10_000 for _ in range(100)), content_type="text/plain")

    return app


@pytest.fixture
def url(app):
    with serving(app) as base:
        yield base


def call(url, method="GET", **fields):
    return http.request(HttpRequest.model_validate({"method": method, "url": url, **fields}), FakeContext())


def test_the_call_carries_key_trace_headers_and_body(app, url):
    result = call(f"{url}/echo?a=1", "POST", json={"x": [1, "ü"]}, headers={"X-Mine": "1", "user-agent": "me"})

    method, path, headers, body = app.seen[0]
    assert (method, path, json.loads(body)) == ("POST", "/echo?a=1", {"x": [1, "ü"]})
    assert headers["Idempotency-Key"] == FakeContext().idempotency_key
    assert headers["Traceparent"] == FakeContext().traceparent
    assert (headers["X-Mine"], headers["User-Agent"], headers["Content-Type"]) == ("1", "me", "application/json")
    assert result == {
        "status": 200,
        "headers": {"content-type": "application/json", "etag": '"1"'},
        "body": {"got": {"x": [1, "ü"]}},
        "bodyTruncated": False,
    }


def test_without_json_there_is_no_body_and_with_null_there_is(app, url):
    call(f"{url}/echo", "POST")
    call(f"{url}/echo", "POST", json=None)

    assert [body for *_, body in app.seen] == [b"", b"null"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_every_method_works(app, url, method):
    assert call(f"{url}/echo", method)["status"] == 200
    assert app.seen[0][0] == method


def test_a_long_answer_is_cut_and_says_so(url):
    result = call(f"{url}/big")

    assert result["body"] == "x" * upstream.MAX_BODY
    assert result["bodyTruncated"]


@pytest.mark.parametrize(
    ("path", "kind", "type", "wait"),
    [
        ("429?Retry-After=5", Throttled, "upstream-throttled", 5.0),
        ("503?Retry-After=120", RetryableError, "upstream-unavailable", 120.0),
        ("503", RetryableError, "upstream-unavailable", None),
        ("500", RetryableError, "upstream-error", None),
        ("408", RetryableError, "upstream-timeout", None),
        ("425", RetryableError, "upstream-error", None),
        ("400", PermanentError, "upstream-rejected", None),
        ("401", PermanentError, "upstream-unauthorized", None),
        ("404", PermanentError, "upstream-rejected", None),
    ],
)
def test_a_status_says_what_to_do_next_and_the_message_tells_nothing_more(url, path, kind, type, wait):
    with pytest.raises(kind) as caught:
        call(f"{url}/status/{path}", headers={"Authorization": "Bearer s3cret"})

    assert (caught.value.__class__, caught.value.type) == (kind, type)
    assert getattr(caught.value, "retry_after", None) == wait
    assert str(caught.value) == f"{url} responded {path[:3]}"


@pytest.mark.parametrize("target", ["http://evil.example/", "/echo"])
def test_redirects_are_not_followed(app, url, target):
    with pytest.raises(PermanentError) as caught:
        call(f"{url}/status/302?Location={target}")

    assert caught.value.type == "upstream-redirect"
    assert len(app.seen) == 1


def test_a_redirect_to_a_forbidden_host_never_reaches_it(url):
    with socket.create_server(("127.0.0.1", 0)) as forbidden:
        forbidden.setblocking(False)
        context = FakeContext(settings=load({}, http_allowed_hosts=url.removeprefix("http://")))
        target = f"http://127.0.0.1:{forbidden.getsockname()[1]}/"

        with pytest.raises(PermanentError):
            http.request(HttpRequest(method="GET", url=f"{url}/status/307?Location={target}"), context)
        with pytest.raises(PermanentError) as caught:
            http.request(HttpRequest(method="GET", url=target), context)
        with pytest.raises(BlockingIOError):
            forbidden.accept()

    assert caught.value.type == "host-not-allowed"


def test_ipv6_hosts_work():
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "six")
    context = FakeContext(settings=load({}, http_allowed_hosts="::1"))
    with serving(app, host="::1") as base:
        port = base.rpartition(":")[2]
        result = http.request(HttpRequest(method="GET", url=f"http://[::1]:{port}/"), context)

    assert result["body"] == "six"


def test_a_server_that_does_not_listen_is_unavailable():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        with pytest.raises(RetryableError) as caught:
            call(f"http://127.0.0.1:{bound.getsockname()[1]}/")

    assert caught.value.type == "upstream-unavailable"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_a_server_that_trickles_or_says_nothing_times_out(answer):
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_trickle, args=(server, answer, stop))
        thread.start()
        began = time.monotonic()

        with pytest.raises(RetryableError) as caught:
            call(f"http://127.0.0.1:{server.getsockname()[1]}/", timeoutSeconds=0.3)
        stop.set()
        thread.join()

    assert caught.value.type == "upstream-timeout"
    assert time.monotonic() - began < 5


def _trickle(server, answer, stop):
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):  # the client hangs up
        connection.sendall(answer)
        while answer and not stop.wait(0.05):
            connection.sendall(b"x")
        stop.wait(10)
