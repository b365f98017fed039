import pytest

from dispatch.config import api_keys
from dispatch.control.refusals import SignalKeyReused, TaskTerminal, TooManySignals, UnknownTask
from dispatch.gateway.contract import response_models
from dispatch.protocol import ids
from dispatch.protocol.record import State
from dispatch.protocol.waits import MAX_SIGNAL
from dispatch.store.signals import NewSignal
from support.gateway_fakes import World, problem, record

PEPPER = "pepper"


@pytest.fixture
def world():
    made = World()
    task = record(state=State.WAITING, waiting_for=("go",), wakes_at=9_000_000_000_000, step=1)
    made.tasks.held = {task.task_id: task}
    return made


@pytest.fixture
def task_id(world):
    return next(iter(world.tasks.held))


def test_a_signal_is_recorded_as_it_was_sent(world, task_id):
    answer = world.client().post(f"/v1/tasks/{task_id}/signals/go", json={"b": "ä", "a": 1})

    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/tasks/{task_id}")
    assert response_models.TaskModel.model_validate(answer.json).waiting_for == ["go"]
    assert world.signaller.signals == [(task_id, NewSignal("go", '{"a":1,"b":"ä"}', api_keys.LOCAL))]


def test_a_signal_needs_no_payload(world, task_id):
    assert world.client().post(f"/v1/tasks/{task_id}/signals/go").status_code == 202
    assert world.signaller.signals[0][1].payload == "{}"


def test_a_repeat_with_the_same_key_is_one_signal(world, task_id):
    world.signaller.replayed = True
    answer = world.client().post(f"/v1/tasks/{task_id}/signals/go", headers={"Idempotency-Key": '"k"'})

    assert answer.headers["Idempotent-Replayed"] == "true"
    assert world.signaller.signals[0][1].key == "k"


@pytest.mark.parametrize("name", ["-go", "a%20b", "a" * 65, "%C3%A4"])
def test_a_name_that_no_signal_can_have_is_refused(world, task_id, name):
    refused = problem(world.client().post(f"/v1/tasks/{task_id}/signals/{name}"), 422, "validation-error")

    assert refused["errors"][0]["pointer"] == "/path/name"


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"json": {"a": "x" * MAX_SIGNAL}}, 413, "body-too-large"),
        ({"json": [1]}, 422, "validation-error"),
        ({"data": b"{", "content_type": "application/json"}, 400, "malformed-json"),
        ({"data": b"a=1", "content_type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"),
        ({"headers": {"Idempotency-Key": "ä"}}, 400, "invalid-idempotency-key"),
    ],
)
def test_a_bad_request_signals_nothing(world, task_id, body, status, slug):
    problem(world.client().post(f"/v1/tasks/{task_id}/signals/go", **body), status, slug)

    assert world.signaller.signals == []


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [
        (TaskTerminal(record(state=State.SUCCEEDED)), 409, "task-terminal"),
        (TooManySignals(record()), 409, "too-many-signals"),
        (SignalKeyReused(record()), 422, "idempotency-key-reused"),
        (UnknownTask("gone"), 404, "task-not-found"),
    ],
)
def test_what_the_task_refuses(world, task_id, failure, status, slug):
    world.signaller.failure = failure

    problem(world.client().post(f"/v1/tasks/{task_id}/signals/go"), status, slug)


def test_a_task_that_is_not_the_principals_own_takes_no_signal_of_it_whatever_it_may_read(world, task_id):
    tokens = {scope: api_keys.token(scope[-3:], "s" * 43) for scope in ("tasks:write", "tasks:write:other")}
    scopes = {"tasks:write": "tasks:write+tasks:read-all", "tasks:write:other": "tasks:write:other"}
    entries = tuple(
        str(api_keys.ApiKey(scope[-3:], api_keys.digest(PEPPER, token), api_keys.scopes(scopes[scope])))
        for scope, token in tokens.items()
    )
    world.options = {"api_keys": entries, "api_key_pepper": PEPPER}
    client = world.client()
    own = record(principal="her")  # the id of the second key: the end of its scope
    world.tasks.held[own.task_id] = own

    def signal(task, scope):
        headers = {"Authorization": f"Bearer {tokens[scope]}"}
        return client.post(f"/v1/tasks/{task}/signals/go", headers=headers)

    problem(signal(task_id, "tasks:write"), 404, "task-not-found")
    problem(signal(ids.new_task_id(), "tasks:write"), 404, "task-not-found")
    problem(signal(own.task_id, "tasks:write:other"), 403, "insufficient-scope")
    assert world.signaller.signals == []
