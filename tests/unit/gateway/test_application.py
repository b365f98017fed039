import dataclasses
import hashlib
import json
import pathlib

import pytest
import structlog.testing

from dispatch.broker.management import ManagementUnavailable
from dispatch.broker.queue_stats import QueueView
from dispatch.gateway.contract import response_models
from dispatch.gateway.http import problems
from dispatch.gateway.views import docs
from support.cases import each
from support.gateway_fakes import World, problem, record

QUEUE = QueueView(
    name="robot.task.q", role="work", ready=1, unacked=2, total=3, dead_lettering=None, consumers=1, publish_rate=0.0,
    deliver_rate=0.5, ack_rate=None, ttl=3_600.0, dead_letter_exchange="robot.task.dlx", max_length=12_000,
    delivery_limit=200, guard={"limit": 10_000, "refusing": False}, policy="robot-work", bindings=({"exchange": "e", "routingKey": "k", "headers": {}},), drift=(),
    as_of=1_795_487_760_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def client():
    return World().client()


# --- every error is a problem --------------------------------------------------------------------
@each(
    "path", ["/v1", "/v1/", "/v1/tasks/", "//v1/tasks", "/v1/tasks/a/b", "/v2/tasks", "/docs/", "/docs/../app.py", "/docs/%2e%2e/app.py", "/é", "/favicon.ico"],
)  # fmt: skip
def test_an_unknown_path_is_a_404_problem_and_never_a_redirect(client, path):
    problem(client.get(path), 404, "not-found")


@each(
    "path",
    [
        "//v1/tasks",
        "///v1/tasks",
        "//livez",
        "//docs/docs.js",
        "//",
        "/v1%2Ftasks",
        "/v1%2ftasks?limit=1",
        "/docs%2Fdocs.js",
    ],
)
def test_a_doubled_or_encoded_slash_is_a_404_whatever_follows(client, path):
    # The test client would take //v1 for a host.
    for method in ("GET", "POST", "BREW"):
        problem(client.open("/", method=method, environ_overrides={"PATH_INFO": path}), 404, "not-found")


@each(
    ("raw", "status"),
    [
        ("/v1/tasks?a=%2F", 422),
        ("/v1%2Ftasks", 404),
        ("/v1%2ftasks?limit=1", 404),
        ("http://localhost/v1%2Ftasks", 404),
    ],
)
def test_an_encoded_slash_is_no_slash(client, raw, status):
    query = raw.partition("?")[2]
    parts = {"PATH_INFO": "/v1/tasks", "QUERY_STRING": query, "RAW_URI": raw}  # as gunicorn makes them

    assert client.get("/", environ_overrides=parts).status_code == status


def test_the_instance_is_a_uri_reference(client):
    assert problem(client.get("/é x?secret=1"), 404, "not-found")["instance"] == "/%C3%A9%20x"


@each(
    ("method", "path"),
    [
        ("PUT", "/v1/tasks"),
        ("DELETE", "/v1/tasks"),
        ("POST", "/v1/tasks/x"),
        ("PATCH", "/livez"),
        ("TRACE", "/v1/tasks"),
        ("BREW", "/v1/tasks"),
    ],
)
def test_a_wrong_method_is_a_405_problem_with_allow(client, method, path):
    answer = client.open(path, method=method)

    problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["Allow"]


def test_options_names_the_methods(client):
    answer = client.options("/v1/tasks")

    assert (200, {"GET", "HEAD", "OPTIONS", "POST"}) == (answer.status_code, set(answer.headers["Allow"].split(", ")))
    assert answer.headers["X-Request-Id"]


def test_an_unforeseen_error_is_logged_and_answered_without_its_trace():
    def fail():
        raise RuntimeError("hunter2")

    client = World(queues=fail).client()
    with structlog.testing.capture_logs() as lines:
        answer = client.get("/v1/queues")

    problem(answer, 500, "internal-error")
    assert "hunter2" not in answer.text
    assert [RuntimeError] == [type(line["exc_info"]) for line in lines if "exc_info" in line]


def test_what_has_no_slug_is_about_blank():
    assert (problems.plain(418).type, problems.plain(418).title) == ("about:blank", "I'm a Teapot")


def test_every_problem_carries_the_callers_trace_and_request_id(client):
    answer = client.get("/nope", headers={"traceparent": f"00-{'c' * 32}-{'d' * 16}-01", "X-Request-Id": "rq-9"})
    body = problem(answer, 404, "not-found")

    assert (body["traceId"], body["requestId"]) == ("c" * 32, "rq-9")
    response_models.ProblemModel.model_validate(body)


def test_every_slug_of_the_contract_has_a_page(client):
    contract = (
        "unauthenticated insufficient-scope malformed-json validation-error unsupported-media-type body-too-large "
        "unknown-task-type invalid-idempotency-key idempotency-key-in-progress idempotency-key-reused quota-exceeded "
        "queue-depth-exceeded task-not-found task-expired broker-unavailable publish-unroutable "
        "gateway-busy too-many-jobs publish-unconfirmed store-unavailable stream-capacity not-found method-not-allowed internal-error"
    )
    for slug in contract.split():
        assert slug == client.get(f"/problems/{slug}").json["type"].removeprefix("/problems/")
    problem(client.get("/problems/nope"), 404, "not-found")


# --- types, queues, docs -------------------------------------------------------------------------
def test_task_types_are_described(client):
    listed = response_models.TaskTypeListModel.model_validate(client.get("/v1/task-types").json).items
    tidy = response_models.TaskTypeModel.model_validate(client.get("/v1/task-types/robot.tidy").json)

    assert [one.name for one in listed] == ["greet", "robot.tidy"]
    assert (listed[0].max_attempts, tidy.max_attempts) == (4, 2)
    assert [(rung.name, rung.seconds, rung.queue) for rung in tidy.ladder] == [("5m", 300, "robot.retry.q.5m")]
    assert "notBefore" in tidy.payload_schema["properties"]
    assert tidy.payload_schema["$schema"].endswith("2020-12/schema")
    problem(client.get("/v1/task-types/nope"), 404, "not-found")


def test_queues_are_shown():
    client = World(queues=lambda: [QUEUE]).client()

    assert [one.name for one in response_models.QueueListModel.model_validate(client.get("/v1/queues").json).items] == [
        "robot.task.q"
    ]
    assert response_models.QueueModel.model_validate(client.get("/v1/queues/robot.task.q").json).name == "robot.task.q"
    problem(client.get("/v1/queues/nope"), 404, "not-found")


def test_the_work_queue_shows_whether_this_gateways_guard_refuses():
    world = World(queues=lambda: [QUEUE, dataclasses.replace(QUEUE, name="robot.task.dlq", guard=None)])
    before, _ = world.client().get("/v1/queues").json["items"]
    world.guard.observe(101)
    work, dead = world.client().get("/v1/queues").json["items"]

    assert before["guard"] == {"limit": 10_000, "refusing": False}
    assert (work["guard"], dead["guard"]) == ({"limit": 10_000, "refusing": True}, None)


def test_queues_are_503_without_the_management_api():
    def fail():
        raise ManagementUnavailable("hunter2")

    answer = World(queues=fail).client().get("/v1/queues")

    problem(answer, 503, "broker-unavailable")
    assert "hunter2" not in answer.text


def test_docs_load_nothing_from_elsewhere(client):
    page = client.get("/docs")
    files = [part.split('"')[0] for part in page.text.replace('src="', 'href="').split('href="')[1:]]

    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert len(files) == 4
    for path in files:
        assert path.startswith("/docs/")
        with client.get(path) as answer:
            assert answer.status_code == 200
            assert "Date" not in answer.headers


def test_the_vendored_files_are_what_was_published():
    folder = docs.STATIC / "swagger-ui"
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest(), name
    assert {path.name for path in pathlib.Path(folder).iterdir()} >= {"LICENSE", "NOTICE"}


# --- what every response carries -----------------------------------------------------------------
@each("path", ["/v1/tasks", "/v1/task-types", "/livez", "/openapi.json", "/nope", "/v1/tasks?limit=0"])
def test_every_response_carries_the_request_id(client, path):
    answer = client.get(path, headers={"X-Request-Id": "rq-1"})

    assert (answer.headers["X-Request-Id"], answer.headers["X-Content-Type-Options"]) == ("rq-1", "nosniff")


def test_api_answers_are_private_and_problems_are_not_stored(client):
    assert client.get("/v1/tasks").headers["Cache-Control"] == "private, no-cache"
    assert client.get("/v1/tasks?limit=0").headers["Cache-Control"] == "no-store"


def test_each_request_is_one_line_in_the_log(client):
    with structlog.testing.capture_logs() as lines:
        client.post(
            "/v1/tasks", json={"type": "greet", "payload": {"message": "hunter2"}}, headers={"X-Request-Id": "rq-1"}
        )
        client.get("/livez")
        client.get("/nope")

    assert [(202, "rq-1", "local"), (404, lines[1]["request_id"], None)] == [
        (line["status"], line["request_id"], line["principal"]) for line in lines
    ]
    assert {"method", "path", "ms", "trace_id", "task_id"} < set(lines[0])
    assert lines[0]["task_id"]
    assert "hunter2" not in json.dumps(lines)


def test_a_record_is_shown_as_in_the_model():
    response_models.TaskModel.model_validate(record().to_json())
