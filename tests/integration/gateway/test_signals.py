"""Signals and callbacks over HTTP: from the request to the handler that waits for it, on real servers."""

import pytest
from pydantic import SecretStr

from dispatch.protocol.record import State
from support.gateway_fakes import problem
from support.gateway_live import gateway
from support.steps_client import APP, send, waiting
from support.waiting import eventually
from support.worker import open_bench, running_worker


@pytest.fixture(scope="module")
def bench(module_settings):
    callbacks = {"callback_secrets": SecretStr("s" * 40), "public_url": "https://dispatch.example"}
    with open_bench(module_settings.model_copy(update=callbacks)) as made:
        yield made


@pytest.fixture(scope="module")
def client(bench):
    with gateway(bench.settings) as made, running_worker(bench.settings, app=APP, abrupt=True):
        yield made


def test_a_signal_over_http_ends_the_wait_and_its_repeat_changes_nothing(client, bench):
    task_id = send(bench, "wait.signals", steps=1, seconds=14)
    until = waiting(bench, task_id).wakes_at
    shown = client.get(f"/v1/tasks/{task_id}").json
    path, keyed = f"/v1/tasks/{task_id}/signals/go", {"Idempotency-Key": "k-1"}
    answer = client.post(path, json={"battery": 40}, headers=keyed)
    again = client.post(path, json={"battery": 40}, headers=keyed)
    other = client.post(path, json={"battery": 41}, headers=keyed)
    record = bench.finished(task_id)
    late = client.post(path)
    (hop,) = [hop for hop in bench.store.hops(task_id) if hop["kind"] == "signalled"]

    assert (shown["status"], shown["state"], shown["waitingFor"], shown["step"]) == ("RUNNING", "WAITING", ["go"], 1)
    assert shown["nextAttemptAt"] is None
    assert shown["wakesAt"] is not None
    assert (answer.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(other, 422, "idempotency-key-reused")
    problem(late, 409, "task-terminal")
    assert (record.state, record.result["signals"]) == (State.SUCCEEDED, [["go", {"battery": 40}]])
    assert record.finished_at < until
    assert (hop["name"], hop["by"], hop["queue"]) == ("go", "local", "robot.task.q")


def test_a_callback_ends_the_wait_without_a_key_and_comes_once(client, bench):
    task_id = send(bench, "wait.signals", steps=1, seconds=14)
    waiting(bench, task_id)
    url = eventually(lambda: (bench.store.get(task_id).progress or {}).get("message"), 10, "it has a callback URL")
    path = url.removeprefix("https://dispatch.example")
    answers = [client.post(path, json={"state": "DOCKED"}) for _ in range(2)]
    record = bench.finished(task_id)
    over, forged = client.post(path), client.post(f"{path[:-4]}AAAA")

    assert url.startswith("https://dispatch.example/v1/callbacks/")
    assert [answer.status_code for answer in answers] == [202, 202]
    assert record.result["signals"] == [["go", {"state": "DOCKED"}]]
    problem(over, 410, "callback-over")
    problem(forged, 404, "callback-not-found")


def test_a_task_that_waits_is_found_and_counted(client, bench):
    task_id = send(bench, seconds=12)
    waiting(bench, task_id)
    listed = client.get("/v1/tasks?state=WAITING").json["items"]

    assert task_id in [item["taskId"] for item in listed]
    eventually(lambda: client.get("/v1/stats").json["states"].get("WAITING", 0) >= 1, 20, "it is counted")
