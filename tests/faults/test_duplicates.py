"""P3: extra copies, late copies and zombies change nothing."""

import os
import signal

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import running_worker


def test_extra_copies_wait_while_the_task_runs_and_run_nothing_after_it(desk):
    with running_worker(desk.settings):
        slow = desk.submit("echo", {"message": "x", "sleepSeconds": 2})
        retried = desk.submit("echo", {"message": "x", "failTimes": 2})
        desk.wait_for(slow, State.RUNNING)
        desk.send_again(desk.message(slow))
        eventually(lambda: desk.depth(names.LEASE_QUEUE) == 1, 10, "the copy is parked")
        desk.wait_for(retried, State.RETRY_WAIT)
        desk.send_again(desk.message(retried))  # of the attempt that has failed: it cuts no rung short
        good = desk.submit("echo", {"message": "x"})
        bad = desk.submit("echo", {"message": "x", "permanent": True})
        messages = [desk.message(desk.finished(task_id).task_id) for task_id in (good, bad)]
        for message in messages * 3:
            desk.send_again(message)
        records = [desk.finished(task_id) for task_id in (slow, retried, good, bad)]
        desk.drained()

    assert [record.state for record in records] == [State.SUCCEEDED] * 3 + [State.DEAD_LETTERED]
    assert [record.attempt for record in records] == [1, 3, 1, 1]
    assert [desk.hops(record.task_id).count("started") for record in records] == [1, 3, 1, 1]
    assert [letter.task_id for letter in desk.letters()] == [bad]


def test_a_zombie_worker_is_refused_when_it_wakes_up(desk):
    with running_worker(desk.settings, abrupt=True) as first:
        task_id = desk.submit("echo", {"message": "x", "sleepSeconds": 1})
        desk.wait_for(task_id, State.RUNNING)
        asleep = [first.process.pid, *first.children()]
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        with running_worker(desk.settings, abrupt=True):
            eventually(lambda: not _leased(desk, task_id), 10, "the lease has lapsed")
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


def _leased(desk, task_id):
    return desk.stores.claims.leased(task_id)
