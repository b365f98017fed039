"""http.request against servers on real ports."""

import contextlib
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest
from flask import Flask, Response, request

from dispatch.config.settings import load
from dispatch.errors import PermanentError, RetryableError, Throttled
from examples.robot_simulator.server import serving
from support.context import FakeContext
from tasks import egress, http, upstream
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


def call(url, method="GET", hosts=None, **fields):
    """One request; what is allowed by default is the URL's own host and port."""
    listed = httpx.URL(url).netloc.decode() if hosts is None else hosts
    context = FakeContext(settings=load({}, http_allowed_hosts=listed))
    return http.request(HttpRequest.model_validate({"method": method, "url": url, **fields}), context)


def refusal(url, hosts):
    """The type of the error that a request ends with for good."""
    with pytest.raises(PermanentError) as caught:
        call(url, hosts=hosts)
    return caught.value.type


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


def test_a_long_answer_is_cut_and_marked_as_truncated(url):
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
def test_a_status_decides_what_follows_and_the_message_has_only_url_and_status(url, path, kind, type, wait):
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


def test_nothing_is_reached_by_default_not_even_the_brokers_management_api(servers):
    port = httpx.URL(servers.management_url).port

    assert refusal(f"http://127.0.0.1:{port}/api/whoami", "") == "host-not-allowed"
    assert refusal(f"http://localhost:{port}/api/whoami", "") == "host-not-allowed"
    assert refusal(f"http://127.0.0.1:{port}/api/whoami", "127.0.0.1,localhost,[::1]") == "host-not-allowed"


@pytest.mark.parametrize("path", ["echo", "status/200"])
def test_a_listed_name_that_resolves_to_loopback_is_refused(app, url, path):
    port = httpx.URL(url).port
    with pytest.raises(PermanentError) as caught:
        call(f"http://localhost:{port}/{path}?token=s3cret", hosts=f"localhost:{port},127.0.0.1:{port + 1}")

    assert caught.value.type == "address-not-allowed"
    assert str(caught.value).startswith("localhost has no address that http.request may connect to: ")
    assert "127.0.0.1 (loopback)" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert app.seen == []


def test_a_listed_name_is_reached_where_its_address_is_listed_too_and_the_host_header_keeps_the_name(app, url):
    port = httpx.URL(url).port

    assert call(f"http://localhost:{port}/echo", hosts=f"localhost:{port},127.0.0.1:{port}")["status"] == 200
    assert app.seen[0][2]["Host"] == f"localhost:{port}"


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.1", "127.1", "127.0.0.1", "0", "localhost"])
def test_however_this_machine_is_written_it_is_refused(app, url, host):
    port = httpx.URL(url).port
    transport = egress.Transport(upstream.tls(), lambda *_: False)

    with upstream.client(2, headers={}, transport=transport) as client, pytest.raises(PermanentError) as caught:
        upstream.exchange(client, "GET", f"http://{host}:{port}/echo", peer="x", within=2)

    assert caught.value.type == "address-not-allowed"
    assert app.seen == []


def test_a_name_that_changes_its_address_between_check_and_connection_changes_nothing(app, url, monkeypatch):
    """DNS rebinding: the first answer is fine, every other one is this machine."""
    port, real = httpx.URL(url).port, socket.getaddrinfo
    asked = []

    def getaddrinfo(host, *args, **options):
        if host == "rebinds.test":
            asked.append(host)
            host = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"  # TEST-NET: no host answers
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(egress, "objection", lambda address: "loopback" if address.is_loopback else None)
    with pytest.raises(RetryableError):
        call(f"http://rebinds.test:{port}/echo", timeoutSeconds=0.2)

    assert asked == ["rebinds.test"]
    assert app.seen == []


def test_a_name_that_cannot_be_resolved_now_is_tried_again(monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RetryableError) as caught:
        call("http://api.test:8080/?token=s3cret")

    assert caught.value.type == "upstream-unavailable"
    assert "Name or service not known" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("name", "reached"), [("robot.test", True), ("other.test", False)])
def test_tls_goes_by_the_name_although_the_connection_goes_to_an_address(tmp_path, monkeypatch, name, reached):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=DNS:robot.test",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(command, check=True, capture_output=True)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    names = []
    server_side.sni_callback = lambda _socket, shown, _context: names.append(shown)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(upstream, "tls", lambda: trusting)
    monkeypatch.setattr(egress, "resolve", lambda *_: [ipaddress.ip_address("127.0.0.1")])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=_answer_one, args=(listener, server_side))
        thread.start()
        try:
            outcome = call(f"https://{name}:{port}/", hosts=f"{name}:{port},127.0.0.1:{port}")["status"]
        except RetryableError as exc:
            outcome = exc.type
        thread.join()

    assert outcome == (200 if reached else "upstream-unavailable")
    assert names == [name]


def _answer_one(listener, context):
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
        secure.recv(65_536)
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_ipv6_hosts_work():
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "six")
    with serving(app, host="::1") as base:
        result = call(f"http://[::1]:{base.rpartition(':')[2]}/")

    assert result["body"] == "six"


def test_a_server_that_does_not_listen_is_unavailable():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        with pytest.raises(RetryableError) as caught:
            call(f"http://127.0.0.1:{bound.getsockname()[1]}/")

    assert caught.value.type == "upstream-unavailable"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_a_server_that_trickles_or_sends_nothing_times_out(answer):
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
