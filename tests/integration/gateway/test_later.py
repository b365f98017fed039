"""Tasks that are submitted for later: from the request to the run, on real servers."""

import datetime as dt
import time

import pytest

from dispatch.protocol import names
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.oldest import Oldest
from support.gateway_fakes import problem
from support.gateway_live import gateway
from support.stores import Stores
from support.waiting import eventually
from support.worker import open_bench, running_worker

ERROR = ErrorInfo("publish-unconfirmed", "never confirmed", retryable=True)


def body(**options):
    return {"type": "echo", "payload": {"message": "hi"}, "options": options}


@pytest.fixture
def bench(settings):
    with open_bench(settings) as made:
        yield made


@pytest.fixture
def client(bench):
    with gateway(bench.settings) as made:
        yield made


def millis(text):
    return dt.datetime.fromisoformat(text).timestamp() * 1_000


def test_a_delayed_task_waits_in_the_broker_and_runs_no_sooner(client, bench):
    with running_worker(bench.settings, abrupt=True):
        before = time.time()
        answer = client.post("/v1/tasks", json=body(delaySeconds=3))
        shown = client.get(answer.json["statusUrl"]).json
        listed = client.get("/v1/tasks?state=DELAYED").json["items"]
        record = bench.finished(answer.json["taskId"])
    hops = bench.store.hops(record.task_id)

    assert answer.status_code == 202
    assert {name: shown[name] for name in ("status", "state", "queue", "startedAt")} == {
        "status": "PENDING", "state": "DELAYED", "queue": "robot.delay.q.1", "startedAt": None,
    }  # fmt: skip
    assert shown["wakesAt"] == answer.json["wakesAt"]
    assert 2 <= int(answer.headers["Retry-After"]) <= 3
    assert [item["taskId"] for item in listed] == [record.task_id]
    assert [hop["kind"] for hop in hops] == ["accepted", "published", "started", "succeeded"]
    assert (hops[1]["exchange"], hops[1]["until"]) == ("robot.delay.1", shown["wakesAt"])
    assert record.state is State.SUCCEEDED
    assert record.started_at >= millis(shown["wakesAt"]) >= (before + 2.99) * 1_000
    assert client.get(answer.json["statusUrl"]).json["wakesAt"] is None


def test_a_task_for_a_given_time_runs_at_that_time_at_the_earliest(client, bench):
    with running_worker(bench.settings, abrupt=True):
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=6.5)
        answer = client.post("/v1/tasks", json=body(runAt=at.isoformat()))
        record = bench.finished(answer.json["taskId"])

    assert answer.json["state"] == "DELAYED"
    assert record.started_at >= at.timestamp() * 1_000


def test_a_repeated_key_yields_the_same_delayed_task_also_when_its_time_has_passed(client, bench):
    at = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=6)).isoformat()
    keyed = {"Idempotency-Key": "k"}
    first = client.post("/v1/tasks", json=body(runAt=at), headers=keyed)
    other = client.post("/v1/tasks", json=body(), headers=keyed)
    eventually(lambda: bench.depth(names.WORK_QUEUE) == 1, 20, "it has come to the work queue")

    again = client.post("/v1/tasks", json=body(runAt=at), headers=keyed)

    assert (again.status_code, again.json["taskId"]) == (202, first.json["taskId"])
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(other, 422, "idempotency-key-reused")
    problem(client.post("/v1/tasks", json=body(runAt=at)), 422, "validation-error")
    assert bench.depth(names.WORK_QUEUE) == 1


def test_a_key_and_a_lists_entry_live_as_long_as_the_delay_and_a_task_does(client, bench):
    answer = client.post("/v1/tasks", json=body(delaySeconds=15), headers={"Idempotency-Key": "k"})
    stores = bench.stores
    keys, ttl = stores.redis.keys, bench.settings.idempotency_ttl
    left, score, open_tasks = stores.redis.run(
        ("PTTL", keys.idempotency("local", "k")),
        ("ZSCORE", keys.index("local"), answer.json["taskId"]),
        ("HGET", keys.usage("local"), "#open"),
    )

    assert ttl + 10 < left / 1_000 <= ttl + 15
    assert float(score) == millis(answer.json["wakesAt"])
    assert int(open_tasks) == 1


def test_a_delayed_task_is_not_the_oldest_in_the_work_queue(client, bench):
    client.post("/v1/tasks", json=body(delaySeconds=15))

    assert Oldest(bench.stores.redis).ages()[names.WORK_QUEUE] == 0.0


def test_without_the_levels_in_the_broker_a_delayed_task_never_runs_and_others_are_accepted(client, bench, servers):
    with servers.management() as api:
        vhost = bench.settings.broker("admin").rpartition("/")[2]
        for level in range(bench.settings.delay_levels):
            api.delete(f"/api/exchanges/{vhost}/{names.delay_exchange(level)}").raise_for_status()

    refused = client.post("/v1/tasks", json=body(delaySeconds=5))
    accepted = client.post("/v1/tasks", json=body())

    problem(refused, 503, "publish-unroutable")
    assert accepted.status_code == 202
    assert bench.depth(names.WORK_QUEUE) == 1


def test_the_record_of_a_rejected_task_is_kept_until_its_copy_must_have_come(bench):
    task_id = bench.submit("echo", {"message": "x"}, delay=12)
    stores = Stores(bench.settings)
    message = bench.store.whole(task_id).message
    keys = stores.redis.keys.task(task_id)
    stores.redis.run(("HSET", keys.record, "state", "SCHEDULED", "published", 0))

    rejected = stores.tasks.reject(message, error=ERROR, idempotency_key=None)
    left = stores.redis.run(("PTTL", keys.record))[0]
    stores.close()

    assert rejected
    assert left / 1_000 > bench.settings.result_ttl + 5


def test_a_repeat_of_a_key_has_the_deadline_of_the_first_request(client):
    first, repeat = (
        client.post("/v1/tasks", json=body(delaySeconds=3, deadlineSeconds=30), headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )

    assert (first.status_code, repeat.headers["Idempotent-Replayed"]) == (202, "true")
    assert millis(first.json["deadlineAt"]) == millis(first.json["wakesAt"]) + 30_000
    assert repeat.json["deadlineAt"] == first.json["deadlineAt"]
