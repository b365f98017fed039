"""P1, P2, P3: a task is cancelled, in each place where it can be, and what crashes meanwhile."""

import json
import uuid

import pytest

from dispatch import crashpoints
from dispatch.control.refusals import TaskTerminal
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.processes import Forked
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

LONG = {"message": "x", "sleepSeconds": 60}
APP = "support.drills"


def _cancel(bench, task_id):
    return bench.stores.control(bench.publisher).cancel(task_id, by="op")


def _cancel_in_a_process(settings, task_id):
    with open_bench(settings) as bench:
        _cancel(bench, task_id)


def _rungs(bench):
    return [names.rung_queue(rung.name) for rung in bench.settings.ladder.rungs]


def _started(bench):
    """A task whose handler asks its context again and again whether to go on."""
    task_id = bench.submit("echo", LONG)
    eventually(lambda: bench.store.get(task_id).progress, 20, "its handler runs")
    return task_id


def _started_deaf(bench, seconds):
    """One whose handler never asks; only the worker has its type, so its record comes from its message."""
    task_id = str(uuid.uuid4())
    body = json.dumps([[{"seconds": seconds}], {}, None]).encode()
    bench.send(body, {"task": "drill.short", "id": task_id, "retries": 0})
    return bench.wait_for(task_id, State.RUNNING).task_id


def test_a_queued_task_never_runs(bench):
    task_id = bench.submit("echo", {"message": "x"})
    record = _cancel(bench, task_id)
    with running_worker(bench.settings, abrupt=True):
        bench.drained()

    assert (record.state, bench.state(task_id)) == (State.CANCELLED, State.CANCELLED)
    assert bench.hops(task_id) == ["accepted", "published", "cancelled"]


def test_a_task_on_a_rung_ends_at_once_and_its_copy_comes_back_to_nothing(bench):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "failTimes": 9})
        bench.wait_for(task_id, State.RETRY_WAIT)
        record = _cancel(bench, task_id)
        bench.drained(*_rungs(bench))
        bench.drained()

    assert record.state is State.CANCELLED
    assert bench.hops(task_id).count("started") == 1
    assert bench.depth(names.DEAD_QUEUE) == 0


@each_pool
def test_a_running_handler_finds_out_and_its_task_ends_without_a_retry(bench, pool):
    with running_worker(bench.settings, abrupt=True, pool=pool):
        task_id = _started(bench)
        asked = _cancel(bench, task_id)
        record = bench.finished(task_id)
        bench.drained(*_rungs(bench))
        bench.drained()

    assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    assert (record.state, record.error.message) == (State.CANCELLED, "cancelled by op")
    assert bench.hops(task_id)[-3:] == ["cancel-requested", "failed", "cancelled"]
    assert bench.depth(names.DEAD_QUEUE) == 0


@each_pool
def test_a_handler_that_does_not_ask_is_ended_after_its_grace_and_its_neighbour_goes_on(bench, pool):
    settings = bench.settings.model_copy(update={"cancel_grace": 1.0, "concurrency_max": 2, "concurrency_min": 2})
    with running_worker(settings, abrupt=True, pool=pool, app=APP) as worker:
        task_id = _started_deaf(bench, 60)
        neighbour = _started_deaf(bench, 6)
        _cancel(bench, task_id)
        record = bench.finished(task_id, 30)
        other = bench.finished(neighbour, 30)
        after = bench.submit("echo", {"message": "x"})
        bench.finished(after)
        bench.drained()

    assert record.state is State.CANCELLED
    assert other.state is State.SUCCEEDED
    assert "cancelled run ended" in worker.text()
    assert bench.hops(task_id).count("started") == 1


@each_pool
def test_a_success_that_comes_first_wins(bench, pool):
    with running_worker(bench.settings, abrupt=True, pool=pool, app=APP):
        task_id = _started_deaf(bench, 3)
        _cancel(bench, task_id)
        record = bench.finished(task_id)
        bench.drained()

    assert (record.state, record.result) == (State.SUCCEEDED, {"attempt": 1})
    with pytest.raises(TaskTerminal):
        _cancel(bench, task_id)


@each_pool
def test_a_worker_is_killed_after_the_request_and_the_task_ends_at_the_next_claim(bench, pool):
    with running_worker(bench.settings, abrupt=True, pool=pool) as worker:
        task_id = _started(bench)
        worker.kill()
        _cancel(bench, task_id)
    with running_worker(bench.settings, abrupt=True, pool=pool):
        record = bench.finished(task_id, 40)
        bench.drained()

    assert record.state is State.CANCELLED
    assert bench.hops(task_id).count("started") == 1


def test_a_worker_dies_after_it_has_recorded_the_end_of_a_cancelled_run(bench, monkeypatch, tmp_path):
    died = tmp_path / "died-here"
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"route.decided={died}")
        with running_worker(bench.settings, abrupt=True) as worker:
            task_id = _started(bench)
            _cancel(bench, task_id)
            eventually(lambda: worker.process.poll() is not None, 30, "it dies there")
    with running_worker(bench.settings, abrupt=True):
        bench.drained()

    assert died.exists()
    assert bench.state(task_id) is State.CANCELLED
    assert bench.hops(task_id).count("cancelled") == 1


@pytest.mark.parametrize("mended_by", ["the sweeper", "a repeat"])
def test_a_gateway_dies_after_a_cancellation_is_recorded_and_nothing_is_counted_for_ever(
    bench, monkeypatch, tmp_path, mended_by
):
    task_id = bench.submit("echo", {"message": "x"})
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"cancel.recorded={tmp_path / 'died-here'}")
        ended = Forked(_cancel_in_a_process, bench.settings, task_id).wait(60)
    cut_off = bench.store.usage.read("local").open
    if mended_by == "a repeat":
        _cancel(bench, task_id)
    else:
        with sweeping(bench) as sweep:
            sweep(task_id)
    left = bench.store.usage.read("local").open
    with running_worker(bench.settings, abrupt=True):
        bench.drained()

    assert (ended, cut_off, left) == (-9, 1, 0)
    assert bench.state(task_id) is State.CANCELLED
    assert "started" not in bench.hops(task_id)
