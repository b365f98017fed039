"""A handler's tasks are submitted once, whatever dies while it submits them."""

import json

import pytest

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.ids import child_traceparent, new_task_id, trace_id
from dispatch.protocol.record import State
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import each_pool, running_worker

APP = "support.drills"
TRACE = child_traceparent(None)


def start(bench, **payload):
    """A task of a type that only the worker has; its record comes from its message."""
    task_id = new_task_id()
    headers = {"task": "drill.parent", "id": task_id, "retries": 0, "x-principal": "local", "traceparent": TRACE}
    bench.send(json.dumps([[payload], {}, None]).encode(), headers)
    eventually(lambda: bench.store.get(task_id), 30, "a worker has claimed it")
    return task_id


def children(bench, parent_id):
    return bench.store.list(parent_id=parent_id).items


def runs(bench, record):
    return bench.hops(record.task_id).count("started")


@each_pool
def test_a_repeated_step_submits_nothing_twice_and_its_children_are_in_its_family(bench, pool):
    with running_worker(bench.settings, app=APP, abrupt=True, pool=pool), gateway(bench.settings) as client:
        parent = bench.finished(start(bench, children=2, fails=2), 40)
        ended = [bench.finished(child.task_id) for child in children(bench, parent.task_id)]
        bench.drained()
        shown = client.get(f"/v1/tasks/{parent.task_id}/children").json["items"]

    assert parent.attempt == 3
    assert sorted(parent.result["children"]) == sorted(child.task_id for child in ended)
    assert sorted(child.result["message"] for child in ended) == ["0 of attempt 1", "1 of attempt 1"]
    assert {(child.state, runs(bench, child), child.principal) for child in ended} == {(State.SUCCEEDED, 1, "local")}
    assert {trace_id(child.traceparent) for child in ended} == {trace_id(TRACE)}
    assert {item["parentId"] for item in shown} == {parent.task_id}
    assert sorted(item["taskId"] for item in shown) == sorted(parent.result["children"])


@each_pool
@pytest.mark.parametrize(
    "point", ["child.reserved", "submit.recorded", "submit.published", "submit.marked", "child.submitted"]
)
def test_a_process_dies_submitting_and_the_child_runs_once(bench, monkeypatch, tmp_path, pool, point):
    assert point in crashpoints.POINTS
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
    with (
        running_worker(bench.settings, app=APP, abrupt=True, pool=pool),
        running_worker(bench.settings, app=APP, abrupt=True, pool=pool),
    ):
        parent = bench.finished(start(bench, children=2), 60)
        every = [bench.finished(child.task_id, 40) for child in children(bench, parent.task_id)]
        bench.drained(names.LEASE_QUEUE, names.WORK_QUEUE)
    # The sweeper may be faster than the repeated step: what it rejects never runs, and another id follows.
    rejected = [child for child in every if child.state is State.REJECTED]
    ended = [child for child in every if child.state is not State.REJECTED]

    assert sum(runs(bench, child) for child in rejected) == 0
    assert point == "submit.recorded" or not rejected
    assert (tmp_path / "died-here").exists()
    assert parent.state is State.SUCCEEDED
    assert sorted(child.task_id for child in ended) == sorted(parent.result["children"])
    assert [(child.state, runs(bench, child)) for child in ended] == [(State.SUCCEEDED, 1)] * 2
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_a_redrive_submits_anew_and_redis_without_its_data_does_not(bench):
    with running_worker(bench.settings, app=APP, abrupt=True) as worker:
        first = bench.finished(start(bench, fails=1, permanent=True))
        bench.stores.service(bench.publisher).redrive(first.task_id, by="test")
        eventually(lambda: bench.store.get(first.task_id).cycle == 1, 20)
        bench.finished(first.task_id)
        eventually(lambda: len(children(bench, first.task_id)) == 2, 20, "each cycle has its own child")

        second = start(bench, fails=1, delay=5)
        eventually(lambda: bench.state(second) is State.RETRY_WAIT, 20)
        bench.stores.redis.run(("DEL", *_keys(bench, second)))
        parent = bench.finished(second, 40)
        (child,) = parent.result["children"]
        ended = bench.finished(child, 40)
        bench.drained()

    assert worker.process.poll() is not None
    assert (ended.state, runs(bench, ended)) == (State.SUCCEEDED, 1)


def _keys(bench, parent_id):
    """Everything that Redis knows of a task and its children."""
    keys = bench.stores.redis.keys
    (child,) = children(bench, parent_id)
    return [*keys.task(parent_id), *keys.task(child.task_id), keys.children(parent_id), keys.submitted(parent_id)]
