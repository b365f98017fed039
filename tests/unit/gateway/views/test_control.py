"""Cancel and retry-now over HTTP: whose tasks, with which scope, and what is answered."""

import dataclasses

import pytest

from dispatch.config import api_keys
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.errors import InDoubt, Nacked, StoreUnavailable
from dispatch.gateway.contract import response_models
from dispatch.protocol.record import State
from support.cases import each
from support.gateway_fakes import FakeTasks, World, problem, record

PEPPER = "pepper"
OWN = record(principal="shop", state=State.RETRY_WAIT)
OTHER = record(principal="bank", state=State.RETRY_WAIT)


def keyed(*scopes):
    """A gateway with one API key of the principal ``shop``, and both tasks."""
    text = api_keys.token("shop", api_keys.new_secret())
    entry = api_keys.ApiKey("shop", api_keys.digest(PEPPER, text), frozenset(scopes))
    world = World(tasks=FakeTasks(OWN, OTHER), options={"api_keys": (str(entry),), "api_key_pepper": PEPPER})
    client = world.client()
    return world, lambda path, **more: client.post(path, headers={"Authorization": f"Bearer {text}"}, **more)


@pytest.fixture
def world():
    return World(tasks=FakeTasks(record(state=State.RUNNING, cancel_requested=True)))


def url(task, verb):
    return f"/v1/tasks/{task.task_id}/{verb}"


def test_the_answer_is_the_task_as_it_is_now_and_the_request_is_audited(world):
    (task,) = world.tasks.held.values()
    answer = world.client().post(url(task, "cancel"))
    shown = response_models.TaskModel.model_validate(answer.json)

    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/tasks/{task.task_id}")
    assert (shown.state, shown.cancel_requested) == (State.RUNNING, True)
    assert world.tasks.ordered == [("cancel", task.task_id, "local")]
    assert [(entry.verb, entry.target, entry.result) for entry in world.audit.entries] == [
        ("cancelTask", task.task_id, "ok")
    ]


@each(
    ("scopes", "verb", "task", "status"),
    [
        (("tasks:write",), "cancel", OWN, 202),
        (("tasks:write:greet",), "cancel", OWN, 202),
        (("tasks:write:robot.*",), "cancel", OWN, 403),
        (("tasks:write",), "cancel", OTHER, 404),
        (("tasks:control",), "cancel", OWN, 202),
        (("tasks:control",), "cancel", OTHER, 202),
        (("tasks:read-all",), "cancel", OTHER, 403),
        (("tasks:write",), "retry-now", OWN, 403),
        (("tasks:control",), "retry-now", OTHER, 202),
    ],
)
def test_who_may_do_what(scopes, verb, task, status):
    world, post = keyed(*scopes)
    answer = post(url(task, verb))

    assert answer.status_code == status
    assert len(world.tasks.ordered) == (status == 202)


def test_the_answer_to_an_operator_names_the_owner():
    _, post = keyed(api_keys.TASKS_CONTROL)

    assert post(url(OTHER, "cancel")).json["principal"] == "bank"


@each(
    ("refusal", "verb", "status", "slug"),
    [
        (TaskTerminal(dataclasses.replace(OWN, state=State.SUCCEEDED)), "cancel", 409, "task-terminal"),
        (TaskTerminal(dataclasses.replace(OWN, state=State.SUCCEEDED)), "retry-now", 409, "task-terminal"),
        (NotWaiting(dataclasses.replace(OWN, state=State.QUEUED)), "retry-now", 409, "not-waiting"),
        (UnknownTask(), "cancel", 404, "task-not-found"),
        (UnknownTask(), "retry-now", 410, "task-expired"),
        (StoreUnavailable(), "cancel", 503, "store-unavailable"),
    ],
)
def test_a_verb_that_does_not_apply_is_a_problem(refusal, verb, status, slug):
    world, post = keyed(api_keys.TASKS_CONTROL)
    world.tasks.refusal = refusal
    found = problem(post(url(OWN, verb)), status, slug)

    assert found.get("state") == (refusal.record.state.value if status == 409 else None)
    assert world.audit.entries[-1].result == slug


@each("error", [Nacked(), InDoubt()])
def test_a_retry_that_rabbitmq_does_not_take_is_recorded_all_the_same(error):
    world, post = keyed(api_keys.TASKS_CONTROL)
    world.tasks.refusal = error
    answer = post(url(OWN, "retry-now"))
    found = problem(answer, 503, "publish-unconfirmed")

    assert found["taskId"] == OWN.task_id
    assert "is recorded" in found["detail"]
    assert answer.headers["Retry-After"] == "2"


@each("verb", ["cancel", "retry-now"])
def test_what_is_no_task_is_not_found_and_a_body_is_refused(verb):
    _, post = keyed(api_keys.TASKS_CONTROL)

    problem(post(f"/v1/tasks/nothing/{verb}"), 404, "task-not-found")
    problem(post(url(OWN, verb), json={"force": True}), 422, "validation-error")
