"""P3: extra copies, late copies and zombies change nothing."""

import os
import signal

import topology
from dispatch.records import State
from support.waiting import eventually
from support.worker import running_worker


def test_a_copy_that_comes_while_the_first_runs_waits_and_is_then_done(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "x", "sleepSeconds": 2})
        desk.wait_for(task_id, State.RUNNING)
        desk.send_again(desk.message(task_id))
        eventually(lambda: desk.depth(topology.LEASE_QUEUE) == 1, 10, "the copy is parked")
        record = desk.finished(task_id)
        desk.drained()

    assert record.state is State.SUCCEEDED
    assert record.attempt == 1
    assert desk.hops(task_id).count("started") == 1
    assert desk.depth(topology.DEAD_QUEUE) == 0


def test_copies_that_come_after_the_end_are_acked_and_run_nothing(desk):
    with running_worker(desk.settings):
        good = desk.submit("echo", {"message": "x"})
        bad = desk.submit("echo", {"message": "x", "permanent": True})
        messages = [desk.message(desk.finished(task_id).task_id) for task_id in (good, bad)]
        for message in messages * 3:
            desk.send_again(message)
        desk.drained()

    assert [desk.hops(task_id).count("started") for task_id in (good, bad)] == [1, 1]
    assert [desk.state(task_id) for task_id in (good, bad)] == [State.SUCCEEDED, State.DEAD_LETTERED]
    assert desk.depth(topology.DEAD_QUEUE) == 1


def test_a_copy_of_an_attempt_that_has_failed_runs_nothing_and_cuts_no_rung_short(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "x", "failTimes": 2})
        desk.wait_for(task_id, State.RETRY_WAIT)
        desk.send_again(desk.message(task_id))
        record = desk.finished(task_id)
        desk.drained()

    assert (record.state, record.attempt) == (State.SUCCEEDED, 3)
    assert desk.hops(task_id).count("started") == 3


def test_a_zombie_worker_is_refused_when_it_wakes_up(desk):
    with running_worker(desk.settings) as first:
        task_id = desk.submit("echo", {"message": "x", "sleepSeconds": 1})
        desk.wait_for(task_id, State.RUNNING)
        asleep = [first.process.pid, *first.children()]
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        with running_worker(desk.settings):
            # The broker still takes the sleeper for alive and gives it every second copy; the others run elsewhere.
            for _ in range(4):
                desk.send_again(desk.message(task_id))
            record = desk.finished(task_id, 30)
            for pid in asleep:
                os.kill(pid, signal.SIGCONT)
            desk.drained(timeout=30)
            eventually(lambda: desk.hops(task_id).count("succeeded") == 1, 5, "one success")

    assert record.state is State.SUCCEEDED
    assert desk.hops(task_id).count("started") == 2
    assert desk.hops(task_id).count("succeeded") == 1
    assert desk.store.get(task_id).worker != ""
