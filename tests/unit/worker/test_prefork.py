"""A process and its jobs as the main process sees them: what runs, what has not begun, and what may come."""

import multiprocessing
import os
import pickle
import struct
import types

import pytest

from dispatch.worker.pace import AHEAD
from dispatch.worker.patches.pool import ResultHandler
from dispatch.worker.prefork import MOST, Pool, PoolProcess


class Job:
    """A job that notes its beginning."""

    def __init__(self, name, seconds=0.001):
        self.name, self._accepted = name, False
        self.request = types.SimpleNamespace(seconds=seconds)

    def begin(self):
        self._accepted = True


@pytest.fixture
def child():
    return PoolProcess(types.SimpleNamespace(permits=multiprocessing.get_context("fork").Semaphore(0)))


def give(child, *jobs):
    child.jobs.extend(jobs)
    child.load += sum(job.request.seconds for job in jobs)
    child.given += len(jobs)
    if not jobs[0]._accepted and child.jobs[0] is jobs[0]:
        jobs[0].begin()
    for _ in jobs:
        child.process.permits.release()


def begins_one(child):
    """The process takes a permit."""
    assert child.process.permits.acquire(False)


def test_an_idle_process_takes_whatever_comes_and_a_busy_one_only_what_is_short(child):
    idle = child.room(3_600.0, MOST)
    give(child, Job("a"))

    assert (idle, child.room(3_600.0, MOST), child.room(0.001, MOST)) == (True, False, True)
    assert not child.room(AHEAD, MOST)


def test_a_process_that_ends_after_some_jobs_gets_one_at_a_time(child):
    give(child, Job("a"))

    assert not child.room(0.001, 1)


def test_the_next_job_runs_when_the_one_before_is_reported(child):
    a, b = Job("a"), Job("b")
    give(child, a, b)
    before = (a._accepted, b._accepted)
    child.ended(a)

    assert (before, b._accepted, list(child.jobs)) == ((True, False), True, [b])


def test_only_what_has_not_begun_is_taken_back_and_the_process_gets_nothing_until_it_knows(child):
    a, b, c = Job("a"), Job("b"), Job("c")
    give(child, a, b, c)
    begins_one(child)
    taken = child.take_back()

    assert (taken, list(child.jobs), child.owed) == ([b, c], [a], 2)
    assert not child.process.permits.acquire(False)  # the process finds no permit for them
    child.ended(a)
    assert not child.room(0.001, MOST)
    child.owed = 0
    assert child.room(0.001, MOST)


def test_a_process_runs_what_it_has_a_permit_of_and_has_not_reported(child):
    a, b = Job("a"), Job("b")
    give(child, a, b)
    not_begun = child.runs
    begins_one(child)
    begun = child.runs
    child.ended(a)

    assert (not_begun, begun, child.runs) == (False, True, False)


@pytest.mark.timeout(20)
def test_what_a_dead_process_has_reported_is_read_between_two_connections_when_no_loop_reads_its_pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    handled = []
    pool, handler = object.__new__(Pool), object.__new__(ResultHandler)
    handler.begun, handler.on_state_change = {}, handled.append
    handler._hub = types.SimpleNamespace(readers={})  # as the loss of the connection leaves it
    process = types.SimpleNamespace(pid=7, outqR_fd=reader)
    pool._children, pool._fileno_to_outq = {7: PoolProcess(process)}, {reader: process}
    pool._result_handler, pool._hub = handler, handler._hub
    data = pickle.dumps("done")
    os.write(writer, struct.pack(">i", len(data)) + data)
    try:
        pool.process_flush_queues(process)
    finally:
        os.close(reader)
        os.close(writer)

    assert handled == ["done"]
