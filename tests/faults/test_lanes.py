"""Lanes of work: a flood of one refuses and delays no other, and a lane can be paused."""

import time

import pytest

import topology
from dispatch.broker import provision
from dispatch.protocol import names
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.lanes import parse_lanes
from dispatch.protocol.message import Message
from dispatch.protocol.pauses import Pause
from dispatch.protocol.record import State
from dispatch.store.pauses import Pauses
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

LANES = parse_lanes("bulk=echo")
BULK = LANES.lanes[0].queue

#: A type of the default lane, which only workers of this app know.
APP, OTHER = "support.drills", "drill.short"


@pytest.fixture
def laned(settings):
    """A bench whose broker has the lanes."""
    chosen = settings.model_copy(update={"lanes": LANES})
    provision.apply(topology.broker_map(chosen), chosen)
    with open_bench(chosen) as bench:
        yield bench


def other(bench):
    """Send a task of the default lane."""
    message = Message(
        b'[[{"seconds": 0}], {}, null]',
        {"task": OTHER, "id": new_task_id(), "retries": 0, "x-principal": "local"},
        routing_key=names.routing_key(OTHER),
    )
    bench.publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)
    return message.task_id


def pauses(bench):
    return Pauses(bench.stores.redis)


def pause(bench, lane):
    pauses(bench).put(Pause(f"lane:{lane}", "a test", "me", int(time.time() * 1_000)))


@each_pool
def test_a_task_of_another_lane_starts_before_what_a_flood_has_waiting(laned, pool):
    flood = [laned.submit("echo", {"message": "x", "sleepSeconds": 2}) for _ in range(40)]
    with running_worker(laned.settings, app=APP, abrupt=True, pool=pool):
        eventually(lambda: any(laned.state(each) is State.RUNNING for each in flood), 30, "the flood runs")
        for _ in range(3):
            task_id = other(laned)
            eventually(lambda task_id=task_id: laned.store.get(task_id), 30, "it has a record")
            assert laned.finished(task_id, 30).state is State.SUCCEEDED
        waiting = [each for each in flood if laned.state(each) is State.QUEUED]
        failing = laned.submit("echo", {"message": "y", "failTimes": 1})
        laned.wait_for(failing, State.RETRY_WAIT, 90)
        again = laned.finished(failing, 90)

    assert len(waiting) >= len(flood) // 4
    assert (again.state, again.attempt) == (State.SUCCEEDED, 2)


def test_a_paused_lane_is_not_consumed_by_any_worker_until_it_is_resumed(laned):
    with running_worker(laned.settings, app=APP, abrupt=True):
        assert (laned.consumers(BULK), laned.consumers(names.WORK_QUEUE)) == (1, 1)
        pause(laned, "bulk")
        eventually(lambda: laned.consumers(BULK) == 0, 20, "its consumer is cancelled")
        with running_worker(laned.settings, app=APP, abrupt=True):
            eventually(lambda: laned.consumers(names.WORK_QUEUE) == 2, 20, "both consume the default lane")
            held, task_id = laned.submit("echo", {"message": "x"}), other(laned)
            eventually(lambda: laned.store.get(task_id), 20, "it has a record")
            goes_on = laned.finished(task_id)
            waits = (laned.state(held), laned.depth(BULK), laned.consumers(BULK))
            pauses(laned).remove("lane:bulk")
            record = laned.finished(held, 30)
            eventually(lambda: laned.consumers(BULK) == 2, 20, "both consume it again")

    assert (goes_on.state, waits, record.state) == (State.SUCCEEDED, (State.QUEUED, 1, 0), State.SUCCEEDED)


def test_a_worker_that_has_only_one_queue_keeps_to_it(laned):
    with running_worker(laned.settings, "-Q", names.WORK_QUEUE, app=APP, abrupt=True):
        pause(laned, "bulk")
        pause(laned, "default")
        eventually(lambda: laned.consumers(names.WORK_QUEUE) == 0, 20, "its one consumer is cancelled")
        for lane in ("bulk", "default"):
            pauses(laned).remove(f"lane:{lane}")
        eventually(lambda: laned.consumers(names.WORK_QUEUE) == 1, 20, "and is back")
        consumers = laned.consumers(BULK)

    assert consumers == 0


def test_lanes_are_added_while_tasks_wait_and_run_and_each_runs_once(settings):
    with open_bench(settings) as before:
        waiting = [before.submit("echo", {"message": "x"}) for _ in range(5)]
        chosen = settings.model_copy(update={"lanes": LANES})
        provision.apply(topology.broker_map(chosen), chosen)
        with open_bench(chosen) as bench, running_worker(settings, abrupt=True):  # one that knows no lanes yet
            waiting += [bench.submit("echo", {"message": "x"}) for _ in range(5)]
            with running_worker(chosen, abrupt=True):
                records = [bench.finished(each, 60) for each in waiting]
            bench.drained()

    assert [record.state for record in records] == [State.SUCCEEDED] * 10
    assert {before.runs(each) for each in waiting} == {1}
