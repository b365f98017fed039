"""Schedules on real servers: from the request to the tasks of their due times."""

import itertools
import time

import pytest

from dispatch.protocol.ids import issued_at
from dispatch.protocol.record import State
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

EVERY_SECOND = "* * * * * *"


def body(**more):
    return {"type": "echo", "payload": {"message": "tick"}, "cron": EVERY_SECOND, "overlap": "queue", **more}


@pytest.fixture
def bench(settings):
    with open_bench(settings) as made:
        yield made


@pytest.fixture
def client(bench):
    with gateway(bench.settings) as made:
        yield made


def firings(bench, name):
    """The tasks of a schedule's due times, oldest first."""
    found = bench.store.list(labels={"schedule": name}, type="echo", limit=200).items
    return sorted(found, key=lambda record: issued_at(record.task_id))


def ticks(bench, name, state):
    return bench.store.list(labels={"schedule": name}, type="robot.schedule", state=state).items


def alive(bench, name):
    """The waits and wake-ups of a schedule that have not ended."""
    found = bench.store.list(labels={"schedule": name}, type="robot.schedule", limit=200).items
    return [record for record in found if not record.state.terminal]


@each_pool
def test_a_schedule_submits_a_task_at_each_due_time(client, bench, pool):
    with running_worker(bench.settings, abrupt=True, pool=pool):
        answer = client.put("/v1/schedules/every-second", json=body(options={"labels": {"customer": "acme"}}))
        eventually(lambda: len(firings(bench, "every-second")) >= 5, 30)
        paused = client.post("/v1/schedules/every-second/pause").json
        # A wake-up that is under way may still submit a task, which counts unless the pause was faster.
        eventually(lambda: not alive(bench, "every-second"), 30, "every wake-up has ended")
        found = firings(bench, "every-second")
        ended = [bench.finished(record.task_id) for record in found]
    times = [round(issued_at(record.task_id)) for record in found]
    shown = client.get("/v1/schedules/every-second").json

    assert answer.status_code == 201
    assert times == list(range(times[0], times[0] + len(times)))
    assert {(record.state, bench.hops(record.task_id).count("started")) for record in ended} == {(State.SUCCEEDED, 1)}
    assert {tuple(record.labels.items()) for record in ended} == {(("customer", "acme"), ("schedule", "every-second"))}
    assert all(record.created_at >= at * 1_000 for record, at in zip(found, times, strict=True))
    assert (shown["paused"], shown["nextRuns"]) == (True, [])
    assert shown["fired"] in {len(found) - 1, len(found)}
    assert shown["lastRun"]["taskId"] == found[shown["fired"] - 1].task_id
    assert (shown["missed"], shown["skipped"], shown["error"]) == (0, 0, None)
    assert paused["revision"] == shown["revision"]


def test_a_due_time_is_skipped_while_the_task_before_is_alive(client, bench):
    busy = body(payload={"message": "slow", "sleepSeconds": 3}, overlap="skip")
    with running_worker(bench.settings, abrupt=True):
        client.put("/v1/schedules/slow", json=busy)
        eventually(lambda: client.get("/v1/schedules/slow").json["fired"] >= 2, 40)
        client.delete("/v1/schedules/slow")
        found = [bench.finished(record.task_id) for record in firings(bench, "slow")]
    gaps = [second.started_at - first.finished_at for first, second in itertools.pairwise(found)]

    assert len(found) >= 2
    assert min(gaps) >= 0


def test_a_changed_a_paused_and_a_deleted_schedule_submit_what_they_are_now(client, bench):
    with running_worker(bench.settings, abrupt=True):
        client.put("/v1/schedules/changing", json=body())
        eventually(lambda: firings(bench, "changing"), 30)
        changed = client.put("/v1/schedules/changing", json=body(payload={"message": "tock"}))
        again = client.put("/v1/schedules/changing", json=body(payload={"message": "tock"}))
        old = client.put("/v1/schedules/changing", json=body(cron="0 0 1 1 *"), headers={"If-Match": '"1"'})
        eventually(lambda: (firings(bench, "changing")[-1].result or {}).get("message") == "tock", 30)
        client.post("/v1/schedules/changing/pause")
        resumed = client.post("/v1/schedules/changing/resume").json
        count = len(firings(bench, "changing"))
        eventually(lambda: len(firings(bench, "changing")) > count + 1, 30)
        gone = client.delete("/v1/schedules/changing")
        eventually(lambda: not ticks(bench, "changing", "DELAYED"), 30, "every wait has ended")
        records = [bench.finished(record.task_id) for record in firings(bench, "changing")]
    messages = [record.result["message"] for record in records]

    assert (changed.status_code, again.status_code, old.status_code, gone.status_code) == (200, 200, 412, 204)
    assert changed.json["revision"] == again.json["revision"] < resumed["revision"]
    assert messages == ["tick"] * messages.count("tick") + ["tock"] * messages.count("tock")
    assert client.get("/v1/schedules/changing").status_code == 404
    assert len({record.task_id for record in records}) == len(records)


def test_run_now_is_one_more_task_and_its_repeat_the_same(client, bench):
    client.put("/v1/schedules/yearly", json=body(cron="0 0 1 1 *", paused=True))
    answers = [client.post("/v1/schedules/yearly/run-now", headers={"Idempotency-Key": "k"}) for _ in range(2)]
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(answers[0].json["taskId"])

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json["taskId"] == answers[1].json["taskId"]
    assert (record.state, dict(record.labels)) == (State.SUCCEEDED, {"schedule": "yearly"})


def test_a_far_due_time_is_waited_for_in_several_waits(client, bench):
    answer = client.put("/v1/schedules/leap-day", json=body(cron="0 0 29 2 *")).json
    wait = bench.store.get(answer["waitsAs"])

    assert (wait.state, wait.type, wait.principal) == (State.DELAYED, "robot.schedule", "local")
    assert wait.wakes_at <= (time.time() + 31 * 86_400) * 1_000
    assert client.post("/v1/tasks", json={"type": "robot.schedule", "payload": {}}).status_code == 422
