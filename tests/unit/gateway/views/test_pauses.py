import datetime as dt

import pytest

from dispatch.gateway.contract import response_models
from dispatch.protocol.pauses import Pause
from support.gateway_fakes import World, problem

SOON = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()


@pytest.fixture
def world():
    return World()


@pytest.fixture
def client(world):
    return world.client()


def test_a_pause_is_listed_with_who_why_how_long_and_how_much_it_holds(client, world):
    world.pauses.held = {"type:greet": 3}
    made = client.put("/v1/pauses/type:greet", json={"reason": "repairs", "until": SOON})
    (listed,) = response_models.PauseListModel.model_validate(client.get("/v1/pauses").json).items

    assert made.status_code == 200
    assert response_models.PauseModel.model_validate(made.json) == listed
    assert (listed.what, listed.reason, listed.by, listed.held) == ("type:greet", "repairs", "local", 3)
    assert listed.until is not None


def test_a_pause_is_replaced_and_ended(client, world):
    client.put("/v1/pauses/all", json={"reason": "one"})
    client.put("/v1/pauses/all", json={"reason": "two"})
    reasons = [pause.reason for pause in world.pauses.all()]
    ended = client.delete("/v1/pauses/all")

    assert (reasons, ended.status_code, world.pauses.all()) == (["two"], 204, [])
    problem(client.delete("/v1/pauses/all"), 404, "pause-not-found")


@pytest.mark.parametrize("what", ["everything", "type:", "type:A", "principal:a%20b", "lane"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_what_cannot_be_paused_is_refused(client, what, method):
    body = problem(client.open(f"/v1/pauses/{what}", method=method, json={"reason": "r"}), 422, "validation-error")

    assert body["errors"][0]["pointer"] == "/path/what"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({"reason": "r", "until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"reason": "r", "until": 5}, "/until"),
        ({"reason": "r", "for": 5}, "/for"),
    ],
)
def test_a_bad_pause_is_refused_and_nothing_is_paused(client, world, body, pointer):
    refused = problem(client.put("/v1/pauses/all", json=body), 422, "validation-error")

    assert [error["pointer"] for error in refused["errors"]] == [pointer]
    assert world.pauses.all() == []


def test_both_verbs_are_audited_with_the_reason(client, world):
    world.pauses.put(Pause("all", "r", "ada", 0))
    client.put("/v1/pauses/type:greet", json={"reason": "repairs"})
    client.delete("/v1/pauses/all")
    entries = [(entry.verb, entry.target, entry.result) for entry in world.audit.entries]

    assert entries == [("pauseTasks", "type:greet", "ok"), ("resumeTasks", "all", "ok")]
    assert world.audit.entries[0].details["reason"] == "repairs"
