"""P1, P3, P4: short runs share a write to a process; what happens to one of them happens to no other."""

import json
import signal
import uuid

import pytest

from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import running_worker

APP = "support.drills"

#: Runs after which a type counts as short.
USUAL = 450


def _short(bench, **payload):
    task_id = str(uuid.uuid4())
    bench.send(json.dumps([[payload], {}, None]).encode(), {"task": "drill.short", "id": task_id, "retries": 0})
    return task_id


@pytest.fixture
def short(bench):
    """A worker with two processes, to which drill.short is a type whose runs are short; and how to send some."""
    settings = bench.settings.model_copy(update={"concurrency_min": 2, "concurrency_max": 2, "prefetch_multiplier": 20})
    with running_worker(settings, app=APP, abrupt=True) as worker:
        for task_id in [bench.submit("echo", {"message": "x"}) for _ in range(2)]:
            bench.finished(task_id)
        usual = [_short(bench) for _ in range(USUAL)]
        for task_id in usual:
            bench.finished(task_id, 60)
        yield worker


def _stopped_while(worker, bench, payloads):
    """Send tasks that the worker finds all at once."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        return [_short(bench, **payload) for payload in payloads]
    finally:
        worker.process.send_signal(signal.SIGCONT)


def test_a_process_that_dies_costs_the_run_that_it_had_begun_and_no_other(bench, short):
    ids = _stopped_while(short, bench, [{"dies": n == 4} for n in range(40)])
    records = [bench.finished(task_id, 60) for task_id in ids]
    failed = [hop for task_id in ids for hop in bench.store.hops(task_id) if hop["kind"] in ("failed", "lost")]

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert [record.attempt for record in records] == [2 if n == 4 else 1 for n in range(40)]
    assert [hop.get("errorType") for hop in failed] == ["worker-lost"]
    assert {record.lost_runs for record in records} == {0}


def test_a_run_that_takes_long_for_once_delays_no_other(bench, short):
    slow, *others = _stopped_while(short, bench, [{"seconds": 60.0}, *[{}] * 39])
    records = [bench.finished(task_id, 30) for task_id in others]

    assert {(record.state, record.attempt, record.lost_runs) for record in records} == {(State.SUCCEEDED, 1, 0)}
    assert bench.state(slow) is State.RUNNING


def test_runs_that_have_not_begun_when_a_shutdown_does_give_their_claims_back(bench, short):
    slow = [_short(bench, seconds=60.0) for _ in range(2)]
    for task_id in slow:
        bench.wait_for(task_id, State.RUNNING)
    others = [_short(bench) for _ in range(30)]
    short.process.terminate()
    short.process.wait(bench.settings.soft_shutdown + 20)
    before = {bench.store.get(task_id).attempt for task_id in others if bench.store.get(task_id)}
    with running_worker(bench.settings, app=APP, abrupt=True):
        records = [bench.finished(task_id, 60) for task_id in others]

    assert before <= {0, 1}
    assert {(record.state, record.attempt, record.lost_runs) for record in records} == {(State.SUCCEEDED, 1, 0)}


@pytest.mark.parametrize("term", ["SIGQUIT", "SIGTERM"])
def test_a_worker_ends_when_its_last_run_has_and_that_is_recorded(bench, term):
    """By a soft shutdown, and by Celery's own warm one."""
    settings = bench.settings.model_copy(update={"soft_shutdown": 120})
    with running_worker(settings, term=term) as worker:
        ids = [bench.submit("echo", {"message": "x", "sleepSeconds": 3, "failTimes": n}) for n in (0, 1)]
        for task_id in ids:  # RUNNING would be true of one that is claimed and has not begun
            eventually(lambda task_id=task_id: "progress" in bench.hops(task_id), 30, "its handler has begun")
        worker.process.terminate()
        worker.process.wait(60)
        ended = worker.text()
    done, failed = map(bench.store.get, ids)

    assert done.state is State.SUCCEEDED
    assert bench.hops(ids[0]).count("started") == 1
    assert (failed.attempt, failed.lost_runs) == (1, 0)
    assert "Traceback" not in ended
