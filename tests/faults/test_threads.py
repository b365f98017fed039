"""P1, P3, P4, P5: a worker with a pool of threads, whose runs end by themselves or with its process."""

import json
import signal
import uuid

import pytest
from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.worker.patches.shutdown import LEFT
from support.proxy import Proxy
from support.waiting import eventually
from support.worker import each_pool, running_worker

APP = "support.drills"


def _drill(bench, name, **payload):
    """A task of a type that only the worker has; its record comes from its message."""
    task_id = str(uuid.uuid4())
    bench.send(json.dumps([[payload], {}, None]).encode(), {"task": f"drill.{name}", "id": task_id, "retries": 0})
    return task_id


def _failures(bench, task_id):
    return [hop.get("errorType") for hop in bench.store.hops(task_id) if hop["kind"] == "failed"]


def _slow(bench, seconds, count=1):
    """Tasks whose handlers run now: what is claimed and has not begun is given back in a shutdown."""
    ids = [bench.submit("echo", {"message": "x", "sleepSeconds": seconds}) for _ in range(count)]
    eventually(lambda: all(_began(bench, each) for each in ids), 20, "all run")
    return ids


def _began(bench, task_id):
    record = bench.store.get(task_id)
    return record.state is State.RUNNING and record.progress is not None


def test_a_killed_process_costs_each_of_its_forty_runs_and_no_attempt(bench):
    with running_worker(bench.settings, pool="threads") as first:
        ids = _slow(bench, 4, 40)
        children = first.children()
        first.kill()
    with running_worker(bench.settings, pool="threads", abrupt=True):
        records = [bench.finished(each, 60) for each in ids]
        bench.drained()

    assert children == []
    assert {(each.state, each.attempt, each.lost_runs) for each in records} == {(State.SUCCEEDED, 1, 1)}
    assert {bench.hops(each).count("started") for each in ids} == {2}
    assert {bench.hops(each).count("succeeded") for each in ids} == {1}


def test_what_a_run_beyond_its_limit_returns_is_refused_and_its_task_runs_again(bench):
    with running_worker(bench.settings, app=APP, pool="threads", abrupt=True) as worker:
        late = _drill(bench, "stubborn", seconds=1.8)  # ends before its task's next attempt begins
        asking = _drill(bench, "stubborn", seconds=600, asks=True)
        records = [bench.finished(each) for each in (late, asking)]
        eventually(lambda: worker.text().count("beyond its time limit has ended") == 2, 20, "both have ended")
        bench.drained()

    assert [(each.state, each.attempt, each.result) for each in records] == [(State.SUCCEEDED, 2, {"attempt": 2})] * 2
    assert [_failures(bench, each) for each in (late, asking)] == [["time-limit"]] * 2
    assert [bench.hops(each).count("succeeded") for each in (late, asking)] == [1, 1]


def test_a_slot_whose_run_does_not_end_gets_a_new_thread(bench):
    settings = bench.settings.model_copy(update={"concurrency_max": 2, "prefetch_multiplier": 1})
    with running_worker(settings, "--concurrency=1", app=APP, pool="threads", abrupt=True) as worker:
        stuck = _drill(bench, "stubborn", seconds=600)
        after = [bench.finished(bench.submit("echo", {"message": "x"})) for _ in range(3)]
        record = bench.finished(stuck)

        assert worker.process.poll() is None
    assert {(each.state, each.attempt) for each in after} == {(State.SUCCEEDED, 1)}
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)


def test_a_worker_with_too_many_runs_beyond_their_limit_finishes_the_others_and_leaves(bench):
    with running_worker(bench.settings, "--concurrency=4", app=APP, pool="threads") as first:
        (other,) = _slow(bench, 5)
        stuck = [_drill(bench, "stubborn", seconds=600) for _ in range(2)]
        eventually(lambda: "finishes what it runs, and ends" in first.text(), 20, "it leaves")
        with running_worker(bench.settings, app=APP, pool="threads", abrupt=True):
            status = first.process.wait(30)
            records = [bench.finished(each) for each in (other, *stuck)]
            bench.drained()

    assert status == LEFT
    assert [(each.state, each.attempt) for each in records] == [(State.SUCCEEDED, n) for n in (1, 2, 2)]
    assert bench.hops(other).count("started") == 1
    assert [_failures(bench, each) for each in stuck] == [["time-limit"]] * 2


#: No `Exception`, what ends a process or a worker of Celery's, and what ends its main process.
ERRORS = (
    *("SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"),
    *("WorkerShutdown", "WorkerTerminate", "MemoryError", "RecursionError", "Ignore", "Reject"),
)


def test_whatever_a_handler_raises_is_a_failed_attempt_and_the_others_go_on(bench):
    with running_worker(bench.settings, app=APP, pool="threads", abrupt=True) as worker:
        (other,) = _slow(bench, 4)
        ids = [_drill(bench, "raise", error=each) for each in ERRORS]
        records = [bench.finished(each) for each in (*ids, other)]

        assert worker.process.poll() is None
    assert {(each.state, each.attempt) for each in records[:-1]} == {(State.SUCCEEDED, 2)}
    assert records[-1].attempt == 1
    assert [_failures(bench, each) for each in ids] == [[each] for each in ERRORS]


def test_the_soft_limit_is_raised_by_the_context(bench):
    with running_worker(bench.settings, "--soft-time-limit=1", pool="threads", abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 60})
        eventually(lambda: _failures(bench, task_id), 20, "the attempt fails")

    assert _failures(bench, task_id)[0] == "SoftTimeLimitExceeded"


@pytest.mark.parametrize("term", ["SIGQUIT", "SIGTERM"])
def test_a_deploy_lets_runs_finish_and_gives_back_what_takes_longer(bench, term):
    """SIGQUIT: a soft shutdown, within its time. SIGTERM: a warm one, which waits for all."""
    with running_worker(bench.settings, app=APP, pool="threads", term=term) as first:
        (short,) = _slow(bench, 1.5)
        (long,) = _slow(bench, 7)
        first.process.terminate()
        with running_worker(bench.settings, pool="threads", abrupt=True):
            first.process.wait(30)
            records = [bench.finished(each, 40) for each in (short, long)]
            bench.drained()

    assert {(each.state, each.attempt, each.lost_runs) for each in records} == {(State.SUCCEEDED, 1, 0)}
    assert bench.hops(short).count("started") == 1
    assert bench.hops(long).count("started") == (2 if term == "SIGQUIT" else 1)
    assert bench.depth(names.DEAD_QUEUE) == 0


@each_pool
def test_what_fails_during_a_warm_shutdown_is_handed_over(bench, pool):
    with running_worker(bench.settings, pool=pool, term="SIGTERM") as worker:
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 2, "failTimes": 1})
        eventually(lambda: _began(bench, task_id), 20, "it runs")
        worker.process.terminate()
        worker.process.wait(30)
    record = bench.store.whole(task_id)

    assert "not handed over" not in worker.text()
    assert (record.state, record.seq, record.decision) == (State.RETRY_WAIT, 1, None)


def test_a_second_signal_ends_a_warm_shutdown_at_once(bench):
    with running_worker(bench.settings, pool="threads", term="SIGTERM") as first:
        (task_id,) = _slow(bench, 40)
        first.process.terminate()
        eventually(lambda: "Warm shutdown" in first.text(), 10, "it waits for the task")
        first.process.send_signal(signal.SIGQUIT)
        first.process.wait(bench.settings.soft_shutdown + 15)
        state = bench.state(task_id)

    assert state is State.QUEUED


def test_a_thread_that_a_handler_leaves_behind_holds_no_shutdown_up(bench):
    with running_worker(bench.settings, app=APP, pool="threads") as worker:
        bench.finished(_drill(bench, "linger", seconds=120))
        worker.process.terminate()
        status = worker.process.wait(bench.settings.soft_shutdown + 15)

    assert status == 0


def test_a_run_ends_and_its_failure_is_handed_over_while_there_is_no_broker_for_the_consumer(bench):
    with Proxy.to(bench.settings.broker("worker")) as proxy:
        settings = bench.settings.model_copy(update={"broker_url": SecretStr(proxy.url)})
        with running_worker(settings, app=APP, pool="threads", abrupt=True) as worker:
            (good,) = _slow(bench, 4)
            stuck = _drill(bench, "stubborn", seconds=600)
            bench.wait_for(stuck, State.RUNNING)
            proxy.refuse()
            proxy.cut()
            eventually(lambda: "no connection to RabbitMQ" in worker.text(), 20, "it looks for its broker")
            record = bench.finished(good)
            eventually(lambda: bench.store.whole(stuck).decision is not None, 20, "the limit is decided")
            proxy.admit()
            records = [bench.finished(each, 60) for each in (good, stuck)]
            bench.drained()

    assert record.state is State.SUCCEEDED
    assert [(each.state, each.attempt) for each in records] == [(State.SUCCEEDED, 1), (State.SUCCEEDED, 2)]
    assert bench.hops(good).count("started") == 1
