"""Find tasks, read a payload, count: what is asked for, and who may."""

import dataclasses

import pytest

from dispatch.config import api_keys
from dispatch.gateway.contract import response_models
from dispatch.gateway.http import context, jsonbody
from dispatch.protocol.message import Message
from dispatch.protocol.record import State
from dispatch.protocol.sealing import Sealing
from support.cases import each
from support.gateway_fakes import FakeTasks, World, problem, record

BODY = b'[[{"message": "hi", "apiKey": "hush-hush"}], {}, {}]'
OWN = record(principal="shop", message=Message(BODY, {}), labels={"customer": "acme"})
OTHER = record(principal="bank", message=Message(BODY, {}))
FORGOTTEN = record(principal="bank", message=None, state=State.SUCCEEDED)
PEPPER = "pepper"


def client(*scopes, tasks=(OWN, OTHER, FORGOTTEN)):
    """A client whose API key has the id `shop`, and its world."""
    text = api_keys.token("shop", api_keys.new_secret())
    entry = str(api_keys.ApiKey("shop", api_keys.digest(PEPPER, text), frozenset(scopes)))
    world = World(tasks=FakeTasks(*tasks), options={"api_keys": (entry,), "api_key_pepper": PEPPER})
    made = world.client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    return made, world


READER = (api_keys.TASKS_READ,)
OPERATOR = (api_keys.TASKS_READ_ALL,)


def test_everything_that_is_asked_for_goes_into_the_filter():
    made, world = client(*READER)
    made.get(
        "/v1/tasks?label=customer=acme&label=robot=r=7&requestId=rq-1&errorType=boom&since=2026-11-24T02:36:00Z"
        "&until=2026-11-24T04:36:00.5%2B02:00&type=echo&state=QUEUED&status=PENDING&limit=7&cursor=abc"
    )

    assert world.tasks.listed == {
        "principal": "shop", "labels": {"customer": "acme", "robot": "r=7"}, "request_id": "rq-1", "error_type": "boom",
        "since": 1_795_487_760_000, "until": 1_795_487_760_500, "type": "echo", "state": "QUEUED", "status": "PENDING",
        "limit": 7, "cursor": "abc",
    }  # fmt: skip


def test_two_values_of_one_label_match_no_task_and_one_twice_is_one():
    made, world = client(*READER)
    both = made.get("/v1/tasks?label=a=1&label=a=2")

    assert both.json == {"items": [], "next": None}
    assert world.tasks.listed == {}
    assert made.get("/v1/tasks?label=a=1&label=a=1").status_code == 200
    assert world.tasks.listed["labels"] == {"a": "1"}


@each(
    ("query", "pointer"),
    [
        ("label=x", "/query/label/0"),
        ("label=a=1&label=A=1", "/query/label/1"),
        ("label=a=" + "v" * 64, "/query/label/0"),
        ("label=a=%00", "/query/label/0"),
        ("label=a=*%20OR%201", "/query/label/0"),
        ("&".join(f"label=k{number}=v" for number in range(9)), "/query/label"),
        ("requestId=a%20b", "/query/requestId"),
        ("requestId=", "/query/requestId"),
        ("requestId=" + "a" * 129, "/query/requestId"),
        ("errorType=", "/query/errorType"),
        ("since=yesterday", "/query/since"),
        ("since=1795487760000", "/query/since"),
        ("since=2026-11-24T02:36:00+02:00", "/query/since"),
        ("until=2026-11-24", "/query/until"),
        ("since=2026-11-24T02:36:00Z&since=2026-11-24T02:36:00Z", "/query/since"),
        ("principal=", "/query/principal"),
        ("principal=" + "a" * 129, "/query/principal"),
        ("labels=a=1", "/query/labels"),
        ("request_id=a", "/query/request_id"),
        ("key=a", "/query/key"),
    ],
)
def test_a_wrong_query_is_refused_with_the_place(query, pointer):
    made, _ = client(*READER)
    body = problem(made.get(f"/v1/tasks?{query}"), 422, "validation-error")

    assert pointer in [error["pointer"] for error in body["errors"]]


@each(
    ("asked", "listed"),
    [
        ("", "shop"),
        ("?principal=shop", "shop"),
        ("?principal=bank", "bank"),
        ("?principal=*", None),
        ("?principal=%2A", None),
    ],
)
def test_an_operator_lists_whose_tasks_it_asks_for(asked, listed):
    made, world = client(*OPERATOR)

    assert made.get(f"/v1/tasks{asked}").status_code == 200
    assert world.tasks.listed["principal"] == listed
    assert made.get(f"/v1/stats{asked}").json["principal"] == listed


@each("path", ["/v1/tasks", "/v1/stats"])
def test_without_the_scope_no_other_principals_tasks_are_listed_or_counted(path):
    made, world = client(*READER)
    for asked in ("bank", "*", "shop%20", "SHOP"):
        refused = made.get(f"{path}?principal={asked}")

        assert "tasks:read-all" in problem(refused, 403, "insufficient-scope")["detail"]
        assert 'scope="tasks:read-all"' in refused.headers["WWW-Authenticate"]
    assert world.tasks.listed == {}
    assert made.get(f"{path}?principal=shop").status_code == 200
    assert [entry.result for entry in world.audit.entries] == ["insufficient-scope"]  # one a minute


@each("suffix", ["", "/events", "/payload", "/children"])
def test_another_principals_task_is_there_for_operators_only(suffix):
    assert client(*OPERATOR)[0].get(f"/v1/tasks/{OTHER.task_id}{suffix}").status_code == 200
    problem(client(*READER)[0].get(f"/v1/tasks/{OTHER.task_id}{suffix}"), 404, "task-not-found")


def test_children_are_those_of_the_parents_owner():
    made, world = client(*OPERATOR)
    made.get(f"/v1/tasks/{OTHER.task_id}/children?limit=7&cursor=abc")

    assert world.tasks.listed == {"principal": "bank", "parent_id": OTHER.task_id, "limit": 7, "cursor": "abc"}


def test_the_owner_of_a_task_is_shown_where_it_is_another():
    made, _ = client(*OPERATOR)
    items = made.get("/v1/tasks?principal=*").json["items"]

    assert [item.get("principal") for item in items] == [None, "bank", "bank"]
    assert made.get(f"/v1/tasks/{OTHER.task_id}").json["principal"] == "bank"
    assert "principal" not in made.get(f"/v1/tasks/{OWN.task_id}").json
    assert items[0]["labels"] == {"customer": "acme"}
    response_models.TaskListModel.model_validate(made.get("/v1/tasks?principal=*").json)


def test_a_long_poll_of_anothers_task_needs_the_scope_until_its_end():
    made, world = client(*OPERATOR)
    seen = []
    world.tasks.on_wait = lambda: seen.append(context.current().scope)
    made.get(f"/v1/tasks/{OTHER.task_id}", headers={"Prefer": "wait=1"})
    made.get(f"/v1/tasks/{OWN.task_id}", headers={"Prefer": "wait=1"})

    assert seen == ["tasks:read-all", "tasks:read"]


def test_a_payload_is_shown_without_its_secrets():
    made, world = client(*READER)
    answer = made.get(f"/v1/tasks/{OWN.task_id}/payload")

    response_models.PayloadModel.model_validate(answer.json)
    assert answer.json == {
        "taskId": OWN.task_id, "type": "greet", "payload": {"message": "hi", "apiKey": "[secret]"}, "masked": ["/apiKey"],
    }  # fmt: skip
    assert world.audit.entries == []


def test_reading_anothers_payload_is_audited():
    made, world = client(*OPERATOR)
    made.get(f"/v1/tasks/{OTHER.task_id}/payload")
    (entry,) = world.audit.entries

    assert (entry.verb, entry.target, entry.result, entry.principal) == ("getTaskPayload", OTHER.task_id, "ok", "shop")
    assert entry.details == {"principal": "bank"}


def test_a_payload_that_has_left_the_record_is_gone():
    made, world = client(*OPERATOR)

    problem(made.get(f"/v1/tasks/{FORGOTTEN.task_id}/payload"), 410, "payload-gone")
    problem(made.get("/v1/tasks/018f0000-0000-7000-8000-000000000000/payload"), 410, "task-expired")
    problem(made.get("/v1/tasks/nonsense/payload"), 404, "task-not-found")
    assert world.audit.entries == []


@each(
    "message",
    [
        Message(b"not json", {}),
        Message(b"[]", {}),
        Message(b"{}", {}),
        Message(b"\xff", {}),
        Sealing(keys=(b"k" * 32,)).seal(Message(BODY, {})),
    ],
)
def test_a_payload_that_cannot_be_decoded_is_null(message):
    unreadable = dataclasses.replace(OWN, message=message)
    answer = client(*READER, tasks=[unreadable])[0].get(f"/v1/tasks/{OWN.task_id}/payload")

    assert (answer.json["payload"], answer.json["masked"]) == (None, [])


def test_of_a_type_that_the_gateway_does_not_know_no_value_is_shown():
    unknown = dataclasses.replace(OWN, type="of.old")
    answer = client(*READER, tasks=[unknown])[0].get(f"/v1/tasks/{OWN.task_id}/payload")

    assert answer.json["payload"] == {"message": "[secret]", "apiKey": "[secret]"}


def test_tasks_are_counted_by_type_and_state():
    made, _ = client(*OPERATOR)
    own, every = made.get("/v1/stats").json, made.get("/v1/stats?principal=*").json

    response_models.StatsModel.model_validate(every)
    assert (own["counted"], own["states"]) == (1, {"QUEUED": 1})
    assert (every["counted"], every["states"]) == (3, {"QUEUED": 2, "SUCCEEDED": 1})
    assert every["types"] == [{"type": "greet", "total": 3, "states": {"QUEUED": 2, "SUCCEEDED": 1}}]
    assert (every["asOf"], every["complete"]) == ("2026-11-24T02:36:00.000Z", True)


@pytest.fixture
def submitting():
    world = World()
    return world.client(), world.submitter


def submit(made, labels, **headers):
    body = {"type": "greet", "payload": {"message": "hi"}, "options": {"labels": labels}}
    return made.post("/v1/tasks", json=body, headers=headers)


def test_labels_are_accepted_and_shown(submitting):
    made, submitter = submitting
    labels = {f"k{number}.x_y-z": "v" * 63 for number in range(8)}
    answer = submit(made, labels)

    assert answer.json["labels"] == labels
    assert submitter.submitted[0].labels == labels


def test_labels_are_part_of_what_an_idempotency_key_stands_for(submitting):
    made, submitter = submitting
    for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "2"}, {}):
        submit(made, labels, **{"Idempotency-Key": "k"})
    made.post("/v1/tasks", json={"type": "greet", "payload": {"message": "hi"}}, headers={"Idempotency-Key": "k"})
    prints = [one.fingerprint for one in submitter.submitted]

    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert prints[3] == prints[4] == jsonbody.fingerprint("POST", {"type": "greet", "payload": {"message": "hi"}})


@each(
    "labels",
    [
        {"A": "1"}, {"a b": "1"}, {"": "1"}, {"a": ""}, {"a": " "}, {"a": "b c"}, {"a": "é"}, {"é": "a"}, {"a": "b\n"}, {"a\n": "b"},
        {"a": "v" * 64}, {"a": "v" * 10_000}, {"k" * 64: "v"}, {"k" * 10_000: "v"}, {f"k{number}": "v" for number in range(9)},
        {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}, ["a=b"], "a=b", None, {"a=b": "c"}, {"a": "\x7f"}, {"*": "v"},
    ],
)  # fmt: skip
def test_labels_that_are_none_are_refused_without_being_repeated(labels):
    answer = submit(World().client(), labels)
    body = problem(answer, 422, "validation-error")

    assert body["errors"][0]["pointer"].startswith("/options/labels")
    assert len(answer.data) < 1_500
