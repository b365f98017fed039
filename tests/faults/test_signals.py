"""P1, P3: a signal ends a wait once, whatever crashes, and one that comes before its wait is kept for it."""

import time

import pytest

from dispatch import crashpoints
from dispatch.control.send_now import SendNow
from dispatch.control.signalling import Signaller
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.signals import NewSignal
from support.processes import Forked
from support.steps_client import APP, send, waiting
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

GO = NewSignal("go", '{"battery":40}', "ada", "k-1")


def signaller(bench):
    sender = SendNow(bench.store, bench.stores.handovers, bench.publisher, bench.settings.sealing)
    return Signaller(bench.store, bench.stores.signals, sender, bench.settings.sealing)


def _levels(bench):
    return [names.delay_queue(level) for level in reversed(range(bench.settings.delay_levels))]


@each_pool
def test_a_signal_ends_the_wait_and_its_handler_reads_it(bench, pool):
    with running_worker(bench.settings, app=APP, abrupt=True, pool=pool):
        task_id = send(bench, "wait.signals", steps=1, seconds=12)
        until = waiting(bench, task_id).wakes_at
        signaller(bench).signal(task_id, GO)
        record = bench.finished(task_id)
        hops = bench.hops(task_id)
        bench.drained(*_levels(bench), names.WORK_QUEUE)

    assert record.state is State.SUCCEEDED
    assert record.finished_at < until
    assert record.result["signals"] == [["go", {"battery": 40}]]
    assert (hops.count("signalled"), hops.count("started"), hops.count("succeeded")) == (1, 2, 1)
    assert bench.hops(task_id) == hops  # the copy that came out of the levels changed nothing


def test_a_signal_that_comes_while_a_step_runs_ends_the_wait_that_follows_and_no_other(bench):
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, "wait.signals", steps=2, seconds=3, busy=1.5)
        bench.wait_for(task_id, State.RUNNING)
        signaller(bench).signal(task_id, GO)
        record = bench.finished(task_id)
        waits = [hop["seconds"] for hop in bench.store.hops(task_id) if hop["kind"] == "waiting"]

    assert (record.state, record.step) == (State.SUCCEEDED, 2)
    assert waits == [0, 3]


def _signal(settings, task_id):
    with open_bench(settings) as bench:
        signaller(bench).signal(task_id, GO)


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("point", ["send-now.recorded", "send-now.published", "send-now.handed-over"])
def test_a_gateway_dies_signalling_and_the_next_step_runs_once(bench, monkeypatch, tmp_path, point, repeats):
    died = tmp_path / "died-here"
    impatient = bench.settings.model_copy(update={"unpublished_grace": 0.5})
    with running_worker(impatient, app=APP, abrupt=True):
        task_id = send(bench, "wait.signals", steps=1, seconds=15)
        until = waiting(bench, task_id).wakes_at
        with monkeypatch.context() as armed:
            armed.setenv(crashpoints.VARIABLE, f"{point}={died}")
            assert Forked(_signal, bench.settings, task_id).wait(60) == -9
        if repeats:
            signaller(bench).signal(task_id, GO)
        record = bench.finished(task_id, 40)
        bench.drained(*_levels(bench), names.WORK_QUEUE)
        hops = bench.hops(task_id)

    assert died.exists()
    assert (record.state, record.result["signals"]) == (State.SUCCEEDED, [["go", {"battery": 40}]])
    assert repeats is False or record.finished_at < until
    assert (hops.count("signalled"), hops.count("started"), hops.count("succeeded")) == (1, 2, 1)


@pytest.mark.parametrize("point", ["route.decided", "route.published", "route.handed-over"])
def test_a_worker_dies_handing_a_step_over_and_the_signal_ends_its_wait(bench, monkeypatch, tmp_path, point):
    died = tmp_path / "died-here"
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={died}")
        workers = [running_worker(bench.settings, app=APP, abrupt=True) for _ in range(2)]
        with workers[0], workers[1]:
            task_id = send(bench, "wait.signals", steps=1, seconds=12)
            eventually(died.exists, 30, "a worker died")
            signaller(bench).signal(task_id, GO)
            record = bench.finished(task_id, 40)
            bench.drained(*_levels(bench), names.LEASE_QUEUE, names.WORK_QUEUE)
            hops = bench.hops(task_id)

    assert (record.state, record.result["signals"]) == (State.SUCCEEDED, [["go", {"battery": 40}]])
    assert (hops.count("started"), hops.count("waiting"), hops.count("succeeded")) == (2, 1, 1)


def test_a_signal_is_kept_while_rabbitmq_takes_nothing_and_acted_on_afterwards(bench):
    impatient = bench.settings.model_copy(update={"unpublished_grace": 0.5})
    with running_worker(impatient, app=APP, abrupt=True):
        task_id = send(bench, "wait.signals", steps=1, seconds=15)
        waiting(bench, task_id)
        bench.publisher.close()
        recorded = signaller(bench).signal(task_id, GO)
        record = bench.finished(task_id, 40)

    assert recorded.record.state is State.QUEUED
    assert (record.state, record.result["signals"]) == (State.SUCCEEDED, [["go", {"battery": 40}]])


def test_redis_loses_a_signal_with_all_its_data_and_the_wait_ends_at_its_time(bench):
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, "wait.signals", steps=1, seconds=5)
        until = waiting(bench, task_id).wakes_at
        client = bench.stores.redis
        for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
            client.run(("DEL", key))
        eventually(lambda: bench.store.get(task_id) is not None, 30, "it has a record again")
        record = bench.finished(task_id)

    assert (record.state, record.result["signals"]) == (State.SUCCEEDED, [])
    assert time.time() * 1_000 >= until
