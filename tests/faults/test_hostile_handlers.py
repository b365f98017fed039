"""P1, P3, P4, P7: what a handler can do to the process that runs it costs its own attempts, and no other task's."""

import json
import os
import signal
import time
import uuid

from dispatch.protocol import names
from dispatch.protocol.message import DEAD_REASON, LAST_ERROR_TYPE, MAX_ERROR
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import running_worker

APP = "support.drills"


def _drill(bench, name, **payload):
    """A task of a type that only the worker has; its record comes from its message."""
    task_id = str(uuid.uuid4())
    bench.send(json.dumps([[payload], {}, None]).encode(), {"task": f"drill.{name}", "id": task_id, "retries": 0})
    return task_id


def _failures(bench, task_id):
    return [hop.get("errorType") for hop in bench.store.hops(task_id) if hop["kind"] == "failed"]


#: What happens in a first attempt, and what it counts as.
ENDS = {
    "memory-error": {"MemoryError"},
    "exhaust": {"MemoryError"},
    "die": {"worker-lost"},
    "leave": {"worker-lost"},
    "quit": {"worker-lost", "MaybeEncodingError"},  # billiard tries to send the exit home, which it can't always
}


def test_a_process_without_memory_or_that_dies_costs_one_attempt_of_its_own_task(bench):
    with running_worker(bench.settings, app=APP, abrupt=True) as worker:
        bad = {_drill(bench, drill, times=1): errors for drill, errors in ENDS.items()}
        good = [bench.submit("echo", {"message": "x"}) for _ in range(40)]
        records = [bench.finished(task_id, 60) for task_id in bad]
        others = [bench.finished(task_id, 60) for task_id in good]
        after = bench.finished(bench.submit("echo", {"message": "x"}))
        bench.drained()

        assert worker.process.poll() is None
    assert {(each.state, each.attempt) for each in records} == {(State.SUCCEEDED, 2)}
    failures = {task_id: _failures(bench, task_id) for task_id in bad}
    assert all(len(each) == 1 and set(each) <= bad[task_id] for task_id, each in failures.items()), failures
    assert {(each.state, each.attempt) for each in [*others, after]} == {(State.SUCCEEDED, 1)}
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_children_that_die_again_and_again_stop_no_other_task_and_theirs_climb_to_the_dlq(bench):
    with running_worker(bench.settings, app=APP, abrupt=True) as worker:
        bad = [_drill(bench, drill) for drill in ("die", "leave") * 6]
        good = [bench.submit("echo", {"message": "x"}) for _ in range(20)]
        records = [bench.finished(task_id, 60) for task_id in good]
        dead = [bench.finished(task_id, 90) for task_id in bad]
        bench.drained(names.WORK_QUEUE, names.LEASE_QUEUE, names.RECORDER_QUEUE)
        dead_letters = bench.dead_letters()

        assert worker.process.poll() is None
        assert len(worker.children()) <= bench.settings.concurrency_max
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}
    assert {(record.state, record.attempt) for record in dead} == {(State.DEAD_LETTERED, 4)}
    assert {tuple(_failures(bench, task_id)) for task_id in bad} == {("worker-lost",) * 4}
    assert sorted(dead_letter.task_id for dead_letter in dead_letters) == sorted(bad)
    assert {(dead_letter.text(DEAD_REASON), dead_letter.text(LAST_ERROR_TYPE)) for dead_letter in dead_letters} == {
        ("retries-exhausted", "worker-lost")
    }


def test_what_a_handler_leaves_behind_holds_no_shutdown_up(bench):
    with running_worker(bench.settings, app=APP) as worker:
        left = bench.finished(_drill(bench, "litter", seconds=120)).result["pids"]
        after = bench.finished(bench.submit("echo", {"message": "x"}))
        began = time.monotonic()
        worker.process.terminate()
        worker.process.wait(bench.settings.soft_shutdown + 30)
        seconds = time.monotonic() - began
    alive = [pid for pid in left if _lives(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)

    assert after.state is State.SUCCEEDED
    assert worker.process.returncode == 0
    assert seconds < bench.settings.soft_shutdown + 20
    assert len(alive) == 2


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_handler_that_returns_twice_has_one_outcome(bench):
    with running_worker(bench.settings, app=APP, abrupt=True) as worker:
        ids = [_drill(bench, "fork") for _ in range(4)]
        results = [bench.finished(task_id).result for task_id in ids]
        good = [bench.finished(bench.submit("echo", {"message": "x"})) for _ in range(10)]
        bench.drained()
        eventually(lambda: len(worker.family()) == 1 + len(worker.children()), 10, "the copies are gone")

    assert results == [{"copy": False}] * 4
    assert {bench.hops(task_id).count("succeeded") for task_id in ids} == {1}
    assert {record.state for record in good} == {State.SUCCEEDED}


def test_a_failure_with_a_very_long_message_is_cut_short_everywhere(bench):
    with running_worker(bench.settings, app=APP) as worker:
        ids = [_drill(bench, drill) for drill in ("rant", "rave")]
        records = [bench.finished(task_id, 60) for task_id in ids]
        good = bench.finished(bench.submit("echo", {"message": "x"}))
        bench.drained(names.RECORDER_QUEUE)
        longest = max(len(line) for line in worker.text().splitlines())

        assert worker.process.poll() is None
        assert "Connection to broker lost" not in worker.text()
    assert {(record.state, record.attempt) for record in records} == {(State.DEAD_LETTERED, 4)}
    assert good.state is State.SUCCEEDED
    assert max(len(record.error.message) for record in records) <= MAX_ERROR
    assert max(len(record.error.type) for record in records) <= 200
    assert max(len(str(dead_letter.headers)) for dead_letter in bench.dead_letters()) < 10_000
    assert longest < 100_000
