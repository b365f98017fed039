"""The gateway as it is deployed, under gunicorn."""

import concurrent.futures
import http.client
import json
import signal
import socket
import time

import psutil
import pytest

from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually

BODY = {"type": "echo", "payload": {"message": "hi"}}


#: Long polls and streams that each process of this module's gateway admits for one principal.
SHARE = 4


#: Another project's, with which gunicorn would bind another port, start one process of another kind, and cut every path.
OTHERS = {
    "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --workers 1 --worker-class sync --limit-request-line 64",
    "FORWARDED_ALLOW_IPS": "*",
    "WEB_CONCURRENCY": "7",
    "PORT": "1",
    "SCRIPT_NAME": "/elsewhere",
    "FLASK_DEBUG": "1",
}


@pytest.fixture(scope="module")
def live(module_settings):
    own = module_settings.model_copy(update={"http_waits_per_principal": SHARE})
    with running_gateway(own, free_port(), environ=OTHERS) as made:
        yield made


def test_variables_of_another_project_change_nothing_and_are_named(live, module_settings):
    client, process, log = live
    ignored = [line["reason"] for line in map(json.loads, log.read_text().splitlines()) if "ignored" in line["event"]]
    children = psutil.Process(process.pid).children()
    environ = psutil.Process(process.pid).environ()

    assert len(children) == module_settings.http_workers
    assert sorted(reason.partition(" is ignored")[0] for reason in ignored) == sorted(OTHERS)
    assert "GUNICORN_CMD_ARGS" not in environ
    assert client.get("/livez", params={"long": "x" * 200}).status_code == 200


def test_many_clients_at_once_are_all_accepted(live):
    client, _, _ = live
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/tasks", json=BODY), range(200)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["taskId"] for answer in answers}) == 200


def test_bodies_in_chunks_are_read_and_bounded(live):
    client, _, _ = live
    headers = {"Content-Type": "application/json"}
    raw = json.dumps(BODY).encode()

    assert client.post("/v1/tasks", content=iter([raw[:9], raw[9:]]), headers=headers).status_code == 202
    too_large = client.post("/v1/tasks", content=iter([raw, b" " * 300_000]), headers=headers)
    assert (too_large.status_code, too_large.headers["Content-Type"]) == (413, "application/problem+json")
    assert client.post("/v1/tasks", content=b"x" * 300_000, headers=headers).status_code == 413


def test_waiters_beyond_the_share_of_a_principal_are_answered_at_once(live, module_settings):
    client, _, _ = live
    url = client.post("/v1/tasks", json=BODY).json()["statusUrl"]
    share = module_settings.http_workers * SHARE
    with concurrent.futures.ThreadPoolExecutor(4 * share) as pool:
        polls = [pool.submit(client.get, url, headers={"Prefer": "wait=3"}) for _ in range(4 * share)]
        eventually(lambda: any(poll.done() for poll in polls), 5, "those without a place are answered")
        began = time.monotonic()
        assert client.get("/livez").status_code == 200
        assert time.monotonic() - began < 2.5  # of 3
        answers = [poll.result() for poll in polls]

    waited = sum("Preference-Applied" in answer.headers for answer in answers)
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= waited <= share


def test_one_line_of_json_a_request_and_nothing_secret(live):
    client, _, log = live
    client.post("/v1/tasks", json=BODY, headers={"X-Request-Id": "rq-log", "Authorization": "Bearer hunter2"})

    def line():
        return next((json.loads(text) for text in log.read_text().splitlines() if "rq-log" in text), None)

    found = eventually(line)
    assert (found["status"], found["path"], found["level"]) == (202, "/v1/tasks", "info")
    assert (found["service"], found["logger"]) == ("gateway", "dispatch.access")
    assert "gunicorn.error" in {json.loads(text)["logger"] for text in log.read_text().splitlines()}
    assert "hunter2" not in log.read_text()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/tasks SPDY/9\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nContent Length: 3\r\n\r\n", 400),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 9_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X-Long: " + b"a" * 8_000 + b"\r\n") * 5, 431),
    ],
    ids=["version", "nonsense", "header name", "request line", "header size", "headers together"],
)
def test_what_is_no_http_gets_a_problem_that_quotes_nothing(live, sent, status):
    client, _, _ = live
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as connection:
        connection.sendall(sent)
        with http.client.HTTPResponse(connection) as answer:
            answer.begin()
            body = json.loads(answer.read())

    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (body["status"], body["type"], body["requestId"]) == (status, "about:blank", answer.headers["X-Request-Id"])
    assert not any(part in json.dumps(body) for part in ("SPDY", "nonsense", "Content Length", "a" * 40))


def test_headers_are_sent_once(live):
    client, _, _ = live
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=10)
    connection.request("GET", "/docs/docs.js")
    names = [name.lower() for name, _ in connection.getresponse().getheaders()]
    connection.close()

    assert len(names) == len(set(names))


def test_sigterm_ends_it_soon_and_without_noise(settings):
    with running_gateway(settings, free_port()) as (client, process, log):
        client.post("/v1/tasks", json=BODY)
        process.send_signal(signal.SIGTERM)

        assert process.wait(15) == 0
    assert "Traceback" not in log.read_text()
