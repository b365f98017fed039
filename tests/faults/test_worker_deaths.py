"""P1, P3: workers die in the middle of a task."""

import os
import signal

from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.proxy import Proxy
from support.waiting import eventually
from support.worker import running_worker


def _has_begun(bench, task_id):
    """Its handler runs; RUNNING is true of a task that is claimed, too, which a process that dies now gives back."""
    return "progress" in bench.hops(task_id)


def _runs(bench, task_id):
    record = bench.store.get(task_id)
    return record is not None and record.state is State.RUNNING


def test_a_killed_child_costs_one_attempt_and_the_task_succeeds(bench):
    with running_worker(bench.settings, abrupt=True) as worker:
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 2})
        eventually(lambda: _has_begun(bench, task_id), 10, "the task runs")
        for pid in worker.children():
            os.kill(pid, signal.SIGKILL)
        record = bench.finished(task_id)
    failures = [hop.get("errorType") for hop in bench.store.hops(task_id) if hop["kind"] == "failed"]

    assert record.state is State.SUCCEEDED
    assert record.attempt == 2
    assert failures == ["worker-lost"]
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_a_killed_machine_costs_no_attempt_and_another_worker_takes_over(bench):
    with running_worker(bench.settings) as first:
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 2})
        eventually(lambda: _runs(bench, task_id), 10, "the task runs")
        first.kill()
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)

    assert record.state is State.SUCCEEDED
    assert record.attempt == 1
    assert record.lost_runs == 1
    assert bench.hops(task_id).count("started") == 2


def test_an_orphaned_child_may_finish_and_its_task_does_not_run_again(bench):
    with (
        running_worker(bench.settings, abrupt=True) as first,
        running_worker(bench.settings, "-Q", names.WORK_QUEUE, abrupt=True),
    ):
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 1})
        eventually(lambda: _runs(bench, task_id), 10, "the task runs")
        runner = bench.store.get(task_id).worker
        if runner in first.text():
            os.kill(first.process.pid, signal.SIGKILL)
        record = bench.finished(task_id)
        eventually(lambda: bench.depth(names.LEASE_QUEUE) == bench.depth(names.WORK_QUEUE) == 0, 10, "drained")

    assert record.state is State.SUCCEEDED
    assert bench.hops(task_id).count("succeeded") == 1


def test_an_attempt_that_loses_its_workers_three_times_counts_as_failed(bench):
    settings = bench.settings.model_copy(update={"lost_runs": 1})
    with running_worker(settings) as first:
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 2})
        eventually(lambda: _runs(bench, task_id), 10, "the task runs")
        first.kill()
    with running_worker(settings, abrupt=True):
        record = bench.finished(task_id)
    failures = [hop.get("errorType") for hop in bench.store.hops(task_id) if hop["kind"] == "failed"]

    assert record.state is State.SUCCEEDED
    assert record.attempt == 2
    assert failures == ["worker-lost"]


def test_a_deploy_under_load_loses_nothing_and_ends_in_time(bench):
    with running_worker(bench.settings) as first:
        ids = [bench.submit("echo", {"message": str(n), "sleepSeconds": 0.3}) for n in range(40)]
        eventually(lambda: _runs(bench, ids[0]) or bench.store.get(ids[0]).state.terminal, 10, "work goes on")
        first.process.terminate()
        first.process.wait(bench.settings.soft_shutdown + 30)
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id, 40) for task_id in ids]

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {record.attempt for record in records} == {1}
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_a_deploy_in_the_middle_of_a_fork_ends_in_time_and_loses_nothing(bench, tmp_path, monkeypatch):
    """Celery's own handler would stop the pool in there, and leave a worker that neither works nor ends."""
    forking = tmp_path / "forking"
    monkeypatch.setenv("SLOW_FORK", str(forking))
    with running_worker(bench.settings, app="support.slow_fork") as first:
        ids = [bench.submit("echo", {"message": str(n), "sleepSeconds": 0.3}) for n in range(40)]
        eventually(forking.exists, 10, "the pool grows")
        first.process.terminate()
        first.process.wait(bench.settings.soft_shutdown + 10)
        output = first.text()
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id, 40) for task_id in ids]

    assert "Traceback" not in output
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_a_worker_without_its_broker_ends_in_time(bench):
    with Proxy.to(bench.settings.broker("worker")) as proxy:
        settings = bench.settings.model_copy(update={"broker_url": SecretStr(proxy.url)})
        with running_worker(settings) as worker:
            proxy.refuse()
            proxy.cut()
            eventually(lambda: "no connection to RabbitMQ" in worker.text(), 20, "it looks for its broker")
            worker.process.terminate()
            worker.process.wait(bench.settings.soft_shutdown + 10)


def test_a_signal_that_comes_after_the_shutdown_has_begun_is_celerys_own(bench):
    with running_worker(bench.settings, term="SIGTERM") as worker:
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 60})
        eventually(lambda: _runs(bench, task_id), 10, "the task runs")
        worker.process.terminate()
        eventually(lambda: "Warm shutdown" in worker.text(), 10, "it waits for the task")
        worker.process.send_signal(signal.SIGQUIT)
        eventually(lambda: "Initiating Soft Shutdown" in worker.text(), 10, "Celery begins a cold one")
        worker.kill()
