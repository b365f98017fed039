"""The retrying executor: a job that raises is tried again with rising pauses; order; stop."""

import threading

import pytest

from dispatch.errors import NotSent
from dispatch.worker import executor as module
from dispatch.worker.executor import FIRST_PAUSE, LONGEST_PAUSE, RetryingExecutor
from support.unit_fakes import Failing, Log, ManualClock
from support.waiting import eventually


@pytest.fixture(autouse=True)
def log(monkeypatch):
    log = Log()
    monkeypatch.setattr(module, "log", log)
    return log


@pytest.fixture
def executor():
    executor = RetryingExecutor(1)
    yield executor
    executor.stop()


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def run_once(executor, clock):
    """Run the earliest job on this thread as the executor does; the seconds that it had to wait."""
    due = executor._heap[0][0]
    waited, clock.now = max(0.0, due - clock.now), max(due, clock.now)
    took = executor._next

    def first_only():
        executor._next = lambda: None
        return took()

    executor._next = first_only
    executor._work()
    executor._next = took
    return waited


def test_jobs_run_in_the_order_of_their_submission(executor):
    ran = []
    for number in range(20):
        executor.submit(lambda number=number: ran.append(number))
    executor.start()
    eventually(lambda: len(ran) == 20)

    assert ran == list(range(20))


def test_a_job_that_raises_is_tried_again(executor):
    job = Failing(NotSent())
    executor.start()
    executor.submit(job, pause=0.001)
    eventually(lambda: len(job.calls) == 2)

    assert executor._heap == []


def test_the_pauses_rise_up_to_the_longest(executor, clock):
    job = Failing(*[NotSent()] * 7)
    executor.submit(job)
    waits = [run_once(executor, clock) for _ in range(8)]

    assert waits == pytest.approx([0, FIRST_PAUSE, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE, LONGEST_PAUSE])
    assert executor._heap == []


def test_an_error_that_is_not_foreseen_is_tried_again_too(executor, clock, log):
    job = Failing(ValueError("a mistake"), KeyError("another"))
    executor.submit(job)
    waits = [run_once(executor, clock) for _ in range(3)]

    assert waits == pytest.approx([0, LONGEST_PAUSE, LONGEST_PAUSE])
    assert len(job.calls) == 3
    assert [level for level, _, _ in log.lines] == ["exception", "exception"]


def test_a_job_that_waits_does_not_hold_up_the_others(executor):
    done = threading.Event()
    executor.start()
    executor.submit(lambda: None, after=60)
    executor.submit(done.set)

    assert done.wait(5)


def test_a_stopped_executor_ends_its_threads_and_runs_no_more_jobs(executor):
    before = set(threading.enumerate())
    executor.start()
    threads = set(threading.enumerate()) - before
    executor.stop()
    ran = []
    executor.submit(lambda: ran.append(1))
    eventually(lambda: not any(thread.is_alive() for thread in threads))

    assert ran == []
