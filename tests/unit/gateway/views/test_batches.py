import json
import threading
import uuid

import pytest

from dispatch.errors import InDoubt, Nacked, NotSent, StoreUnavailable, Unroutable
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.contract import response_models
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.slots import Slots
from dispatch.gateway.views import batches
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyInProgress, KeyReused
from support.cases import each
from support.gateway_fakes import World, problem, record

ITEM = {"type": "greet", "payload": {"message": "hi"}}


@pytest.fixture
def world():
    return World()


@pytest.fixture
def client(world):
    return world.client()


def post(client, *items, **more):
    answer = client.post("/v1/tasks/batch", json={"items": list(items)}, **more)
    assert answer.status_code == 207, answer.text
    response_models.BatchVerdictsModel.model_validate_json(answer.data)
    return answer.json["items"]


def greeting(text, **more):
    return {"type": "greet", "payload": {"message": text}, **more}


def test_each_item_has_a_verdict_in_its_order(client, world):
    verdicts = post(client, *(greeting(str(number)) for number in range(300)))

    assert {verdict["status"] for verdict in verdicts} == {202}
    assert sorted(int(one.payload["message"]) for one in world.submitter.submitted) == list(range(300))
    assert len({verdict["task"]["taskId"] for verdict in verdicts}) == 300


def test_a_bad_item_costs_the_others_nothing(client, world):
    verdicts = post(
        client, ITEM, {"type": "greet"}, {"type": "greeet", "payload": {}}, greeting(7), ITEM | {"idempotencyKey": ""},
        ITEM | {"more": 1}, ITEM | {"options": {"delaySeconds": -1}}, greeting("x" * 300_000), ITEM,
    )  # fmt: skip
    found = [(verdict["status"], (verdict["problem"] or {}).get("type")) for verdict in verdicts]

    assert found == [
        (202, None), (422, "/problems/validation-error"), (422, "/problems/unknown-task-type"),
        (422, "/problems/validation-error"), (400, "/problems/invalid-idempotency-key"), (422, "/problems/validation-error"),
        (422, "/problems/validation-error"), (413, "/problems/body-too-large"), (202, None),
    ]  # fmt: skip
    assert verdicts[3]["problem"]["errors"][0]["pointer"] == "/payload/message"
    assert verdicts[3]["problem"]["instance"] == "/v1/tasks/batch#/items/3"
    assert len(world.submitter.submitted) == 2


@each(
    ("body", "status", "slug"),
    [
        (b"[]", 422, "validation-error"),
        (b"{}", 422, "validation-error"),
        (b'{"items": []}', 422, "validation-error"),
        (b'{"items": {}}', 422, "validation-error"),
        (b'{"items": [1]}', 207, ""),
        (b'{"items": [{}], "more": 1}', 422, "validation-error"),
        (json.dumps({"items": [ITEM] * 1_001}).encode(), 422, "validation-error"),
        (b'{"items": [', 400, "malformed-json"),
        (b'{"items": [{"type": "greet", "type": "greet"}]}', 400, "malformed-json"),
        (b" " * 4_194_305, 413, "body-too-large"),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(client, world, body, status, slug):
    answer = client.post("/v1/tasks/batch", data=body, content_type="application/json")

    assert answer.status_code == status
    assert not slug or problem(answer, status, slug)
    assert world.submitter.submitted == []


def test_a_batch_may_be_larger_than_a_single_body(client):
    verdicts = post(client, *(greeting("x" * 9_000) for _ in range(200)))

    assert {verdict["status"] for verdict in verdicts} == {202}


@each(
    ("failure", "status", "slug"),
    [
        (Nacked(), 429, "queue-depth-exceeded"),
        (NotSent(), 503, "broker-unavailable"),
        (Unroutable(), 503, "publish-unroutable"),
        (InDoubt(), 503, "publish-unconfirmed"),
        (StoreUnavailable(), 503, "store-unavailable"),
        (KeyInProgress(2.5), 409, "idempotency-key-in-progress"),
        (KeyReused(), 422, "idempotency-key-reused"),
        (RuntimeError("a bug"), 503, "publish-unconfirmed"),
    ],
)
def test_an_error_is_that_of_a_single_request(failure, status, slug):
    world = World()
    world.submitter.failure = failure
    client = world.client()
    single = client.post("/v1/tasks", json=ITEM)
    (verdict,) = post(client, ITEM)
    shown = verdict["problem"]

    assert (verdict["status"], shown["type"], verdict["task"]) == (status, f"/problems/{slug}", None)
    assert single.status_code == status
    assert {name: shown[name] for name in ("type", "title", "detail")} == {
        name: single.json[name] for name in ("type", "title", "detail")
    }
    assert str(shown.get("retryAfter")) == single.headers.get("Retry-After", "None")


def test_a_key_of_an_item_is_that_of_a_single_request(client, world):
    post(client, ITEM | {"idempotencyKey": "k"})
    client.post("/v1/tasks", json=ITEM, headers={"Idempotency-Key": "k"})
    ours, single = world.submitter.submitted

    assert (ours.idempotency_key, ours.fingerprint) == (single.idempotency_key, single.fingerprint)


def test_a_key_that_comes_twice_is_a_repeat_of_the_earlier_item(client, world):
    world.submitter.replayed = None
    keys = ["a", "b", "a", "c", "a"]
    post(client, *(greeting(str(at), idempotencyKey=key) for at, key in enumerate(keys)))
    came = [one.payload["message"] for one in world.submitter.submitted]

    assert sorted(came[:3]) == ["0", "1", "3"]
    assert sorted(came[3:]) == ["2", "4"]


def test_a_replay_is_shown_as_one(client, world):
    world.submitter.replayed = record(state=State.SUCCEEDED)
    (verdict,) = post(client, ITEM | {"idempotencyKey": "k"})

    assert (verdict["status"], verdict["replayed"]) == (202, True)
    assert verdict["task"]["taskId"] == world.submitter.replayed.task_id


def test_every_item_is_a_request_of_its_principals_quota(world):
    spent = []

    def spend(principal):
        spent.append(principal)
        if len(spent) > 3:
            raise Problem("quota-exceeded", retry_after=7, quota="requests")
        return {}

    world.spend = spend
    verdicts = post(world.client(), *[ITEM] * 5)

    assert len(spent) == 5
    assert sorted(verdict["status"] for verdict in verdicts) == [202, 202, 202, 429, 429]
    assert {verdict["problem"]["retryAfter"] for verdict in verdicts if verdict["problem"]} == {7}


def test_near_a_quota_of_tasks_items_come_one_after_the_other(world):
    lock, at_once, most = threading.Lock(), [0], [0]
    submit = world.submitter.submit

    def counting(submission):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        made = submit(submission)
        with lock:
            at_once[0] -= 1
        return made

    world.submitter.submit = counting
    world.allowance = lambda _: Allowance(room=9)
    verdicts = post(world.client(), *[ITEM] * 40)

    assert most == [1]
    assert len(verdicts) == 40


def test_a_full_queue_refuses_each_item_but_a_repeat(world):
    world.guard.observe(101)
    task = record()
    world.tasks.held[task.task_id] = task
    world.submitter.keys["local:k"] = task.task_id
    world.submitter.replayed = task
    verdicts = post(world.client(), ITEM, ITEM | {"idempotencyKey": "k"})

    assert [verdict["status"] for verdict in verdicts] == [429, 202]


def test_what_does_not_begin_in_time_is_refused(client, world, monkeypatch):
    monkeypatch.setattr(batches, "BEGIN_WITHIN", -1.0)
    (verdict,) = post(client, ITEM)

    assert (verdict["status"], verdict["problem"]["type"]) == (503, "/problems/gateway-busy")
    assert world.submitter.submitted == []


def test_a_process_holds_few_batches_and_one_principal_not_all_of_them():
    slots = Slots(3, 2)
    with slots.one("ada"), slots.one("ada"):
        with pytest.raises(Problem, match="few batches"), slots.one("ada"):
            raise AssertionError
        with slots.one("bob"), pytest.raises(Problem), slots.one("eve"):
            raise AssertionError
    with slots.one("ada"), slots.one("ada"), slots.one(str(uuid.uuid4())):
        pass
