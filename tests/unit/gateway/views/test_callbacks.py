import time

import pytest

from dispatch.control.refusals import TaskTerminal, TooManySignals, UnknownTask
from dispatch.gateway.contract import response_models
from dispatch.protocol.callbacks import Callback, CallbackSecrets
from dispatch.protocol.record import State
from dispatch.protocol.waits import MAX_SIGNAL
from support.gateway_fakes import World, problem, record

SECRET, OTHER = "s" * 32, "o" * 32


@pytest.fixture
def world():
    made = World(options={"callback_secrets": SECRET, "api_keys": ()})
    task = record(state=State.WAITING)
    made.tasks.held = {task.task_id: task}
    return made


def url(world, secret=SECRET, valid=60):
    (task_id,) = world.tasks.held
    callback = Callback(task_id, "finished", int(time.time()) + valid)
    return f"/v1/callbacks/{CallbackSecrets.parse(secret).token(callback)}"


def test_a_callback_is_a_signal_and_needs_no_key(world):
    # As from another machine, through a proxy: without API keys nothing else is open to it.
    environ = {"REMOTE_ADDR": "203.0.113.7", "HTTP_HOST": "dispatch.example", "HTTP_FORWARDED": "for=203.0.113.7"}
    answer = world.client().post(url(world), json={"state": "DOCKED"}, environ_overrides=environ)
    ((task_id, signal),) = world.signaller.signals

    assert (answer.status_code, answer.json) == (202, {"signal": "finished"})
    assert response_models.CallbackModel.model_validate(answer.json).signal == "finished"
    assert (task_id, signal.name, signal.payload, signal.by) == (
        *world.tasks.held,
        "finished",
        '{"state":"DOCKED"}',
        "callback",
    )


def test_the_same_callback_again_has_the_same_key_and_another_body_has_another(world):
    path, client = url(world), world.client()
    for body in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2}):
        client.post(path, json=body)
    first, again, other = (signal.key for _, signal in world.signaller.signals)

    assert first == again != other


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [
        (TaskTerminal(record(state=State.SUCCEEDED)), 410, "callback-over"),
        (UnknownTask("gone"), 410, "callback-over"),
        (TooManySignals(record()), 409, "too-many-signals"),
    ],
)
def test_what_the_task_refuses(world, failure, status, slug):
    world.signaller.failure = failure

    problem(world.client().post(url(world)), status, slug)


@pytest.mark.parametrize(
    ("changes", "body", "status", "slug"),
    [
        ({"secret": OTHER}, {}, 404, "callback-not-found"),
        ({"valid": -1}, {}, 410, "callback-over"),
        ({}, {"json": {"a": "x" * MAX_SIGNAL}}, 413, "body-too-large"),
        ({}, {"json": []}, 422, "validation-error"),
        ({}, {"data": b"a", "content_type": "text/plain"}, 415, "unsupported-media-type"),
    ],
)
def test_a_bad_callback_signals_nothing(world, changes, body, status, slug):
    problem(world.client().post(url(world, **changes), **body), status, slug)

    assert world.signaller.signals == []


def test_without_a_secret_every_callback_is_unknown(world):
    path = url(world)
    world.options = {}

    problem(world.client().post(path), 404, "callback-not-found")


def test_no_token_is_in_a_response_or_in_the_log(world, capfd):
    path = url(world, valid=-1)
    refused = world.client().post(path)
    token = path.rpartition("/")[2]

    assert refused.json["instance"] == "/v1/callbacks/%7Btoken%7D"
    assert token not in refused.text + "".join(capfd.readouterr())


def _statuses(client, path, count, **options):
    return [client.post(path, **options).status_code for _ in range(count)]


@pytest.fixture
def limited(world):
    world.options["callback_limit"] = 3
    return world


def test_one_who_has_a_callback_of_one_task_cannot_use_up_what_others_need(limited):
    other = record(state=State.WAITING, task_id="other")
    client, path = limited.client(), url(limited)
    first = _statuses(client, path, 5, json={"a": 1})
    limited.tasks.held = {other.task_id: other}
    refused = client.post(path, data=b"x" * 100_000)

    assert first == [202, 202, 202, 429, 429]
    assert len(limited.signaller.signals) == 3
    problem(refused, 429, "too-many-callbacks")
    assert int(refused.headers["Retry-After"]) in range(1, 21)
    assert _statuses(client, url(limited), 1) == [202]


def test_guesses_are_refused_and_those_with_a_right_callback_at_the_same_address_go_on(limited):
    client, wrong = limited.client(), url(limited, secret=OTHER)
    guesses = _statuses(client, wrong, 5)
    elsewhere = _statuses(client, wrong, 1, environ_overrides={"REMOTE_ADDR": "203.0.113.8"})

    assert guesses == [404, 404, 404, 429, 429]
    assert elsewhere == [404]
    assert _statuses(client, url(limited), 1) == [202]
