"""The pool drops the descriptors of a dead child, and only those."""

import types

import pytest
from celery.concurrency import asynpool

from dispatch.worker.patches.pool import MendedPool
from dispatch.worker.prefork import Pool, TaskPool


def child(inq, outq, synq):
    return types.SimpleNamespace(inqW_fd=inq, outqR_fd=outq, synqW_fd=synq)


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(asynpool.AsynPool, "destroy_queues", lambda _self, _queues, _proc: "destroyed")
    pool = object.__new__(MendedPool)
    pool._fileno_to_inq, pool._fileno_to_outq, pool._fileno_to_synq = {}, {}, {}
    pool._result_handler = types.SimpleNamespace(begun={})
    return pool


def registered(pool):
    return [sorted(index) for index in (pool._fileno_to_inq, pool._fileno_to_outq, pool._fileno_to_synq)]


def add(pool, proc):
    pool._fileno_to_inq[proc.inqW_fd] = proc
    pool._fileno_to_outq[proc.outqR_fd] = proc
    pool._fileno_to_synq[proc.synqW_fd] = proc


def test_the_descriptors_of_a_dead_child_are_dropped(pool):
    dead, alive = child(10, 11, 12), child(20, 21, 22)
    add(pool, dead)
    add(pool, alive)
    answer = pool.destroy_queues(object(), dead)

    assert answer == "destroyed"
    assert registered(pool) == [[20], [21], [22]]


@pytest.mark.parametrize("indexed", [True, False], ids=["in the index", "that Celery has removed itself"])
def test_half_a_report_of_a_dead_child_is_no_beginning_of_the_next_one_s(pool, indexed):
    dead = child(10, 11, 12)
    if indexed:
        add(pool, dead)
    pool._result_handler.begun = {11: b"half", 21: b"another's"}
    pool.destroy_queues(object(), dead)

    assert pool._result_handler.begun == {21: b"another's"}


def test_a_descriptor_that_a_new_child_has_reused_stays(pool):
    dead, fresh = child(10, 11, 12), child(30, 11, 32)
    add(pool, dead)
    add(pool, fresh)
    pool.destroy_queues(object(), dead)

    assert registered(pool) == [[30], [11], [32]]
    assert pool._fileno_to_outq[11] is fresh


def test_descriptors_that_celery_has_removed_itself_are_no_error(pool):
    pool.destroy_queues(object(), child(1, 2, 3))

    assert registered(pool) == [[], [], []]


def test_celery_still_has_what_the_pool_mends():
    assert TaskPool.Pool is Pool
    assert issubclass(Pool, MendedPool)
    assert {"_fileno_to_inq", "_fileno_to_outq", "_fileno_to_synq"} <= set(asynpool.AsynPool.__init__.__code__.co_names)
