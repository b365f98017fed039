"""Clocks that jump: leases, waits and the sweeper go by Redis's clock and RabbitMQ's, never by a worker's or a gateway's."""

import itertools
import time

import pytest

from dispatch.protocol import names
from dispatch.protocol.message import FAILED_AT
from dispatch.protocol.record import State
from support.clock import Clock
from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually
from support.worker import running_worker

HOURS = 3_600.0

#: Hours that the clock is early by, one after the other.
JUMPS = (6, -6, 0.5, -20, 0)


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """What is started from now on goes by it."""
    made = Clock(tmp_path)
    for name, value in made.environ().items():
        monkeypatch.setenv(name, value)
    return made


def _waits(bench, task_id):
    """Milliseconds between a failed attempt and the next, by Redis's clock."""
    hops = bench.store.hops(task_id)
    failed = [hop for hop in hops if hop["kind"] == "failed"]
    started = [hop for hop in hops if hop["kind"] == "started"]
    return [(_millis(after) - _millis(before)) % 86_400_000 for before, after in zip(failed, started[1:], strict=False)]


def _millis(hop):
    hours, minutes, seconds = hop["at"][11:-1].split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000 + int(float(seconds) * 1_000)


def test_a_workers_clock_may_jump_and_nothing_is_early_lost_or_twice(bench, clock):
    with running_worker(bench.settings) as worker:
        slow = [bench.submit("echo", {"message": "x", "sleepSeconds": 4}) for _ in range(2)]
        climbs = [bench.submit("echo", {"message": "x", "failTimes": 3}) for _ in range(3)]
        clock.jump(JUMPS[0] * HOURS)
        dies = [bench.submit("echo", {"message": "x", "permanent": True}) for _ in range(3)]
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == len(dies), 20, "each dead task has its dead letter")
        waiting = iter(itertools.cycle(JUMPS))

        def all_ended():
            clock.jump(next(waiting) * HOURS)
            return all(bench.store.get(task_id).state.terminal for task_id in (*slow, *climbs, *dies))

        eventually(all_ended, 60, "every task ends", interval=0.3)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == len(dies), 20, "each dead task has its dead letter")
        bench.drained()
        assert worker.process.poll() is None

    assert any(
        abs(dead_letter.number(FAILED_AT) / 1_000 - time.time()) > 1_000 for dead_letter in bench.dead_letters()
    )  # it did jump
    assert {bench.state(task_id) for task_id in (*slow, *climbs)} == {State.SUCCEEDED}
    assert {bench.state(task_id) for task_id in dies} == {State.DEAD_LETTERED}
    assert {bench.runs(task_id) for task_id in slow} == {1}  # no lease lapsed
    assert {bench.runs(task_id) for task_id in climbs} == {4}
    assert not any("resent" in bench.hops(task_id) for task_id in (*slow, *climbs, *dies))
    for task_id in climbs:
        waits = _waits(bench, task_id)
        assert all(
            wait >= rung.seconds * 1_000 for wait, rung in zip(waits, bench.settings.ladder.rungs, strict=True)
        ), waits


def test_a_workers_clock_that_is_ahead_ends_no_task_before_its_deadline(bench, clock):
    clock.jump(6 * HOURS)
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "failTimes": 2}, deadline=600)
        record = bench.finished(task_id, 40)

    assert (record.state, record.attempt) == (State.SUCCEEDED, 3)


def test_a_gateways_clock_may_jump_and_keys_records_and_ids_go_on(bench, clock):
    body = {"type": "echo", "payload": {"message": "x"}}
    with running_gateway(bench.settings, free_port()) as (http, _, _):

        def submitted(key):
            answer = http.post("/v1/tasks", json=body, headers={"Idempotency-Key": key})
            assert answer.status_code == 202, answer.text
            return answer.json()["taskId"]

        first = {key: submitted(key) for key in ("a", "b")}
        found = []
        for hours in JUMPS:
            clock.jump(hours * HOURS)
            found.append((submitted("a"), http.get(f"/v1/tasks/{first['b']}").status_code, submitted(f"new{hours}")))
            eventually(lambda: http.get("/readyz").status_code == 200, 10, "each process is ready, whatever the time")
        with running_worker(bench.settings, abrupt=True):
            ends = {bench.finished(task_id).state for task_id in (*first.values(), *(new for _, _, new in found))}
        clock.jump(0)
        listed = http.get("/v1/tasks").json()["items"]

    assert {(again, status) for again, status, _ in found} == {(first["a"], 200)}
    assert ends == {State.SUCCEEDED}
    assert len(listed) == 2 + len(JUMPS)


def test_leases_that_all_lapse_at_once_cost_no_success_and_give_no_second_one(bench):
    """As when Redis's own clock jumps ahead."""
    redis = bench.stores.redis
    with running_worker(bench.settings, abrupt=True):
        tasks = [bench.submit("echo", {"message": "x", "sleepSeconds": 3}) for _ in range(4)]
        for task_id in tasks:
            bench.wait_for(task_id, State.RUNNING)
            redis.run(("DEL", redis.keys.task(task_id).lease))
            bench.send_again(bench.message(task_id))  # a duplicate that comes in that moment
        records = [bench.finished(task_id, 40) for task_id in tasks]
        bench.drained()

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {bench.hops(task_id).count("succeeded") for task_id in tasks} == {1}
