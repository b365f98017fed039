"""P3: extra copies, late copies and zombies change nothing."""

import os
import signal

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import each_pool, running_worker


def test_extra_copies_wait_while_the_task_runs_and_run_nothing_after_it(bench):
    with running_worker(bench.settings):
        slow = bench.submit("echo", {"message": "x", "sleepSeconds": 2})
        retried = bench.submit("echo", {"message": "x", "failTimes": 2})
        bench.wait_for(slow, State.RUNNING)
        bench.send_again(bench.message(slow))
        eventually(lambda: bench.depth(names.LEASE_QUEUE) == 1, 10, "the copy is parked")
        bench.wait_for(retried, State.RETRY_WAIT)
        bench.send_again(bench.message(retried))  # of the attempt that has failed: it cuts no rung short
        good = bench.submit("echo", {"message": "x"})
        bad = bench.submit("echo", {"message": "x", "permanent": True})
        messages = [bench.message(bench.finished(task_id).task_id) for task_id in (good, bad)]
        for message in messages * 3:
            bench.send_again(message)
        records = [bench.finished(task_id) for task_id in (slow, retried, good, bad)]
        bench.drained()

    assert [record.state for record in records] == [State.SUCCEEDED] * 3 + [State.DEAD_LETTERED]
    assert [record.attempt for record in records] == [1, 3, 1, 1]
    assert [bench.hops(record.task_id).count("started") for record in records] == [1, 3, 1, 1]
    assert [dead_letter.task_id for dead_letter in bench.dead_letters()] == [bad]


@each_pool
def test_a_zombie_worker_is_refused_when_it_wakes_up(bench, pool):
    with running_worker(bench.settings, abrupt=True, pool=pool) as first:
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 1})
        bench.wait_for(task_id, State.RUNNING)
        asleep = [first.process.pid, *first.children()]
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        with running_worker(bench.settings, abrupt=True, pool=pool):
            eventually(lambda: not _leased(bench, task_id), 10, "the lease has lapsed")
            # The broker still takes the sleeper for alive and gives it every second copy; the others run elsewhere.
            for _ in range(4):
                bench.send_again(bench.message(task_id))
            record = bench.finished(task_id, 30)
            for pid in asleep:
                os.kill(pid, signal.SIGCONT)
            bench.drained(timeout=30)
            eventually(lambda: bench.hops(task_id).count("succeeded") == 1, 5, "one success")

    assert record.state is State.SUCCEEDED
    assert bench.hops(task_id).count("started") == 2
    assert bench.hops(task_id).count("succeeded") == 1


def _leased(bench, task_id):
    return bench.stores.claims.leased(task_id)
