"""One at a time per key: first come first served, never two at once, whatever dies meanwhile."""

import pytest

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.concurrency import ConcurrencyKeys
from support.limited_client import APP, begins, most_at_once, order, send
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

#: Enough that most wait behind others, on several workers.
MANY = 200


@pytest.fixture
def patient(settings):
    """A bench whose hold queue keeps copies for longer than a test takes: only a key that is given back brings them out."""
    with open_bench(settings.model_copy(update={"hold_ttl": 600.0})) as made:
        yield made


@pytest.fixture
def log(tmp_path):
    return tmp_path / "runs.txt"


def _keys(bench):
    return ConcurrencyKeys(bench.stores.redis, lease=bench.settings.lease)


def _all_succeed(bench, ids, timeout=60):
    def left():
        return [each for each in bench.store.get_many(ids) if each is None or each.state is not State.SUCCEEDED]

    eventually(lambda: not left(), timeout, lambda: f"{len(left())} are left, e.g. {left()[:2]}")
    return bench.store.get_many(ids)


@each_pool
def test_tasks_of_a_key_run_one_at_a_time_in_their_order_and_use_up_no_attempt(patient, log, pool):
    workers = [running_worker(patient.settings, app=APP, abrupt=True, pool=pool) for _ in range(2)]
    with workers[0], workers[1]:
        first = send(patient, "limited.one", log, seconds=5)  # meanwhile the others come
        patient.wait_for(first, State.RUNNING)
        ids = [first, *(send(patient, "limited.one", log) for _ in range(MANY - 1))]
        records = _all_succeed(patient, ids, 120)
        patient.drained()
        eventually(lambda: _keys(patient).view("r") is None, 20, "the key is free")

    assert most_at_once(log) == 1
    assert order(log) == ids
    assert {record.attempt for record in records} == {1}
    assert set(begins(log).values()) == {1}


def test_another_key_and_tasks_without_one_go_on_meanwhile(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        first = send(patient, "limited.one", log, seconds=6)
        patient.wait_for(first, State.RUNNING)
        second = send(patient, "limited.one", log)
        held = patient.wait_for(second, State.HELD)
        other = patient.finished(send(patient, "limited.one", log, key="r2"))
        plain = patient.finished(patient.submit("echo", {"message": "x"}))
        still = patient.state(first)
        view = _keys(patient).view("r")
        _all_succeed(patient, [first, second])

    assert (held.held_by, held.concurrency_key, held.attempt) == ("key:r", "r", 0)
    assert (other.state, plain.state, still) == (State.SUCCEEDED, State.SUCCEEDED, State.RUNNING)
    assert [task_id for task_id, _ in view.holders] == [first]
    assert (view.limit, view.waiting, view.first) == (1, 1, (second,))
    assert patient.hops(second)[-4:] == ["held", "released", "started", "succeeded"]


@pytest.mark.parametrize("task_type", ["limited.two", "limited.crowd"])
def test_a_limit_of_two_lets_two_run_at_once_and_no_more(patient, log, task_type):
    ids = [send(patient, task_type, log, seconds=0.2) for _ in range(20)]
    with running_worker(patient.settings, app=APP, abrupt=True), running_worker(patient.settings, app=APP, abrupt=True):
        _all_succeed(patient, ids, 60)

    assert most_at_once(log) == 2


def test_a_clients_key_is_held_too(patient):
    with running_worker(patient.settings, abrupt=True):
        first = patient.submit("echo", {"message": "x", "sleepSeconds": 4}, concurrency_key="local:k")
        patient.wait_for(first, State.RUNNING)
        second = patient.submit("echo", {"message": "x"}, concurrency_key="local:k")
        held = patient.wait_for(second, State.HELD)
        _all_succeed(patient, [first, second])

    assert held.held_by == "key:local:k"


def test_a_task_holds_its_key_while_it_waits_between_steps(patient, log):
    ids = [send(patient, "limited.one", log, waits=2) for _ in range(3)]
    with running_worker(patient.settings, app=APP, abrupt=True):
        _all_succeed(patient, ids, 60)

    assert most_at_once(log) == 1
    assert order(log) == ids


def test_a_task_that_waits_for_its_next_attempt_holds_nothing(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        failing = send(patient, "limited.one", log, fails=2)
        patient.wait_for(failing, State.RETRY_WAIT)
        second = patient.finished(send(patient, "limited.one", log))
        between = patient.store.get(failing)
        record = _all_succeed(patient, [failing])[0]

    assert second.state is State.SUCCEEDED
    assert not between.state.terminal
    assert record.attempt == 3
    assert most_at_once(log) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_holders_worker_is_killed_and_no_other_runs_before_the_holder_has_ended(patient, log, pool):
    with running_worker(patient.settings, app=APP, abrupt=True, pool=pool) as first:
        ids = [send(patient, "limited.one", log, seconds=1.5) for _ in range(4)]
        patient.wait_for(ids[1], State.HELD)
        first.kill()
    with running_worker(patient.settings, app=APP, abrupt=True, pool=pool):
        _all_succeed(patient, ids, 60)

    assert most_at_once(log) == 1
    assert order(log) == ids


POINTS = [
    "key.taken",
    "key.held",
    "key.ended",
    "key.released",
    "hold.decided",
    "hold.handed-over",
    "send-now.recorded",
    "send-now.published",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_dies_at_a_step_of_a_key_and_each_task_runs_once_without_the_hold_queues_help(
    patient, log, monkeypatch, tmp_path, point
):
    marker = tmp_path / "died-here"
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={marker}")
    workers = [running_worker(patient.settings, app=APP, abrupt=True) for _ in range(2)]
    with workers[0], workers[1]:
        ids = [send(patient, "limited.one", log, seconds=0.1) for _ in range(8)]
        records = _all_succeed(patient, ids, 90)
        patient.drained()
        eventually(lambda: _keys(patient).view("r") is None, 30, "the key is free")

    assert marker.exists()
    assert most_at_once(log) == 1
    assert {record.attempt for record in records} <= {1, 2}
    assert sum(begins(log).values()) <= len(ids) + 1  # what ran on the worker that died ran again


def test_redis_loses_everything_and_what_was_held_runs_when_it_leaves_the_hold_queue(bench, log):
    with running_worker(bench.settings, app=APP, abrupt=True):
        ids = [send(bench, "limited.one", log, seconds=0.2) for _ in range(6)]
        bench.wait_for(ids[-1], State.HELD)
        client = bench.stores.redis
        for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
            client.run(("DEL", key))
        eventually(lambda: set(begins(log)) == set(ids), 60, "all have run")
        bench.drained(names.HOLD_QUEUE, names.LEASE_QUEUE, names.WORK_QUEUE)
        eventually(lambda: all(record and record.state is State.SUCCEEDED for record in bench.store.get_many(ids)), 30)
