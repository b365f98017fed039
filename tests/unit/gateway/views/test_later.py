"""`delaySeconds` and `runAt`: what is taken, what is refused, and when the task then wakes."""

import datetime as dt
import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.gateway.contract.request_models import SubmitOptions
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.views import later
from dispatch.protocol import delays
from dispatch.protocol.ids import timestamp
from dispatch.protocol.record import State
from support.cases import each
from support.gateway_fakes import World, problem, record

NOW = 1_795_487_760.25
LONGEST = delays.longest(22)


def options(**given):
    return SubmitOptions.model_validate_json(json.dumps(given))


def body(**given):
    return {"type": "greet", "payload": {"message": "hi"}, "options": given}


@pytest.fixture
def world():
    return World()


@pytest.fixture
def client(world):
    return world.client()


@given(st.integers(1, LONGEST), st.floats(1e9, 4e9))
def test_a_task_waits_for_as_many_seconds_as_its_client_asked_for(seconds, now):
    wakes = later.wakes_at(options(delaySeconds=seconds), now, LONGEST)

    assert delays.whole_seconds(wakes / 1_000 - now) == seconds


@given(st.integers(0, 86_400_000_000))
def test_a_task_wakes_at_the_millisecond_that_its_client_asked_for_or_at_the_next(micros):
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
    wakes = later.wakes_at(options(runAt=moment.isoformat()), moment.timestamp() - 10, LONGEST)
    since = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(milliseconds=1)

    assert wakes == math.ceil(since)


def test_no_delay_is_at_once():
    assert later.wakes_at(options(delaySeconds=0), NOW, 0) == 0


@each(
    ("given", "pointer"),
    [
        ({"delaySeconds": LONGEST + 1}, "/options/delaySeconds"),
        ({"delaySeconds": 10**30}, "/options/delaySeconds"),
        ({"runAt": timestamp(int((NOW + LONGEST + 1) * 1_000))}, "/options/runAt"),
        ({"runAt": "9999-12-31T23:59:59.999Z"}, "/options/runAt"),
    ],
)
def test_more_than_the_levels_can_delay_is_refused(given, pointer):
    with pytest.raises(Problem) as refused:
        later.wakes_at(options(**given), NOW, LONGEST)

    assert [error.pointer for error in refused.value.errors] == [pointer]


@each("given", [{"delaySeconds": 1}, {"runAt": "2099-01-01T00:00:00Z"}])
def test_without_levels_every_delay_is_refused(given):
    client = World(options={"delay_levels": 0}).client()

    (error,) = problem(client.post("/v1/tasks", json=body(**given)), 422, "validation-error")["errors"]
    assert error["code"] == "too_late"


@each(
    ("given", "pointer", "code"),
    [
        ({"delaySeconds": -1}, "/options/delaySeconds", "greater_than_equal"),
        ({"delaySeconds": 1.5}, "/options/delaySeconds", "int_type"),
        ({"delaySeconds": "60"}, "/options/delaySeconds", "int_type"),
        ({"delaySeconds": True}, "/options/delaySeconds", "int_type"),
        ({"delaySeconds": LONGEST + 1}, "/options/delaySeconds", "too_late"),
        ({"delaySeconds": 5, "runAt": "2099-01-01T00:00:00Z"}, "/options", "two_times"),
        ({"runAt": 1_795_487_760}, "/options/runAt", "rfc_3339"),
        ({"runAt": "1795487760"}, "/options/runAt", "rfc_3339"),
        ({"runAt": "2099-01-01"}, "/options/runAt", "rfc_3339"),
        ({"runAt": "2099-01-01T00:00:00"}, "/options/runAt", "rfc_3339"),
        ({"runAt": "2099-01-01 00:00:00Z"}, "/options/runAt", "rfc_3339"),
        ({"runAt": "2099-01-01T00:00:00+99:00"}, "/options/runAt", "rfc_3339"),
        ({"runAt": "2099-02-30T00:00:00Z"}, "/options/runAt", "rfc_3339"),
        ({"runAt": "2020-01-01T00:00:00Z"}, "/options/runAt", "not_in_the_future"),
        ({"runAt": "0001-01-01T00:00:00+14:00"}, "/options/runAt", "not_in_the_future"),
        ({"runAt": "2099-01-01T00:00:00Z"}, "/options/runAt", "too_late"),
        ({"later": 5}, "/options/later", "extra_forbidden"),
        ({"deadlineSeconds": 0}, "/options/deadlineSeconds", "greater_than_equal"),
        ({"deadlineSeconds": 4_194_304}, "/options/deadlineSeconds", "less_than_equal"),
        ({"deadlineSeconds": 1.5}, "/options/deadlineSeconds", "int_type"),
    ],
)
def test_what_is_no_time_in_the_future_is_refused(client, world, given, pointer, code):
    answer = problem(client.post("/v1/tasks", json=body(**given)), 422, "validation-error")

    assert [(error["pointer"], error["code"]) for error in answer["errors"]] == [(pointer, code)]
    assert world.submitter.submitted == []


@each("given", [{}, {"delaySeconds": None}, {"runAt": None}, {"delaySeconds": 0}, {"delaySeconds": 0.0}])
def test_no_options_and_no_delay_are_the_same(client, world, given):
    assert client.post("/v1/tasks", json=body(**given)).status_code == 202
    assert world.submitter.submitted[-1].wakes_at == 0


@each(("given", "deadline"), [({}, 0), ({"deadlineSeconds": None}, 0), ({"deadlineSeconds": 30}, 30)])
def test_a_deadline_is_handed_on(client, world, given, deadline):
    assert client.post("/v1/tasks", json=body(**given)).status_code == 202
    assert world.submitter.submitted[-1].deadline == deadline


@each("zone", ["Z", "z", "+00:00", "-07:30"])
def test_any_zone_is_taken(client, world, zone):
    soon = dt.datetime.now(dt.timezone(dt.timedelta(hours=-7, minutes=-30) if zone == "-07:30" else dt.timedelta()))
    text = (soon + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.5") + zone
    answer = client.post("/v1/tasks", json=body(runAt=text))

    assert answer.status_code == 202
    assert 3_599 < world.submitter.submitted[-1].wakes_at / 1_000 - time.time() < 3_601
    assert answer.json["wakesAt"].endswith(".500Z")


def test_a_delayed_task_is_looked_at_again_once_its_time_has_come(client):
    answer = client.post("/v1/tasks", json=body(delaySeconds=600))

    assert (answer.json["status"], answer.json["state"]) == ("PENDING", "DELAYED")
    assert 590 <= int(answer.headers["Retry-After"]) <= 600


def test_the_work_queues_guard_counts_no_delayed_task(client, world):
    counted = []
    world.guard.accepted = lambda: counted.append(1)
    client.post("/v1/tasks", json=body(delaySeconds=600))
    client.post("/v1/tasks", json=body())

    assert counted == [1]


def test_an_idempotency_key_stands_for_the_options_too(client, world):
    for wish in ({}, None, {"delaySeconds": None}, {"delaySeconds": 60}, {"delaySeconds": 61}, {"delaySeconds": 0}):
        request = {key: value for key, value in body().items() if key != "options"}
        request |= {} if wish is None else {"options": wish}
        client.post("/v1/tasks", json=request, headers={"Idempotency-Key": "k"})
    none, absent, null, sixty, other, zero = [each.fingerprint for each in world.submitter.submitted]

    assert none == absent == null
    assert len({none, sixty, other, zero}) == 4


def test_a_repeat_of_an_accepted_task_is_answered_from_its_record_once_its_time_has_passed(world):
    client, accepted = world.client(), record(state=State.RUNNING)
    world.tasks.held[accepted.task_id] = world.submitter.replayed = accepted
    world.submitter.keys["local:k"] = accepted.task_id
    past = body(runAt="2020-01-01T00:00:00Z")

    repeated = client.post("/v1/tasks", json=past, headers={"Idempotency-Key": "k"})
    problem(client.post("/v1/tasks", json=past, headers={"Idempotency-Key": "other"}), 422, "validation-error")

    assert (repeated.status_code, repeated.json["taskId"]) == (202, accepted.task_id)
