import dataclasses
import io
import json
import re
import threading
import time
import uuid

import pytest

from dispatch.errors import InDoubt, Nacked, NotSent, StoreUnavailable, Unroutable
from dispatch.gateway.contract import response_models
from dispatch.protocol import ids
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.idempotency import KeyInProgress, KeyReused
from support.cases import each
from support.gateway_fakes import FakeTasks, World, problem, record
from support.waiting import eventually

BODY = {"type": "greet", "payload": {"message": "hi"}}


@pytest.fixture
def world():
    return World()


@pytest.fixture
def client(world):
    return world.client()


# --- submitting ----------------------------------------------------------------------------------
def test_an_accepted_task_is_answered_with_202_and_where_to_look(client, world):
    answer = client.post("/v1/tasks", json=BODY)
    body = answer.json

    assert answer.status_code == 202
    assert f"/v1/tasks/{body['taskId']}" == body["statusUrl"] == answer.headers["Location"]
    assert answer.headers["Retry-After"] == "1"
    assert "Idempotent-Replayed" not in answer.headers
    assert body["status"] == "PENDING"
    assert world.submitter.submitted[0].type.name == "greet"
    response_models.TaskModel.model_validate(body)


def test_the_payload_goes_on_as_it_was_sent_without_defaults(client, world):
    payload = {"message": "hi", "notBefore": "2026-11-24T02:36:00Z", "tags": ["a"]}

    assert client.post("/v1/tasks", json={"type": "greet", "payload": payload, "options": {}}).status_code == 202
    assert world.submitter.submitted[0].payload == payload


def test_the_request_id_is_echoed_and_handed_on(client, world):
    answer = client.post("/v1/tasks", json=BODY, headers={"X-Request-Id": "rq-0002"})

    assert "rq-0002" == answer.headers["X-Request-Id"] == answer.json["requestId"]
    assert world.submitter.submitted[0].request_id == "rq-0002"


def test_an_unusable_request_id_is_replaced(client):
    answer = client.post("/v1/tasks", json=BODY, headers={"X-Request-Id": "a b"})

    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Request-Id"] == answer.json["requestId"]


def test_the_callers_trace_is_continued_with_a_span_of_our_own(client, world):
    given = f"00-{'c' * 32}-{'d' * 16}-00"
    answer = client.post("/v1/tasks", json=BODY, headers={"traceparent": given})
    handed_on = world.submitter.submitted[0].traceparent

    assert "c" * 32 == answer.json["traceId"] == ids.trace_id(handed_on)
    assert given != handed_on
    assert handed_on.endswith("-00")


@each("given", [None, "nonsense", f"00-{'0' * 32}-{'d' * 16}-01", f"ff-{'c' * 32}-{'d' * 16}-01"])
def test_without_a_usable_trace_one_is_started(client, given):
    headers = {"traceparent": given} if given else {}

    assert re.fullmatch(r"[0-9a-f]{32}", client.post("/v1/tasks", json=BODY, headers=headers).json["traceId"])


def test_an_idempotency_key_and_a_fingerprint_are_handed_on(client, world):
    keyed = {"Idempotency-Key": '"abc"'}
    client.post("/v1/tasks", json=BODY, headers=keyed)
    client.post("/v1/tasks", data=json.dumps(BODY, indent=3), content_type="application/json", headers=keyed)
    client.post("/v1/tasks", json={"type": "greet", "payload": {"message": "ho"}}, headers=keyed)
    client.post("/v1/tasks", json=BODY)
    first, spaced, other, keyless = world.submitter.submitted

    assert (first.idempotency_key, keyless.idempotency_key) == ("abc", None)
    assert first.fingerprint == spaced.fingerprint != other.fingerprint
    assert keyless.fingerprint == ""


def test_a_replay_is_marked_as_one(client, world):
    world.submitter.replayed = record(state=State.SUCCEEDED)
    answer = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": "abc"})

    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (202, "true")
    assert answer.headers["Retry-After"]


@each("key", ["", '"', "a b", "x" * 256, "clé"])
def test_an_unusable_idempotency_key_is_refused(client, world, key):
    answer = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": key})

    problem(answer, 400, "invalid-idempotency-key")
    assert world.submitter.submitted == []


@pytest.mark.parametrize(
    ("failure", "status", "slug", "retry_after"),
    [
        (NotSent("amqp://user:hunter2@host"), 503, "broker-unavailable", "2"),
        (Unroutable("hunter2"), 503, "publish-unroutable", "10"),
        (StoreUnavailable("redis://:hunter2@host"), 503, "store-unavailable", "2"),
        (Nacked("hunter2"), 429, "queue-depth-exceeded", "5"),
        (InDoubt("hunter2"), 503, "publish-unconfirmed", "5"),
        (KeyInProgress(2.3), 409, "idempotency-key-in-progress", "3"),
        (KeyInProgress(0.0), 409, "idempotency-key-in-progress", "1"),
        (KeyReused("hunter2"), 422, "idempotency-key-reused", None),
    ],
)
def test_what_went_wrong_downstream_becomes_a_problem(client, world, failure, status, slug, retry_after):
    world.submitter.failure = failure
    answer = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": "abc"})

    problem(answer, status, slug)
    assert retry_after == answer.headers.get("Retry-After")
    assert "hunter2" not in answer.text


def test_in_doubt_names_the_task_and_the_way_to_repeat(client, world):
    world.submitter.failure = InDoubt()
    world.submitter.failure.task_id = "abc"
    body = problem(client.post("/v1/tasks", json=BODY), 503, "publish-unconfirmed")

    assert (body["taskId"], body["statusUrl"]) == ("abc", "/v1/tasks/abc")
    assert "same Idempotency-Key" in body["detail"]


def test_an_unforeseen_error_while_submitting_promises_nothing(client, world):
    world.submitter.failure = RuntimeError("hunter2")
    answer = client.post("/v1/tasks", json=BODY)

    problem(answer, 503, "publish-unconfirmed")
    assert "hunter2" not in answer.text


# --- what can be wrong with a body ---------------------------------------------------------------
@each(
    ("raw", "status", "slug"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b'{"type": "greet", "type": "greet", "payload": {}}', 400, "malformed-json"),
        (b'{"type": NaN}', 400, "malformed-json"),
        (b"\xff", 400, "malformed-json"),
        (b"[" * 100_000, 400, "malformed-json"),
        (b"1" * 10_000, 400, "malformed-json"),
        (b'{"type": "greet", "payload": {"message": "\\ud800"}}', 400, "malformed-json"),
        (b"[]", 422, "validation-error"),
        (b"null", 422, "validation-error"),
        (b'"x"', 422, "validation-error"),
    ],
)
def test_a_body_that_is_no_object_is_refused(client, world, raw, status, slug):
    problem(client.post("/v1/tasks", data=raw, content_type="application/json"), status, slug)
    assert world.submitter.submitted == []


@each(
    ("body", "errors"),
    [
        ({}, {"/type": "missing", "/payload": "missing"}),
        ({**BODY, "extra": 1}, {"/extra": "extra_forbidden"}),
        ({**BODY, "options": {"eta": 1}}, {"/options/eta": "extra_forbidden"}),
        ({**BODY, "options": None}, {"/options": "model_type"}),
        ({"type": 1, "payload": {}}, {"/type": "string_type"}),
        ({"type": "", "payload": {}}, {"/type": "string_too_short"}),
        ({"type": "greet", "payload": []}, {"/payload": "dict_type"}),
        ({"type": "greet", "payload": {}}, {"/payload/message": "missing"}),
        ({"type": "greet", "payload": {"message": 1}}, {"/payload/message": "string_type"}),
        ({"type": "greet", "payload": {"message": "a", "times": "1"}}, {"/payload/times": "int_type"}),
        ({"type": "greet", "payload": {"message": "a", "times": True}}, {"/payload/times": "int_type"}),
        (
            {"type": "greet", "payload": {"message": "a", "not_before": None, "x/y~z": 1}},
            {"/payload/x~1y~0z": "extra_forbidden"},
        ),
        ({"type": "greet", "payload": {"message": "a", "tags": ["b", 1]}}, {"/payload/tags/1": "string_type"}),
        (
            {"type": "greet", "payload": {"message": "a", "notBefore": "soon"}},
            {"/payload/notBefore": "datetime_parsing"},
        ),
    ],
)
def test_each_thing_that_is_wrong_has_a_pointer(client, world, body, errors):
    found = problem(client.post("/v1/tasks", json=body), 422, "validation-error")["errors"]

    assert errors == {error["pointer"]: error["code"] for error in found}
    assert all(error["detail"].endswith(".") for error in found)
    assert world.submitter.submitted == []


def test_a_body_wrong_in_very_many_places_has_a_short_answer(client):
    payload = {"message": "a", **{f"x{number}": 1 for number in range(5_000)}}
    answer = client.post("/v1/tasks", json={"type": "greet", "payload": payload})

    assert len(problem(answer, 422, "validation-error")["errors"]) == 50


def test_what_was_sent_is_never_echoed(client):
    payload = {"message": ["hunter2"], "times": "hunter2", "notBefore": "hunter2"}

    assert "hunter2" not in client.post("/v1/tasks", json={"type": "greet", "payload": payload}).text


def test_an_unknown_type_comes_with_the_nearest_names(client):
    body = problem(client.post("/v1/tasks", json={"type": "robot.tidi", "payload": {}}), 422, "unknown-task-type")

    assert body["nearest"] == ["robot.tidy"]
    assert [{key: error[key] for key in ("pointer", "code")} for error in body["errors"]] == [
        {"pointer": "/type", "code": "unknown_task_type"}
    ]
    assert "robot.tidy" in body["detail"]


@each(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_only_plain_json_is_read(client, headers):
    problem(client.post("/v1/tasks", data=json.dumps(BODY), headers=headers), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_json_may_be_declared_as_utf_8(client, content_type):
    assert client.post("/v1/tasks", data=json.dumps(BODY), content_type=content_type).status_code == 202


def test_a_large_body_is_refused(client, world):
    raw = json.dumps({"type": "greet", "payload": {"message": "x" * 262_144}})

    problem(client.post("/v1/tasks", data=raw, content_type="application/json"), 413, "body-too-large")
    assert world.submitter.submitted == []


def test_a_large_body_in_chunks_is_refused(client):
    # What fits is valid JSON by itself: cutting the rest off would accept it.
    raw = io.BytesIO(json.dumps(BODY).encode() + b" " * 262_144 + b"!")
    environ = {"wsgi.input": raw, "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post("/v1/tasks", content_type="application/json", environ_overrides=environ)

    problem(answer, 413, "body-too-large")


def test_a_small_body_in_chunks_is_read(client):
    environ = {
        "wsgi.input": io.BytesIO(json.dumps(BODY).encode()),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }

    assert client.post("/v1/tasks", content_type="application/json", environ_overrides=environ).status_code == 202


# --- the 429 guard -------------------------------------------------------------------------------
def test_a_full_queue_is_answered_with_429_and_an_honest_wait(client, world):
    now = time.monotonic()
    for second in range(11):
        world.guard.observe(300 - 10 * second, now - 10 + second)
    answer = client.post("/v1/tasks", json=BODY)

    problem(answer, 429, "queue-depth-exceeded")
    assert answer.headers["Retry-After"] == "10"
    assert world.submitter.submitted == []


def test_a_full_queue_still_answers_a_repeat_whose_task_may_run(client, world):
    world.guard.observe(1_000)
    accepted, rejected = record(), record(state=State.REJECTED)
    world.tasks.held |= {one.task_id: one for one in (accepted, rejected)}
    world.submitter.keys = {
        "local:abc": accepted.task_id, "local:cut-off": "", "local:rejected": rejected.task_id, "local:expired": "0",
    }  # fmt: skip

    def status(key):
        return client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": key}).status_code

    assert [status(key) for key in ("abc", "cut-off")] == [202, 202]
    # These would be new tasks: a key that was used long ago is no way around the limits.
    assert [status(key) for key in ("new", "rejected", "expired")] == [429, 429, 429]


def test_a_stale_reading_lets_tasks_in(client, world):
    world.guard.observe(1_000_000, time.monotonic() - 6)

    assert client.post("/v1/tasks", json=BODY).status_code == 202


def test_a_queue_at_its_limit_still_takes_one(client, world):
    world.guard.observe(100)

    assert client.post("/v1/tasks", json=BODY).status_code == 202


# --- looking -------------------------------------------------------------------------------------
def held(**changes):
    one = record(**changes)
    world = World(tasks=FakeTasks(one))
    return one, world, world.client()


def test_a_task_is_shown_whole():
    one, _, client = held(
        state=State.RETRY_WAIT,
        attempt=2,
        queue="robot.retry.q.5m",
        next_attempt_at=int(time.time() * 1_000) + 90_000,
        progress={"percent": 40, "message": "area 2 of 5"},
        error=ErrorInfo("upstream-timeout", "…", retryable=True),
        started_at=1_795_487_760_000,
    )
    answer = client.get(f"/v1/tasks/{one.task_id}")

    assert (200, one.to_json()) == (answer.status_code, answer.json)
    assert (answer.headers["ETag"], answer.headers["Cache-Control"]) == ('"2"', "private, no-cache")
    assert 60 <= int(answer.headers["Retry-After"]) <= 90
    response_models.TaskModel.model_validate(answer.json)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": State.QUEUED}, "1"),
        ({"state": State.RUNNING}, "1"),
        ({"state": State.RETRY_WAIT}, "1"),
        ({"state": State.RETRY_WAIT, "next_attempt_at": 1}, "1"),
        ({"state": State.SUCCEEDED}, None),
        ({"state": State.DEAD_LETTERED}, None),
    ],
)
def test_retry_after_is_there_until_the_end(changes, expected):
    one, _, client = held(**changes)

    assert expected == client.get(f"/v1/tasks/{one.task_id}").headers.get("Retry-After")


def test_an_unchanged_task_is_304_with_retry_after():
    one, _, client = held()
    answer = client.get(f"/v1/tasks/{one.task_id}", headers={"If-None-Match": '"2"'})

    assert (answer.status_code, answer.data) == (304, b"")
    assert (answer.headers["ETag"], answer.headers["Retry-After"]) == ('"2"', "1")
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert "X-Request-Id" in answer.headers
    assert client.get(f"/v1/tasks/{one.task_id}", headers={"If-None-Match": '"1"'}).status_code == 200


def test_head_has_the_headers_only():
    one, _, client = held()
    answer = client.head(f"/v1/tasks/{one.task_id}")

    assert (answer.status_code, answer.data, answer.headers["ETag"]) == (200, b"", '"2"')


def test_an_unknown_task_is_404_and_an_old_one_410(client):
    old = str(uuid.UUID(int=(int((time.time() - 86_401) * 1_000) << 80) | (0x7 << 76) | (0b10 << 62)))
    young = ids.new_task_id()

    problem(client.get(f"/v1/tasks/{young}"), 404, "task-not-found")
    problem(client.get(f"/v1/tasks/{old}"), 410, "task-expired")
    problem(client.get(f"/v1/tasks/{old}/events"), 410, "task-expired")
    for odd in ("x", str(uuid.uuid4()), "a" * 129, "%00", "é", old.upper(), "..", "a b"):
        problem(client.get(f"/v1/tasks/{odd}"), 404, "task-not-found")


def test_redis_down_is_503():
    one, world, client = held()
    world.tasks.failure = StoreUnavailable()

    answer = client.get(f"/v1/tasks/{one.task_id}")

    problem(answer, 503, "store-unavailable")
    assert answer.headers["Retry-After"] == "2"


def test_the_hops_are_a_list():
    one, _, client = held()
    answer = client.get(f"/v1/tasks/{one.task_id}/events")

    assert [response_models.EventModel.model_validate(hop).kind for hop in answer.json] == ["accepted"]


# --- waiting -------------------------------------------------------------------------------------
def test_prefer_wait_answers_as_soon_as_the_task_changes():
    one, world, client = held()
    world.tasks.on_wait = lambda: world.tasks.held.update({one.task_id: dataclasses.replace(one, revision=3)})
    answer = client.get(f"/v1/tasks/{one.task_id}", headers={"Prefer": "wait=30"})

    assert [(one.task_id, 2, 20)] == world.tasks.waited
    assert (answer.headers["Preference-Applied"], answer.headers["ETag"]) == ("wait=20", '"3"')


def test_prefer_wait_with_an_etag_ends_in_304_when_nothing_happens():
    one, world, client = held()
    answer = client.get(f"/v1/tasks/{one.task_id}", headers={"Prefer": "wait=1", "If-None-Match": '"2"'})

    assert (
        answer.status_code,
        answer.headers["Preference-Applied"],
        answer.headers["Retry-After"],
    ) == (304, "wait=1", "1")
    assert [(one.task_id, 2, 1)] == world.tasks.waited


@pytest.mark.parametrize(
    ("changes", "headers"), [({"state": State.SUCCEEDED}, {}), ({}, {"If-None-Match": '"1"'})], ids=["ended", "news"]
)
def test_there_is_nothing_to_wait_for(changes, headers):
    one, world, client = held(**changes)
    answer = client.get(f"/v1/tasks/{one.task_id}", headers={"Prefer": "wait=5", **headers})

    assert world.tasks.waited == []
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=5")


def test_without_prefer_no_request_waits():
    one, world, client = held()

    assert "Preference-Applied" not in client.get(f"/v1/tasks/{one.task_id}").headers
    assert world.tasks.waited == []


def test_beyond_the_places_to_wait_the_answer_comes_at_once():
    one, world, _ = held()
    world.options = {"http_waits": "4"}
    app = world.app()
    released = threading.Event()
    world.tasks.on_wait = lambda: released.wait(10)
    url, asking = f"/v1/tasks/{one.task_id}", {"Prefer": "wait=20"}
    waiters = [
        threading.Thread(target=app.test_client().get, args=(url,), kwargs={"headers": asking}) for _ in range(4)
    ]
    for waiter in waiters:
        waiter.start()
    try:
        eventually(lambda: len(world.tasks.waited) == 4)
        fifth = app.test_client().get(url, headers=asking)
    finally:
        released.set()
        for waiter in waiters:
            waiter.join()

    assert (fifth.status_code, fifth.headers["Retry-After"]) == (200, "1")
    assert "Preference-Applied" not in fifth.headers
    assert "Preference-Applied" in app.test_client().get(url, headers=asking).headers


def test_a_place_is_given_back_when_the_wait_fails():
    one, world, client = held()

    def fail():
        raise StoreUnavailable

    world.tasks.on_wait = fail
    for _ in range(5):
        problem(client.get(f"/v1/tasks/{one.task_id}", headers={"Prefer": "wait=5"}), 503, "store-unavailable")


# --- listing -------------------------------------------------------------------------------------
def test_ones_own_tasks_are_listed_with_filters(client, world):
    client.get("/v1/tasks?status=FAIL&state=EXPIRED&type=greet&limit=7&cursor=abc")

    assert world.tasks.listed == {
        "principal": "local", "status": "FAIL", "state": "EXPIRED", "type": "greet", "limit": 7, "cursor": "abc",
        "error_type": None, "request_id": None, "labels": {}, "since": None, "until": None,
    }  # fmt: skip


def test_a_page_has_the_cursor_of_the_next():
    world = World(tasks=FakeTasks(record(), record()))
    answer = world.client().get("/v1/tasks?limit=1")

    response_models.TaskListModel.model_validate(answer.json)
    assert answer.json["next"] == "more"
    assert (world.client().get("/v1/tasks"), world.tasks.listed["limit"])[1] == 50


@each(
    ("query", "pointer", "code"),
    [
        ("status=DONE", "/query/status", "enum"),
        ("status=", "/query/status", "enum"),
        ("state=queued", "/query/state", "enum"),
        ("limit=0", "/query/limit", "greater_than_equal"),
        ("limit=201", "/query/limit", "less_than_equal"),
        ("limit=many", "/query/limit", "int_parsing"),
        ("limit=1&limit=2", "/query/limit", "duplicate"),
        ("type=", "/query/type", "string_too_short"),
        ("offset=3", "/query/offset", "extra_forbidden"),
        ("cursor=bad", "/query/cursor", "invalid_cursor"),
    ],
)
def test_a_wrong_query_parameter_has_a_pointer(client, query, pointer, code):
    body = problem(client.get(f"/v1/tasks?{query}"), 422, "validation-error")

    assert [(pointer, code)] == [(error["pointer"], error["code"]) for error in body["errors"]]
