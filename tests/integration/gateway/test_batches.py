"""Many tasks in one request, on real servers: under gunicorn, and with RabbitMQ or Redis silent."""

import contextlib
import json
import socket
import time

import pytest
from kombu import Connection

import topology
from dispatch.broker import provision
from dispatch.config.settings import ANSWER_WITHIN
from dispatch.protocol.record import State
from support.gateway_live import gateway, running_gateway
from support.ports import free_port
from support.proxy import DOWN, Proxy
from support.waiting import eventually
from support.worker import open_bench, running_worker

#: Refusals after which a task never runs; on a machine that is busy Redis, too, may be too slow for some of a batch.
NEVER_RUN = {(503, "broker-unavailable"), (503, "gateway-busy"), (503, "store-unavailable")}


def items(count, **more):
    return {"items": [{"type": "echo", "payload": {"message": str(at)}, **more} for at in range(count)]}


def keyed(count):
    return {"items": [{**one, "idempotencyKey": f"k-{at}"} for at, one in enumerate(items(count)["items"])]}


@pytest.fixture
def bench(settings):
    with open_bench(settings) as made:
        yield made


@pytest.fixture
def broker(settings):
    with Connection(settings.broker("admin")) as connection:
        provision.declare(connection, topology.broker_map(settings), settings)
    with Proxy.to(settings.broker("gateway")) as proxy:
        yield proxy


@pytest.fixture
def redis(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy:
        yield proxy


def through(settings, broker=None, redis=None):
    changes = {"gateway_broker_url": broker and broker.url, "redis_url": redis and redis.url}
    return type(settings).model_validate(
        {**{name: getattr(settings, name) for name in settings.model_fields_set}, **{name: url for name, url in changes.items() if url}}
    )  # fmt: skip


def within(client, body):
    began = time.monotonic()
    answer = client.post("/v1/tasks/batch", json=body)
    assert time.monotonic() - began < ANSWER_WITHIN
    assert answer.status_code == 207, answer.text
    return [
        (one["status"], (one["problem"] or {}).get("type", "").removeprefix("/problems/"))
        for one in answer.json["items"]
    ]


def test_a_thousand_items_are_a_thousand_tasks_that_run_once(bench):
    with running_gateway(bench.settings, free_port()) as (http, _, _):
        # On a machine that is busy, a part of them may be refused at first: what is repeated has its key.
        verdicts = eventually(lambda: _accepted(http, keyed(1_000)), 60, "each item is accepted")
        repeated = http.post("/v1/tasks/batch", json=keyed(1_000)).json()["items"]
        single = http.post("/v1/tasks", json=items(8)["items"][7], headers={"Idempotency-Key": "k-7"})
    ids = [verdict["task"]["taskId"] for verdict in verdicts]
    with running_worker(bench.settings, abrupt=True):
        bench.drained(timeout=120)
        records = [bench.finished(task_id, 60) for task_id in ids]

    assert {verdict["status"] for verdict in verdicts} == {202}
    assert [verdict["task"]["taskId"] for verdict in repeated] == ids
    assert all(verdict["replayed"] for verdict in repeated)
    assert (single.json()["taskId"], single.headers["Idempotent-Replayed"]) == (ids[7], "true")
    assert [record.result["message"] for record in records] == [str(at) for at in range(1_000)]
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {bench.runs(task_id) for task_id in ids} == {1}


def test_items_with_options_are_what_single_tasks_with_them_are(bench):
    with gateway(bench.settings) as client:
        body = items(4, options={"delaySeconds": 2, "deadlineSeconds": 60, "labels": {"order": "7"}})
        tasks = [one["task"] for one in client.post("/v1/tasks/batch", json=body).json["items"]]
        found = client.get("/v1/tasks?label=order=7").json["items"]

    assert {task["state"] for task in tasks} == {"DELAYED"}
    assert {task["taskId"] for task in found} == {task["taskId"] for task in tasks}
    assert all(task["deadlineAt"] > task["wakesAt"] for task in tasks)


def test_a_broker_that_falls_silent_leaves_each_item_in_doubt_or_never_run(bench, settings, broker):
    with gateway(through(settings, broker)) as client:
        broker.hold(DOWN)
        verdicts = within(client, keyed(250))
        again = within(client, items(250))
        broker.release()
        repeated = eventually(lambda: _all_accepted(client, keyed(250)), 40, "each repeated item is accepted")
    with running_worker(bench.settings, abrupt=True):
        for task_id in repeated:
            bench.finished(task_id, 60)
        bench.drained(timeout=60)

    assert set(verdicts) <= NEVER_RUN | {(503, "publish-unconfirmed")}
    assert (503, "publish-unconfirmed") in verdicts
    assert set(again) <= NEVER_RUN
    assert len(set(repeated)) == 250
    assert {bench.runs(task_id) for task_id in repeated} == {1}


def _accepted(http, body):
    verdicts = http.post("/v1/tasks/batch", json=body).json()["items"]
    return all(one["task"] for one in verdicts) and verdicts


def _all_accepted(client, body):
    verdicts = client.post("/v1/tasks/batch", json=body).json["items"]
    return all(one["task"] for one in verdicts) and [one["task"]["taskId"] for one in verdicts]


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_redis_away_is_store_unavailable_for_each_item(settings, redis, how):
    with gateway(through(settings, redis=redis)) as client:
        client.post("/v1/tasks", json=items(1)["items"][0])
        if how == "refuses":
            redis.refuse()
            redis.cut()
        else:
            redis.hold()
        verdicts = within(client, items(250))
        redis.release()

    assert set(verdicts) == {(503, "store-unavailable")}


HEAD = b"POST /v1/tasks/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n{"


def test_a_client_that_trickles_holds_a_place_and_delays_no_single_request(settings):
    port = free_port()
    one_process = settings.model_copy(update={"http_workers": 1})
    with running_gateway(one_process, port) as (http, _, _), contextlib.ExitStack() as trickling:

        def refused():
            slow = trickling.enter_context(socket.create_connection(("127.0.0.1", port)))  # which may find no place
            slow.sendall(HEAD)
            answer = http.post("/v1/tasks/batch", json=items(1))
            return answer if answer.status_code == 503 else None

        busy = eventually(refused, 10, "no place is left")
        single = http.post("/v1/tasks", json=items(1)["items"][0])
        trickling.close()
        eventually(lambda: http.post("/v1/tasks/batch", json=items(1)).status_code == 207, 20, "a place is free")

    assert json.loads(busy.text)["type"] == "/problems/gateway-busy"
    assert busy.headers["Retry-After"]
    assert single.status_code == 202
