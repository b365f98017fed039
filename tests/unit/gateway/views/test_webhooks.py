"""`options.webhook`, and its delivery by hand."""

import base64
import json

import pytest

from dispatch.config import api_keys
from dispatch.protocol import webhooks
from dispatch.protocol.record import State
from dispatch.protocol.webhooks import EVENTS, Webhook
from support.cases import each
from support.gateway_fakes import DELIVERY, FakeTasks, World, problem, record

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
URL = "https://shop.example/robot-events"
SHOWN = {"url": URL, "events": list(EVENTS)}


def world(**options):
    return World(options={"webhook_secrets": SECRET, "http_allowed_hosts": "shop.example", **options})


def body(**webhook):
    return {"type": "greet", "payload": {"message": "hi"}, "options": {"webhook": webhook}}


@each(
    ("given", "wanted"),
    [({}, Webhook(URL)), ({"events": ["task.failed"]}, Webhook(URL, ("task.failed",)))],
)
def test_a_webhook_is_handed_on(given, wanted):
    here = world()

    assert here.client().post("/v1/tasks", json=body(url=URL, **given)).status_code == 202
    assert here.submitter.submitted[-1].webhook == wanted


@each(
    ("webhook", "pointer", "code"),
    [
        ({}, "/options/webhook/url", "missing"),
        ({"url": URL, "events": []}, "/options/webhook/events", "too_short"),
        ({"url": URL, "events": ["task.born"]}, "/options/webhook/events/0", "literal_error"),
        ({"url": URL, "secret": "x"}, "/options/webhook/secret", "extra_forbidden"),
        ({"url": "https://other.example/"}, "/options/webhook/url", "host_not_allowed"),
        ({"url": "https://shop.example:8443/"}, "/options/webhook/url", "host_not_allowed"),
        ({"url": "ftp://shop.example/"}, "/options/webhook/url", "invalid_url"),
        ({"url": "https://ada:secret@shop.example/"}, "/options/webhook/url", "invalid_url"),
        ({"url": "https://shop.example\\@other.example/"}, "/options/webhook/url", "invalid_url"),
        ({"url": "https://shop.example/ x"}, "/options/webhook/url", "invalid_url"),
        ({"url": "https://"}, "/options/webhook/url", "invalid_url"),
        ({"url": "x" * 2_049}, "/options/webhook/url", "string_too_long"),
    ],
)
def test_what_can_not_be_delivered_is_refused(webhook, pointer, code):
    here = world()
    answer = problem(here.client().post("/v1/tasks", json=body(**webhook)), 422, "validation-error")

    assert [(error["pointer"], error["code"]) for error in answer["errors"]] == [(pointer, code)]
    assert here.submitter.submitted == []


def test_without_a_secret_there_are_no_webhooks():
    here = world(webhook_secrets="")
    answer = problem(here.client().post("/v1/tasks", json=body(url=URL)), 422, "validation-error")

    assert [error["code"] for error in answer["errors"]] == ["not_configured"]


def test_no_client_submits_a_delivery():
    here = World(types={**World().types, "webhook.deliver": DELIVERY})
    client = here.client()

    problem(
        client.post("/v1/tasks", json={"type": "webhook.deliver", "payload": {"message": "x"}}),
        422,
        "unknown-task-type",
    )
    assert "webhook.deliver" not in {kind["name"] for kind in client.get("/v1/task-types").json["items"]}
    assert "webhook.deliver" not in client.get("/openapi.json").text


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD_LETTERED, State.EXPIRED])
def test_a_webhook_is_delivered_once_more_with_the_same_id(state):
    task = record(state=state, webhook=SHOWN, cycle=1)
    here = World(tasks=FakeTasks(task))
    answer = here.client().post(f"/v1/tasks/{task.task_id}/webhook/redeliver")
    (submitted,) = here.submitter.submitted

    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["statusUrl"]
    assert submitted.payload["eventId"] == webhooks.event_id(task)
    assert (submitted.payload["url"], submitted.parent_id, submitted.task_id) == (URL, task.task_id, "")
    ((noted, hop),) = here.tasks.noted
    assert (noted, json.loads(hop)["kind"]) == (task.task_id, "webhook")


@each(
    "changes",
    [
        {"state": State.RUNNING, "webhook": SHOWN},
        {"state": State.SUCCEEDED},
        {"state": State.REJECTED, "webhook": SHOWN},
    ],
)
def test_there_is_nothing_to_deliver(changes):
    task = record(**changes)
    here = World(tasks=FakeTasks(task))

    problem(here.client().post(f"/v1/tasks/{task.task_id}/webhook/redeliver"), 409, "no-webhook")
    assert here.submitter.submitted == []


def test_an_operator_who_may_read_a_task_delivers_no_webhook_of_it():
    text = api_keys.token("shop", api_keys.new_secret())
    scopes = frozenset({api_keys.TASKS_READ_ALL, api_keys.TASKS_WRITE})
    entry = str(api_keys.ApiKey("shop", api_keys.digest("pepper", text), scopes))
    task = record(state=State.SUCCEEDED, webhook=SHOWN, principal="bank")
    here = World(tasks=FakeTasks(task), options={"api_keys": (entry,), "api_key_pepper": "pepper"})
    authorization = {"Authorization": f"Bearer {text}"}
    answer = here.client().post(f"/v1/tasks/{task.task_id}/webhook/redeliver", headers=authorization)

    problem(answer, 404, "task-not-found")
    assert here.submitter.submitted == []
