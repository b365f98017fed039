"""Clients that break HTTP, hold connections or claim to be others; each against the gateway as it is deployed."""

import contextlib
import http.client
import json
import socket
import time

import httpx
import pytest

from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually

BODY = {"type": "echo", "payload": {"message": "hi"}}
RAW = json.dumps(BODY).encode()
JSON = {"Content-Type": "application/json"}

#: Seconds that the gateway of this module gives a request head, a request body, and the rest of a refused body.
HEAD, BODY_TIME, DRAIN = 1.0, 2.0, 2.0


@pytest.fixture(scope="module")
def live(module_settings):
    limits = {"http_head_timeout": HEAD, "http_body_timeout": BODY_TIME, "http_drain_timeout": DRAIN}
    with running_gateway(module_settings.model_copy(update=limits), free_port()) as made:
        yield made


@pytest.fixture
def port(live):
    client, _, log = live
    before = log.stat().st_size
    yield client.base_url.port
    with log.open("rb") as lines:
        lines.seek(before)
        assert b"Traceback" not in lines.read()


@contextlib.contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        yield connection


def answers(connection):
    """Everything until the gateway closes: a pair of status and body for each response."""
    with connection.makefile("rb") as stream:
        received = stream.read()
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, fields = head.split(b" ", 2)[1], head.lower()
        length = int(fields.partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append((int(status), rest[:length], fields))
        received = rest[length:]
    return found


def sent(port, data, *, half_close=True):
    """The responses to bytes on a connection of their own."""
    with connected(port) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return answers(connection)


def statuses(port, data, **options):
    return [status for status, _, _ in sent(port, data, **options)]


def request(line, *headers, body=b""):
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1") + body


def submission(*headers, body=RAW):
    return request(
        "POST /v1/tasks HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, body=body,
    )  # fmt: skip


def scraped(port, name, **labels):
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()
    series = name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "} "
    return next((float(line.removeprefix(series)) for line in lines if line.startswith(series)), 0.0)


# --- answers before the body is read ---------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path", "headers", "size", "status"),
    [
        ("POST", "/v1/tasks", {**JSON, "Origin": "https://evil.example"}, 70_000, 401),
        ("POST", "/v1/nothing", JSON, 70_000, 404),
        ("PUT", "/v1/tasks", JSON, 200_000, 405),
        ("POST", "/v1/tasks", JSON, 1_000_000, 413),
        ("POST", "/v1/tasks", {"Content-Type": "text/plain"}, 200_000, 415),
        ("POST", "/v1/tasks", {**JSON, "Content-Encoding": "gzip"}, 200_000, 415),
    ],
)
@pytest.mark.usefixtures("port")
def test_the_next_request_of_a_pooled_client_succeeds_after_a_refused_body(live, method, path, headers, size, status):
    client, _, _ = live
    failures = []
    for _ in range(60):
        assert client.request(method, path, content=b"x" * size, headers=headers).status_code == status
        try:
            assert client.get("/livez").status_code == 200
        except httpx.TransportError as exc:
            failures.append(exc)

    assert failures == []


def test_a_refused_body_in_chunks_leaves_the_connection_usable(live, port):
    client, _, _ = live
    drained = scraped(port, "robot_http_unread_bodies_total", outcome="drained")
    for _ in range(20):
        refused = client.post("/v1/nothing", content=iter([b"x" * 50_000] * 4), headers=JSON)
        assert (refused.status_code, refused.headers["Connection"]) == (404, "keep-alive")
        assert client.get("/livez").status_code == 200

    assert scraped(port, "robot_http_unread_bodies_total", outcome="drained") == drained + 20


@pytest.mark.parametrize("size", [4_000_000, 12_000_000])
def test_a_client_that_sends_before_it_reads_gets_the_413(port, size):
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/tasks", body=b"x" * size, headers=JSON)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["type"]) == (413, "/problems/body-too-large")


def test_a_body_that_does_not_come_is_answered_with_a_close(port):
    closed = scraped(port, "robot_http_unread_bodies_total", outcome="closed")
    with connected(port) as connection:
        connection.sendall(
            request("POST /v1/nothing HTTP/1.1", "Host: x", "Content-Length: 100000", body=b"x" * 70_000)
        )
        began = time.monotonic()
        ((status, _, head),) = answers(connection)

    assert (status, b"connection: close" in head) == (404, True)
    assert DRAIN - 0.1 <= time.monotonic() - began < DRAIN + 4
    assert scraped(port, "robot_http_unread_bodies_total", outcome="closed") == closed + 1


def test_connections_that_clients_keep_open_after_a_close_delay_no_other_client(port):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connected(port))
            connection.sendall(request("GET /livez HTTP/1.1", "Host: x", "Connection: close"))
            connection.recv(1)
        began = time.monotonic()
        assert httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False, timeout=60).status_code == 200

        assert time.monotonic() - began < 4  # of 20 waits of 2 s in two processes


# --- bodies that are not whole ---------------------------------------------------------------------
CHUNKED = request(
    "POST /v1/tasks HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Transfer-Encoding: chunked"
)  # fmt: skip
SIZED = f"{len(RAW):x}\r\n".encode()


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"zz\r\n" + RAW,
        CHUNKED + b"-5\r\n" + RAW,
        CHUNKED + b"\r\n" + RAW,
        CHUNKED + SIZED + RAW + b"XX0\r\n\r\n",
        CHUNKED + SIZED + RAW,
        CHUNKED + SIZED + RAW[:-9],
        CHUNKED + SIZED + RAW + b"\r\n",
        CHUNKED + SIZED + RAW + b"\r\n0\r\n",
        CHUNKED + SIZED + RAW + b"\r\n0\r\nA b: c\r\n\r\n",
        CHUNKED + b"1" * 9_000,
        CHUNKED,
        CHUNKED + b"4;a=\x01\r\n",
        submission()[:-9],
        submission(body=RAW + b" " * 9)[:-5],
        submission()[: -len(RAW)],
    ],
    ids=[
        "size", "negative size", "empty size", "no line end", "ends after the data", "ends in the data", "no last chunk",
        "no end of trailers", "bad trailer", "endless size", "nothing", "extension", "length: ends early", "length: ends in spaces",
        "length: no body",
    ],
)  # fmt: skip
def test_a_body_that_is_not_whole_is_malformed_and_ends_the_connection(port, data):
    ((status, body, head),) = sent(port, data)

    assert (status, json.loads(body)["type"]) == (400, "/problems/malformed-json")
    assert b"connection: close" in head


def test_a_request_behind_a_broken_body_is_not_read(port):
    smuggled = request("GET /livez HTTP/1.1", "Host: x")

    assert statuses(port, CHUNKED + b"zz\r\n" + smuggled) == [400]
    assert statuses(port, CHUNKED.replace(b"/v1/tasks", b"/v1/nowhere") + b"zz\r\n" + smuggled) == [404]


def test_a_slow_body_is_408_after_its_time(port):
    with connected(port) as connection:
        connection.sendall(submission()[:-9])
        began = time.monotonic()
        ((status, _, head),) = answers(connection)

    assert (status, b"connection: close" in head) == (408, True)
    assert BODY_TIME - 0.1 <= time.monotonic() - began < BODY_TIME + 3


@pytest.mark.parametrize(
    "data", [b"G", b"GET /livez HTTP/1.1\r\nHost: x\r\n", request("GET /livez HTTP/1.1", "Host: x") + b"GE"]
)
def test_half_a_head_is_408_after_its_time(port, data):
    with connected(port) as connection:
        began = time.monotonic()
        connection.sendall(data)
        found = answers(connection)

    assert found[-1][0] == 408
    assert HEAD - 0.1 <= time.monotonic() - began < HEAD + 3


def test_a_hundred_half_heads_stop_other_clients_no_longer_than_their_time(port):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connected(port)).sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        probe = eventually(lambda: _livez(port), 30)

    assert probe == 200


def _livez(port):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False, timeout=5).status_code
    return None


# --- requests that are not what they seem ----------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("GET /livez HTTP/1.1"), 400),
        (request("GET /livez HTTP/1.1", "Host:"), 400),
        (request("GET /livez HTTP/1.1", "Host: a", "Host: a"), 400),
        (request("GET /livez HTTP/1.1", "Host: evil.example@127.0.0.1"), 400),
        (request("GET /livez HTTP/1.1", "Host: 127.0.0.1/x"), 400),
        (request("GET /livez HTTP/1.1", "Host: a b"), 400),
        (request("GET /livez HTTP/1.1", "Host: a:b"), 400),
        (request("GET /livez HTTP/1.1", "Host: [::1]:8080"), 200),
        (request("GET /livez HTTP/1.1", "Host: my_gateway.example:8080"), 200),
        (request("GET /livez HTTP/1.0"), 200),
        (request("GET //livez HTTP/1.1", "Host: x"), 404),
        (request("GET ///livez HTTP/1.1", "Host: x"), 404),
        (request("GET /%2Flivez HTTP/1.1", "Host: x"), 404),
        (request("GET http://x//livez HTTP/1.1", "Host: x"), 404),
        (request("GET http://x/livez HTTP/1.1", "Host: x"), 200),
        (request("GET http://x/livez HTTP/1.1", "Host: y"), 400),
        (request("GET http://u@x/livez HTTP/1.1", "Host: x"), 400),
        (request("GET ftp://x/livez HTTP/1.1", "Host: x"), 400),
        (request("GET http:///livez HTTP/1.1", "Host: x"), 400),
        (request("GET /v1/livez HTTP/1.1", "Host: x", "SCRIPT_NAME: /v1"), 404),
        (request("GET /livez HTTP/1.1", "Host: x", "SCRIPT_NAME: /v1"), 200),
        (request("GET /nope HTTP/1.1", "Host: x", "PATH_INFO: /livez"), 404),
        (request("GET /livez HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 1", body=b"x"), 400),
        (request("GET /livez HTTP/1.1", "Host: x", "Content-Length: 1, 1", body=b"x"), 400),
        (request("GET /livez HTTP/1.1", "Host: x", "Content-Length: +1", body=b"x"), 400),
        (request("POST /v1/tasks HTTP/1.1", "Host: x", "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (request("POST /v1/tasks HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (request("POST /v1/tasks HTTP/1.1", "Host: x", "Transfer-Encoding: gzip", body=b"0\r\n\r\n"), 400),
        (request("POST /v1/tasks HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (request("GET /v1/tasks HTTP/1.1", "Host: 127.0.0.1", "Authorization: Bearer a", "Authorization: Bearer b"), 400),
        (request("GET /v1/tasks HTTP/1.1", "Host: 127.0.0.1", "Origin: http://127.0.0.1", "Origin: http://127.0.0.1"), 400),
    ],
)  # fmt: skip
def test_an_ambiguous_request_is_refused_and_a_plain_one_served(port, data, status):
    ((found, body, head),) = sent(port, data)

    assert found == status
    if status >= 400:
        assert b"content-type: application/problem+json" in head
        assert json.loads(body)["status"] == status


def test_headers_with_underscores_are_not_taken_for_those_with_hyphens(port):
    aliased = submission("Idempotency_Key: k-1", "Transfer_Encoding: chunked", "X_Forwarded_For: 1.2.3.4")

    first, second = [json.loads(body) for _, body, _ in (*sent(port, aliased), *sent(port, aliased))]
    assert first["taskId"] != second["taskId"]


def test_two_idempotency_keys_are_refused_and_one_with_a_comma_is_a_key(port):
    for pair in (("a", "b"), ("a", "a"), ('"a"', '"b"'), ('"a', 'b"'), ("", "a"), ("a", "")):
        ((status, body, _),) = sent(port, submission(*(f"Idempotency-Key: {key}" for key in pair)))
        assert (status, json.loads(body)["type"]) == (400, "/problems/invalid-idempotency-key")

    first, second = [sent(port, submission("Idempotency-Key: a,b"))[0] for _ in range(2)]
    assert (first[0], second[0]) == (202, 202)
    assert json.loads(first[1])["taskId"] == json.loads(second[1])["taskId"]
    assert b"idempotent-replayed: true" in second[2]


def test_repeated_headers_that_are_hints_are_ignored_and_lists_are_joined(port):
    ((_, body, _),) = sent(port, submission())
    task = json.loads(body)
    twice = request(
        f"GET {task['statusUrl']} HTTP/1.1", "Host: 127.0.0.1",
        "X-Request-Id: a", "X-Request-Id: b",
        f"traceparent: 00-{'a' * 32}-{'b' * 16}-01", f"traceparent: 00-{'c' * 32}-{'d' * 16}-01",
        'If-None-Match: "0"', f'If-None-Match: "{task["revision"]}"',
        "Prefer: respond-async", "Prefer: wait=0",
        "Connection: hop", "Connection: close",
    )  # fmt: skip
    with connected(port) as connection:
        connection.sendall(twice)
        received = connection.makefile("rb").read().lower()

    assert received.startswith(b"http/1.1 304 ")
    request_id = received.partition(b"x-request-id: ")[2].split(b"\r\n")[0]
    assert len(request_id) == 32


# --- a gateway without keys ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "header",
    ["Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: x", "X-Forwarded-Proto: https", "X-Real-IP: 1.2.3.4", "Via: 1.1 proxy"],
)  # fmt: skip
def test_without_keys_a_request_through_a_proxy_is_refused_with_the_reason(port, header):
    before = scraped(port, "robot_http_unauthenticated_total", reason="forwarded")
    ((status, body, _),) = sent(port, submission(header))

    assert (status, json.loads(body)["type"]) == (401, "/problems/unauthenticated")
    assert "proxy" in json.loads(body)["detail"]
    assert scraped(port, "robot_http_unauthenticated_total", reason="forwarded") == before + 1


def test_without_keys_only_the_gateways_own_origin_is_accepted(port):
    own = f"http://127.0.0.1:{port}"
    foreign = [
        "null",
        "http://127.0.0.1",
        f"https://127.0.0.1:{port}",
        f"http://localhost:{port}",
        "http://127.0.0.1:3000",
    ]
    with httpx.Client(base_url=own, trust_env=False) as client:
        assert client.post("/v1/tasks", json=BODY, headers={"Origin": own}).status_code == 202
        refused = [client.post("/v1/tasks", json=BODY, headers={"Origin": origin}).status_code for origin in foreign]

    assert refused == [401] * len(foreign)


def test_what_is_refused_before_the_application_is_counted(port):
    before = scraped(port, "robot_http_rejected_total", status="400")
    assert statuses(port, b"nonsense\r\n\r\n") == [400]

    assert scraped(port, "robot_http_rejected_total", status="400") == before + 1
