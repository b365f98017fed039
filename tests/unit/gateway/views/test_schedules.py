"""``/v1/schedules``: what is refused, who may do what, and what a change leaves behind."""

import time

import pytest

from dispatch.config import api_keys
from dispatch.errors import NotSent
from dispatch.gateway.contract import schedule_models
from support.cases import each
from support.gateway_fakes import World, problem

PEPPER = "pepper"
BODY = {"type": "greet", "payload": {"message": "hi"}, "cron": "0 3 * * *", "timezone": "Europe/Berlin"}
WRITER = ("tasks:read", "tasks:write", "schedules:write")


def client(world, principal="shop", scopes=WRITER):
    """A client with an API key of its own."""
    text = api_keys.token(principal, api_keys.new_secret())
    entry = str(api_keys.ApiKey(principal, api_keys.digest(PEPPER, text), frozenset(scopes)))
    world.options = {"api_keys": (entry,), "api_key_pepper": PEPPER}
    made = world.client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    return made


@pytest.fixture
def world():
    return World()


def put(made, name="nightly", headers=None, **more):
    return made.put(f"/v1/schedules/{name}", json={**BODY, **more}, headers=headers)


def test_a_schedule_is_created_shown_and_listed(world):
    made = client(world)
    answer = put(made, options={"labels": {"customer": "acme"}, "deadlineSeconds": 60}, jitterSeconds=5)
    shown = made.get("/v1/schedules/nightly")

    assert (answer.status_code, shown.status_code) == (201, 200)
    assert answer.headers["ETag"] == shown.headers["ETag"] == f'"{shown.json["revision"]}"'
    assert made.get("/v1/schedules").json["items"] == [shown.json] == [answer.json]
    schedule_models.ScheduleModel.model_validate(shown.json)
    assert {name: shown.json[name] for name in ("overlap", "catchUp", "paused", "principal", "lastRun", "fired")} == {
        "overlap": "skip", "catchUp": "last", "paused": False, "principal": "shop", "lastRun": None, "fired": 0,
    }  # fmt: skip
    assert shown.json["options"] == {"labels": {"customer": "acme"}, "deadlineSeconds": 60}
    assert len(shown.json["nextRuns"]) == 5
    assert [name for name, _ in world.ticks.submitted] == ["nightly"]


def test_the_same_request_again_changes_nothing(world):
    made = client(world)
    first, again = put(made), put(made)

    assert (again.status_code, again.json["revision"]) == (200, first.json["revision"])
    assert len(world.ticks.submitted) == 1


def test_a_change_may_expect_a_revision_or_none(world):
    made = client(world)
    revision = put(made).json["revision"]
    problem(put(made, headers={"If-None-Match": "*"}), 409, "schedule-exists")
    problem(put(made, headers={"If-Match": '"1"'}, paused=True), 412, "schedule-changed")
    problem(put(made, headers={"If-Match": "nonsense"}, paused=True), 412, "schedule-changed")
    problem(put(made, name="new", headers={"If-Match": f'"{revision}"'}), 412, "schedule-changed")
    changed = put(made, headers={"If-Match": f'"{revision}"'}, paused=True)

    assert changed.status_code == 200
    assert changed.json["revision"] > revision
    assert (changed.json["nextRuns"], changed.json["waitsAs"]) == ([], None)


@each(
    ("changed", "pointer"),
    [
        ({"cron": "* * * *"}, "/cron"), ({"cron": "0 0 31 2 *"}, "/cron"), ({"cron": 5}, "/cron"), ({"cron": "1," * 500}, "/cron"),
        ({"timezone": "Mars/Olympus"}, "/timezone"), ({"timezone": "../UTC"}, "/timezone"), ({"overlap": "both"}, "/overlap"),
        ({"catchUp": "all"}, "/catchUp"), ({"jitterSeconds": -1}, "/jitterSeconds"), ({"jitterSeconds": 3_601}, "/jitterSeconds"),
        ({"payload": {"message": 1}}, "/payload/message"), ({"payload": {}}, "/payload/message"), ({"paused": "yes"}, "/paused"),
        ({"options": {"labels": {"schedule": "x"}}}, "/options/labels"), ({"options": {"runAt": "2030-01-01T00:00:00Z"}}, "/options/runAt"),
        ({"options": {"labels": {str(n): "x" for n in range(8)}}}, "/options/labels"), ({"extra": 1}, "/extra"),
    ],
)  # fmt: skip
def test_what_is_not_valid_has_a_pointer_and_leaves_nothing(world, changed, pointer):
    answer = problem(put(client(world), **changed), 422, "validation-error")

    assert pointer in [error["pointer"] for error in answer["errors"]]
    assert world.schedules.entries == {}


@each("name", ["Nightly", "-a", "a-", "a b", "a" * 64, "ä", ".."])
def test_a_name_that_can_be_none(world, name):
    assert put(client(world), name=name).status_code in {404, 422}
    assert world.schedules.entries == {}


def test_an_unknown_type_and_an_internal_one_are_refused(world):
    made = client(world)
    problem(put(made, type="no.such"), 422, "unknown-task-type")
    problem(put(made, type="robot.schedule"), 422, "unknown-task-type")


@each(
    ("scopes", "type"),
    [(("tasks:read", "tasks:write"), "greet"), (("schedules:write",), "greet"), (("schedules:write", "tasks:write:robot.*"), "greet")],
)  # fmt: skip
def test_a_change_needs_its_scope_and_the_right_to_the_type(world, scopes, type):
    problem(put(client(world, scopes=scopes), type=type), 403, "insufficient-scope")
    assert world.schedules.entries == {}


def test_the_right_to_one_type_is_enough_for_that_type(world):
    made = client(world, scopes=("schedules:write", "tasks:write:robot.*"))

    assert put(made, type="robot.tidy").status_code == 201


@each(
    ("method", "suffix"),
    [("get", ""), ("delete", ""), ("post", "/pause"), ("post", "/resume"), ("post", "/run-now")],
)
def test_anothers_schedule_is_there_for_operators_only(method, suffix):
    world = World()
    put(client(world))
    path = f"/v1/schedules/nightly{suffix}"
    problem(getattr(client(world, "bank"), method)(path), 404, "schedule-not-found")
    operator = client(world, "ops", ("tasks:read-all", "schedules:write"))

    assert getattr(operator, method)(path).status_code in {200, 202, 204}


def test_a_name_is_anothers_for_every_put(world):
    put(client(world))
    problem(put(client(world, "bank")), 409, "schedule-exists")
    problem(put(client(world, "ops", (*WRITER, "tasks:read-all"))), 409, "schedule-exists")
    assert client(world, "bank").get("/v1/schedules").json == {"items": []}
    problem(client(world, "bank").get("/v1/schedules?principal=*"), 403, "insufficient-scope")


def test_verbs_on_what_is_not_there(world):
    made = client(world)
    for answer in (
        made.get("/v1/schedules/x"), made.delete("/v1/schedules/x"), made.post("/v1/schedules/x/pause"),
        made.post("/v1/schedules/x/resume"), made.post("/v1/schedules/x/run-now"),
    ):  # fmt: skip
        problem(answer, 404, "schedule-not-found")


def test_pause_resume_and_delete(world):
    made = client(world)
    created = put(made).json
    paused, twice = made.post("/v1/schedules/nightly/pause").json, made.post("/v1/schedules/nightly/pause").json
    resumed = made.post("/v1/schedules/nightly/resume").json
    gone = made.delete("/v1/schedules/nightly")
    again = put(made)

    assert created["revision"] < paused["revision"] == twice["revision"] < resumed["revision"]
    assert (paused["paused"], resumed["paused"], gone.status_code, again.status_code) == (True, False, 204, 201)
    assert again.json["revision"] > resumed["revision"]
    assert [entry.verb for entry in world.audit.entries] == [
        "putSchedule", "pauseSchedule", "pauseSchedule", "resumeSchedule", "deleteSchedule", "putSchedule",
    ]  # fmt: skip
    assert {entry.target for entry in world.audit.entries} == {"nightly"}


def test_a_wait_that_is_not_confirmed_is_no_success_and_its_repeat_is(world):
    made = client(world)
    world.ticks.error = NotSent()
    problem(put(made), 503, "schedule-unconfirmed")
    world.ticks.error = None
    answer = put(made)

    assert answer.status_code == 200
    assert len(world.ticks.submitted) == 1


def test_run_now_submits_for_the_owner_and_is_refused_while_the_queue_is_full(world):
    put(client(world), options={"labels": {"customer": "acme"}})
    made = client(world, "ops", ("tasks:read-all", "schedules:write"))
    answer = made.post("/v1/schedules/nightly/run-now")
    world.guard.observe(101, time.monotonic())
    problem(made.post("/v1/schedules/nightly/run-now"), 429, "queue-depth-exceeded")
    problem(made.post("/v1/schedules/nightly/run-now", headers={"Idempotency-Key": ""}), 429, "queue-depth-exceeded")
    (submission,) = world.submitter.submitted

    assert answer.status_code == 202
    assert (submission.principal, submission.type.name) == ("shop", "greet")
    assert dict(submission.labels) == {"customer": "acme", "schedule": "nightly"}
