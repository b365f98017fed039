"""The rate of a task type: no more runs begin than it allows, first come first served, whatever dies meanwhile; held tasks cost no polling."""

import collections
import threading
import time

import pytest

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.pauses import Pause
from dispatch.protocol.rates import Rate, RateLimit
from dispatch.protocol.record import State
from dispatch.store.pauses import Pauses
from dispatch.store.rates import Rates
from support.limited_client import APP, all_succeed, begins, most_at_once, order, send
from support.waiting import eventually
from support.worker import each_pool, running_worker

PACED, HOURLY = RateLimit("limited.paced", Rate(5, 1)), RateLimit("limited.hourly", Rate(2, 3_600))


def _rates(bench):
    return Rates(bench.stores.redis, lease=bench.settings.lease)


@pytest.fixture
def granted(patient):
    """The places that deliveries have taken in a rate of 5 a second, by Redis's clock (ms), as long as Redis has them: for a second."""
    keys = [patient.stores.redis.keys.begun(name)[0] for name in (PACED.type, "limited.both")]
    found, over = {}, threading.Event()

    def watch():
        while not over.wait(0.05):
            (seconds, micros), *read = patient.stores.redis.run(
                ("TIME",), *(("ZRANGE", key, 0, -1, "WITHSCORES") for key in keys)
            )
            there = {delivery: float(at) for pairs in read for delivery, at in pairs}
            now = int(seconds) * 1_000 + int(micros) / 1_000
            for delivery in [each for each, at in found.items() if at > now - 1_000 and each not in there]:
                del found[delivery]  # given back
            found.update(there)

    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    over.set()
    thread.join()


def _most(granted):
    """How many places were taken in any second at most; one that was moved counts once, where it was last."""
    times = sorted(granted.values())
    return max(sum(at <= other < at + 1_000 for other in times) for at in times)


def _held(bench, ids):
    return collections.Counter(bench.hops(task_id).count("held") for task_id in ids)


@each_pool
def test_no_more_begin_than_the_rate_allows_over_all_workers_and_each_is_held_once(patient, log, granted, pool):
    ids = [send(patient, "limited.paced", log) for _ in range(25)]
    workers = [running_worker(patient.settings, app=APP, abrupt=True, pool=pool) for _ in range(2)]
    with workers[0], workers[1]:
        records = all_succeed(patient, ids)
        patient.drained()
        eventually(lambda: _rates(patient).look(PACED, "test").pause is None, 10, "nothing waits")

    assert _most(granted) <= 5
    assert len(granted) >= 20  # it takes four seconds and more
    assert {record.attempt for record in records} == {1}
    assert set(begins(log).values()) == {1}
    assert max(_held(patient, ids)) <= 2  # by two workers at once, at the beginning
    assert sum(times * tasks for times, tasks in _held(patient, ids).items()) <= 25


def test_the_waiting_come_in_their_order(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        all_succeed(patient, [send(patient, "limited.paced", log) for _ in range(5)])
        ids = []
        for _ in range(20):
            ids.append(send(patient, "limited.paced", log))
            time.sleep(0.002)  # the order is that of their times of acceptance
        all_succeed(patient, ids)

    waited = [task_id for task_id in ids if "held" in patient.hops(task_id)]
    began = [task_id for task_id in order(log) if task_id in waited]
    places = [abs(began.index(task_id) - number) for number, task_id in enumerate(waited)]

    assert len(waited) >= 15
    assert max(places) < 5  # those of one second are sent at once


def test_what_waits_is_shown_and_other_types_go_on_meanwhile(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        done = [send(patient, "limited.hourly", log) for _ in range(2)]
        all_succeed(patient, done)
        third = send(patient, "limited.hourly", log)
        held = patient.wait_for(third, State.HELD)
        plain = patient.finished(patient.submit("echo", {"message": "x"}))
        view = _rates(patient).view(HOURLY)
        cancelled = patient.stores.control(patient.publisher).cancel(third, by="op")
        eventually(lambda: _rates(patient).view(HOURLY).waiting in (0, 1), 5)

    assert (held.held_by, held.attempt) == ("rate:limited.hourly", 0)
    assert plain.state is State.SUCCEEDED
    assert (view.begun, view.waiting, view.first) == (2, 1, (third,))
    assert cancelled.state is State.CANCELLED
    assert set(begins(log)) == set(done)


def test_retries_count_and_steps_after_a_wait_do_not(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        steps = [send(patient, "limited.hourly", log, waits=3)]
        all_succeed(patient, steps)
        begun = _rates(patient).view(HOURLY).begun
        failing = send(patient, "limited.hourly", log, fails=1)
        held = patient.wait_for(failing, State.HELD)

    assert begun == 1
    assert (held.held_by, held.attempt) == ("rate:limited.hourly", 1)
    assert begins(log)[failing] == 1


def test_a_key_is_not_held_by_a_task_that_waits_for_the_rate(patient, log, granted):
    with running_worker(patient.settings, app=APP, abrupt=True), running_worker(patient.settings, app=APP, abrupt=True):
        ids = [send(patient, "limited.both", log, key=f"r{number % 2}") for number in range(20)]
        all_succeed(patient, ids)

    assert _most(granted) <= 5
    assert most_at_once(log) <= 2
    assert set(begins(log).values()) == {1}


def test_nothing_of_a_paused_type_is_called_and_all_run_after_the_pause(patient, log, granted):
    pauses = Pauses(patient.stores.redis)
    with running_worker(patient.settings, app=APP, abrupt=True):
        ids = [send(patient, "limited.paced", log) for _ in range(20)]
        eventually(lambda: _rates(patient).view(PACED).waiting > 5, 10, "some wait")
        pauses.put(Pause("type:limited.paced", "test", "op", 0))
        eventually(lambda: _still(log), 30, "nothing begins any more")
        before = len(order(log))
        pauses.remove("type:limited.paced")
        all_succeed(patient, ids)

    assert before < len(ids)
    assert _most(granted) <= 5
    assert set(begins(log).values()) == {1}


def _still(log):
    before = len(order(log))
    time.sleep(2.5)
    return len(order(log)) == before


POINTS = [
    "rate.called",
    "rate.sent",
    "key.taken",
    "key.held",
    "claim.answered",
    "hold.decided",
    "hold.published",
    "hold.handed-over",
    "send-now.recorded",
    "send-now.published",
    "send-now.handed-over",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_dies_at_a_step_of_a_rate_and_each_task_runs_once_without_the_hold_queues_help(
    patient, log, granted, monkeypatch, tmp_path, point
):
    marker = tmp_path / "died-here"
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={marker}")
    workers = [running_worker(patient.settings, app=APP, abrupt=True) for _ in range(2)]
    with workers[0], workers[1]:
        ids = [send(patient, "limited.paced", log, seconds=0.05) for _ in range(15)]
        records = all_succeed(patient, ids)
        patient.drained()
        eventually(lambda: _rates(patient).look(PACED, "test").pause is None, 30, "nothing waits")

    assert marker.exists()
    assert _most(granted) <= 5
    assert {record.attempt for record in records} <= {1, 2}
    assert sum(begins(log).values()) <= len(ids) + 5  # what ran on the worker that died ran again


def test_redis_loses_everything_and_at_most_one_more_burst_begins(bench, log):
    with running_worker(bench.settings, app=APP, abrupt=True):
        ids = [send(bench, "limited.hourly", log) for _ in range(8)]
        eventually(lambda: len(order(log)) == 2 and _rates(bench).view(HOURLY).waiting == 6, 20, "two have begun")
        client = bench.stores.redis
        for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
            client.run(("DEL", key))
        eventually(lambda: len(order(log)) == 4, 60, "two more begin, when they leave the hold queue")
        eventually(lambda: _rates(bench).view(HOURLY).waiting == 4, 60, "the others wait")
        bench.drained(names.LEASE_QUEUE, names.WORK_QUEUE)

    assert len(order(log)) == 4
    assert len(ids) == 8
