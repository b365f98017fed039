"""Pauses: what is held waits in the broker, uses up no attempt, and goes on once, whatever dies meanwhile."""

import collections
import time

import pytest

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.pauses import Pause
from dispatch.protocol.record import State, Status
from dispatch.protocol.retry import parse_ladder
from dispatch.store.pauses import HeldTasks, Pauses
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

PAYLOAD = {"message": "x"}
LADDER = parse_ladder("1m=5,5m=6,30m=7")


@pytest.fixture
def patient(settings):
    """A bench whose hold queue keeps copies for longer than a test takes, and whose first rung outlasts a read of the pauses."""
    with open_bench(settings.model_copy(update={"hold_ttl": 600.0, "ladder": LADDER})) as made:
        yield made


def _pause(bench, what="type:echo", seconds=None):
    now = int(time.time() * 1_000)
    until = None if seconds is None else now + int(seconds * 1_000)
    Pauses(bench.stores.redis).put(Pause(what, "a test", "ada", now, until))


def _resume(bench, what="type:echo"):
    assert Pauses(bench.stores.redis).remove(what)


def _held(bench, count, timeout=20):
    eventually(
        lambda: bench.depth(names.HOLD_QUEUE) == count,
        timeout,
        lambda: f"{bench.depth(names.HOLD_QUEUE)} copies are in the hold queue instead of {count}",
    )


@each_pool
def test_a_paused_type_is_held_and_goes_on_when_it_is_resumed_while_others_run(patient, pool):
    _pause(patient)
    with running_worker(patient.settings, abrupt=True, pool=pool):
        task_id = patient.submit("echo", PAYLOAD)
        held = patient.wait_for(task_id, State.HELD)
        _held(patient, 1)
        other = patient.submit("http.request", {"url": "http://127.0.0.1:1/", "method": "GET"})
        eventually(lambda: "started" in patient.hops(other), 20, "another type runs")
        _resume(patient)
        record = patient.finished(task_id)

    assert (held.status, held.to_json()["heldBy"], held.queue) == (Status.PENDING, "type:echo", names.HOLD_QUEUE)
    assert (held.attempt, held.next_attempt_at) == (0, None)
    assert (record.state, record.attempt, record.to_json()["heldBy"]) == (State.SUCCEEDED, 1, None)
    assert patient.hops(task_id) == ["accepted", "published", "held", "released", "started", "succeeded"]


@pytest.mark.parametrize("what", ["all", "principal:ada"])
def test_a_pause_of_all_and_one_of_a_principal(patient, what):
    _pause(patient, what)
    with running_worker(patient.settings, abrupt=True):
        task_id = patient.submit("echo", PAYLOAD, principal="ada")
        held = patient.wait_for(task_id, State.HELD)
        other = patient.submit("echo", PAYLOAD, principal="bob")
        end = eventually(lambda: {State.HELD, State.SUCCEEDED} & {patient.state(other)}, 20, "it is held, or runs")
        _resume(patient, what)
        record = patient.finished(task_id)

    assert held.held_by == what
    assert end == {State.HELD if what == "all" else State.SUCCEEDED}
    assert record.state is State.SUCCEEDED


def test_a_pause_that_ends_by_itself_lets_its_tasks_go_on(patient):
    _pause(patient)
    with running_worker(patient.settings, abrupt=True):
        task_id = patient.submit("echo", PAYLOAD)
        patient.wait_for(task_id, State.HELD)
        _pause(patient, seconds=2)
        record = patient.finished(task_id)

    assert record.state is State.SUCCEEDED
    assert Pauses(patient.stores.redis).all() == []


def test_what_leaves_the_hold_queue_by_itself_is_held_again_and_uses_up_no_attempt(bench):
    _pause(bench)
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {**PAYLOAD, "failTimes": 1})
        eventually(lambda: bench.hops(task_id).count("held") >= 2, 30, "it is held again")
        held = bench.store.get(task_id)
        _resume(bench)
        record = bench.finished(task_id)

    assert (held.state, held.attempt) == (State.HELD, 0)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert bench.hops(task_id).count("started") == 2


def test_an_attempt_that_comes_back_from_its_rung_is_held_and_stays_the_same_attempt(patient):
    with running_worker(patient.settings, abrupt=True):
        task_id = patient.submit("echo", {**PAYLOAD, "failTimes": 1})
        patient.wait_for(task_id, State.RETRY_WAIT)
        _pause(patient)
        patient.wait_for(task_id, State.HELD)
        _resume(patient)
        record = patient.finished(task_id)

    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert patient.hops(task_id)[-5:] == ["delayed", "held", "released", "started", "succeeded"]


@pytest.mark.parametrize("point", ["hold.decided", "hold.published", "hold.handed-over"])
def test_a_worker_dies_holding_a_task_and_it_runs_once(patient, monkeypatch, tmp_path, point):
    marker = tmp_path / "died-here"
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={marker}")
    _pause(patient)
    with running_worker(patient.settings, abrupt=True), running_worker(patient.settings, abrupt=True):
        task_id = patient.submit("echo", PAYLOAD)
        eventually(marker.exists, 20, "a worker died there")
        patient.wait_for(task_id, State.HELD)
        patient.drained(names.WORK_QUEUE)
        _resume(patient)
        record = patient.finished(task_id, 40)
        patient.drained()
    hops = patient.hops(task_id)

    assert record.state is State.SUCCEEDED
    assert (hops.count("held"), hops.count("started"), hops.count("succeeded")) == (1, 1, 1)


def test_redis_loses_everything_and_what_was_held_runs_when_it_leaves_the_hold_queue(bench):
    _pause(bench)
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", PAYLOAD)
        bench.wait_for(task_id, State.HELD)
        client = bench.stores.redis
        for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
            client.run(("DEL", key))
        eventually(lambda: bench.store.get(task_id) is not None, 30, "it has a record again")
        record = bench.finished(task_id)

    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)


def test_a_broker_that_lost_what_was_held_gets_it_back(patient):
    _pause(patient)
    with running_worker(patient.settings, abrupt=True) as worker:
        task_id = patient.submit("echo", PAYLOAD)
        patient.wait_for(task_id, State.HELD)
        _held(patient, 1)
        worker.kill()
    patient.purge(names.HOLD_QUEUE)
    _resume(patient)
    with running_worker(patient.settings, abrupt=True):
        record = patient.finished(task_id)

    assert record.state is State.SUCCEEDED


#: Enough for several batches of the resumer, while workers die.
MANY = 1_000


def test_many_tasks_are_held_and_resumed_with_workers_killed_in_between_and_each_runs_once(patient):
    ids = [patient.submit("echo", PAYLOAD) for _ in range(MANY)]
    _pause(patient)
    with running_worker(patient.settings, abrupt=True) as first:
        eventually(lambda: patient.depth(names.HOLD_QUEUE) > MANY // 3, 60, "a third is held")
        first.kill()
    with running_worker(patient.settings, abrupt=True) as second:
        eventually(
            lambda: patient.depth(names.WORK_QUEUE) == 0 and _states(patient, ids) == {State.HELD: MANY},
            120,
            lambda: f"all are held: {_states(patient, ids)}",
        )
        _resume(patient)
        eventually(lambda: _states(patient, ids)[State.SUCCEEDED] > MANY // 10, 60, "some have run")
        second.kill()
    with running_worker(patient.settings, abrupt=True):
        eventually(
            lambda: _states(patient, ids) == {State.SUCCEEDED: MANY}, 120, lambda: f"all ran: {_states(patient, ids)}"
        )
        patient.drained()
        eventually(lambda: not HeldTasks(patient.stores.redis).holders(), 20, "nothing is listed any more")

    assert patient.depth(names.DEAD_QUEUE) == 0
    assert [task_id for task_id in ids if patient.hops(task_id).count("succeeded") != 1] == []


def _states(bench, ids):
    return collections.Counter(record.state for record in bench.store.get_many(ids))
