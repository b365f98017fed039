"""Clients that hold connections: a gateway of one process answers all others soon."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
import redis
from pydantic import SecretStr

from support.gateway_live import running_gateway
from support.ports import free_port
from support.proxy import Proxy
from support.waiting import eventually

BODY = {"type": "echo", "payload": {"message": "hi"}}
POST = b"POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"

#: Seconds: a fraction of what such clients cost a gateway in which each connection has a thread, on a busy machine, too.
SOON = 4.0

#: Of the gateway of this module.
LIMITS = {"http_workers": 1, "http_peer_connections": 700, "http_waits_per_principal": 200, "http_write_timeout": 1.0}


@pytest.fixture(scope="module")
def proxy(module_settings):
    with Proxy.to(module_settings.redis_url.get_secret_value()) as made:
        yield made


@pytest.fixture(scope="module")
def client(module_settings, proxy):
    own = module_settings.model_copy(update={**LIMITS, "redis_url": SecretStr(proxy.url)})
    with running_gateway(own, free_port()) as (client, _, log):
        yield client
        assert "Traceback" not in log.read_text()


@contextlib.contextmanager
def holding(client, data, count):
    """Connections on which those bytes were sent."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.settimeout(10)
            connection.connect(("127.0.0.1", client.base_url.port))
            connection.sendall(data)
            opened.append(connection)
        yield opened


def slowest(client):
    """Seconds of the slowest of some probes and submissions, each on a connection of its own."""
    longest = 0.0
    for method, path, body in (("GET", "/livez", None), ("POST", "/v1/tasks", json.dumps(BODY))) * 3:
        began = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=30)) as fresh:
            fresh.request(method, path, body, {"Content-Type": "application/json"})
            assert fresh.getresponse().status in {200, 202}
        longest = max(longest, time.monotonic() - began)
    return longest


@contextlib.contextmanager
def sending(client, head, again, count):
    """Connections on which those bytes are sent as fast as they are read; a new one for each that is closed."""
    over = threading.Event()

    def send():
        while not over.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", client.base_url.port), 10) as made,
            ):
                made.sendall(head)
                while not over.is_set():
                    made.sendall(again)

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def scraped(client, name):
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def reading_of(url, prefer="wait=20", accept="*/*"):
    return f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: {prefer}\r\nAccept: {accept}\r\n\r\n".encode()


def accepted(client):
    return client.post("/v1/tasks", json=BODY).json()["statusUrl"]


@pytest.mark.parametrize(
    "data", [b"GET /livez HTTP/1.1\r\nHost: x\r\n", POST + b"Content-Length: 100\r\n\r\n{", b""], ids=["half heads", "half bodies", "idle"]
)  # fmt: skip
def test_connections_without_a_whole_request_delay_no_other(client, data):
    with holding(client, data, 300):
        assert slowest(client) < SOON


def test_bodies_that_are_expensive_to_refuse_delay_no_other(client):
    body = b'{"type":"echo","payload":{"message":[' + b"[]," * 87_000 + b"[]]}}"
    with holding(client, POST + f"Content-Length: {len(body)}\r\n\r\n".encode() + body, 6) as opened:
        assert slowest(client) < SOON
        answers = {connection.recv(12) for connection in opened}

    assert b"HTTP/1.1 422" in answers
    assert answers <= {b"HTTP/1.1 422", b"HTTP/1.1 503"}  # on a busy machine not every turn comes in time


def test_a_client_that_reads_nothing_delays_no_other_and_is_cut_off(client):
    before = scraped(client, 'robot_http_connections_cut_total{reason="write"}')
    with holding(client, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100, 20):
        assert slowest(client) < SOON
        eventually(
            lambda: scraped(client, 'robot_http_connections_cut_total{reason="write"}') == before + 20, 15, "all are cut"
        )  # fmt: skip


def test_the_connections_of_one_address_are_bounded(client):
    before = scraped(client, 'robot_http_connections_cut_total{reason="peer"}')
    with holding(client, b"", 710) as opened:
        opened[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")

        assert opened[-1].recv(4_096).startswith(b"HTTP/1.1 429 ")
    assert scraped(client, 'robot_http_connections_cut_total{reason="peer"}') >= before + 10


@contextlib.contextmanager
def record(settings, url):
    """A task's key and channel in Redis, and a client of it."""
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as server:
        yield f"{settings.redis_prefix}task:{{{url.rpartition('/')[2]}}}", server


def change(settings, url):
    """Change a task, as a worker does."""
    with record(settings, url) as (key, server):
        server.hincrby(key, "revision", 1)
        server.publish(key, "changed")


def waiters(client, kind):
    return scraped(client, f'robot_http_waiting{{kind="{kind}"}}')


def test_many_waits_have_one_subscription_delay_no_other_and_end_with_the_change(client, module_settings):
    url = accepted(client)
    stream = reading_of(f"{url}/events", accept="text/event-stream")
    with holding(client, reading_of(url), 150) as polls, holding(client, stream, 50):
        eventually(lambda: (waiters(client, "long-poll"), waiters(client, "stream")) == (150, 50), 10)
        with record(module_settings, url) as (key, server):
            assert server.pubsub_numsub(key)[0][1] == 1
        assert slowest(client) < SOON
        refused = client.get(f"{url}/events", headers={"Accept": "text/event-stream"})
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/stream-capacity")
        assert refused.headers["Retry-After"] == "5"
        assert "Preference-Applied" not in client.get(url, headers={"Prefer": "wait=9"}).headers
        change(module_settings, url)
        answers = {poll.recv(4_096).split(b"\r\n")[0] for poll in polls}

        assert answers == {b"HTTP/1.1 200 OK"}
        assert waiters(client, "stream") == 50
    eventually(lambda: waiters(client, "stream") == 0, 10, "clients that hang up leave their places")


def test_waits_outlive_a_lost_subscription_and_end_in_time_when_redis_is_silent(client, proxy, module_settings):
    url = accepted(client)
    with holding(client, reading_of(url), 1) as (poll,):
        eventually(lambda: waiters(client, "long-poll") == 1, 10)
        proxy.cut()
        with record(module_settings, url) as (key, server):
            eventually(lambda: server.pubsub_numsub(key)[0][1] == 1, 10, "it is subscribed again")
        change(module_settings, url)

        assert poll.recv(4_096).startswith(b"HTTP/1.1 200 ")
    with holding(client, reading_of(url, "wait=3"), 1) as (poll,):
        eventually(lambda: waiters(client, "long-poll") == 1, 10)
        proxy.hold()
        began = time.monotonic()
        answer = poll.recv(4_096)
        proxy.release()

        assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
        assert time.monotonic() - began < 5
    eventually(lambda: client.get(url).status_code == 200, 10)


def test_a_body_of_tiny_chunks_is_cut_and_delays_no_other_client(client):
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with sending(client, head, b"1\r\nx\r\n" * 10_000, 6):
        assert slowest(client) < SOON
