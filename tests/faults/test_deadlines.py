"""P1, P4: a task whose deadline passes ends FAIL for that reason, exactly once, whatever dies meanwhile."""

import pytest

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.message import DEADLINE_AT
from dispatch.protocol.record import State
from support.clock import Clock
from support.waiting import eventually
from support.worker import each_pool, running_worker

HOURS = 3_600.0


def _passed(bench, task_id):
    """Wait until a task's deadline has passed, by Redis's clock."""
    deadline = bench.store.get(task_id).deadline_at
    client = bench.stores.redis

    def now():
        seconds, micros = client.run(("TIME",))[0]
        return int(seconds) * 1_000 + int(micros) // 1_000

    eventually(lambda: now() > deadline, 20, "the deadline has passed")


class _Overdue:
    """Publishes copies whose deadline passed long ago."""

    def __init__(self, publisher):
        self._publisher = publisher

    def publish(self, message, exchange, routing_key):
        return self._publisher.publish(message.with_headers(**{DEADLINE_AT: 1}), exchange, routing_key)


def _overdue(bench, **options):
    task_id = bench.submit("echo", {"message": "x"}, deadline=1, **options)
    _passed(bench, task_id)
    return task_id


def _why(record):
    return record.state, record.dead_reason, record.error and record.error.type


DEAD = (State.DEAD_LETTERED, "deadline-exceeded", "deadline-exceeded")


@each_pool
def test_what_arrives_after_its_deadline_is_not_run_and_a_redrive_begins_a_new_one(bench, pool):
    task_id = _overdue(bench)
    with running_worker(bench.settings, pool=pool):
        dead = bench.finished(task_id)
        hops = bench.hops(task_id)
        (letter,) = bench.settled_dead_letters(1)
        bench.stores.service(bench.publisher).redrive(task_id, by="ada")
        redriven = eventually(lambda: bench.store.get(task_id).cycle == 1 and bench.finished(task_id), 20, "it ended")

    assert _why(dead) == DEAD
    assert (dead.attempt, dead.started_at, dead.error.retryable) == (0, None, True)
    assert hops == ["accepted", "published", "failed", "dead-lettered"]
    assert letter.headers["x-dead-reason"] == "deadline-exceeded"
    assert redriven.state is State.SUCCEEDED
    assert redriven.deadline_at > dead.deadline_at


def test_a_rung_that_outlasts_the_deadline_is_not_climbed(bench):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "failTimes": 9}, deadline=2)  # the rungs wait 1, 2 and 3 s
        record = bench.finished(task_id)

    assert (record.state, record.dead_reason, record.error.type) == (
        State.DEAD_LETTERED, "deadline-exceeded", "echo-failed",
    )  # fmt: skip
    assert record.attempt < record.max_attempts
    assert record.finished_at <= record.deadline_at + 1_000


def test_a_run_that_has_begun_may_finish(bench):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 6}, deadline=4)
        record = bench.finished(task_id)

    assert record.state is State.SUCCEEDED
    assert record.started_at <= record.deadline_at < record.finished_at


def test_the_deadline_of_a_delayed_task_counts_from_its_time(bench):
    task_id = bench.submit("echo", {"message": "x"}, delay=3, deadline=60)
    late = bench.submit("echo", {"message": "x"}, delay=2, deadline=1)
    accepted = bench.store.get(task_id)
    _passed(bench, late)
    with running_worker(bench.settings, abrupt=True):
        record, dead = bench.finished(task_id), bench.finished(late)

    assert accepted.deadline_at == accepted.wakes_at + 60_000
    assert record.state is State.SUCCEEDED
    assert _why(dead) == DEAD


def test_with_redis_wiped_the_message_alone_has_the_deadline(bench):
    task_id = _overdue(bench, principal="ada")
    deadline = bench.store.get(task_id).deadline_at
    client = bench.stores.redis
    for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
        client.run(("DEL", key))
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: bench.store.get(task_id) is not None, 30, "it has a record again")
        record = bench.finished(task_id)

    assert _why(record) == DEAD
    assert (record.deadline_at, record.attempt, record.principal) == (deadline, 0, "ada")


@pytest.mark.parametrize("point", ["run.delivered", "route.decided", "route.published", "route.handed-over"])
def test_a_worker_dies_ending_an_overdue_task_and_one_dead_letter_is_left(bench, monkeypatch, tmp_path, point):
    assert point in crashpoints.POINTS
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
    with running_worker(bench.settings), running_worker(bench.settings):
        late = bench.submitter_of(bench.stores, _Overdue(bench.publisher))
        task_id = bench.submit("echo", {"message": "x"}, deadline=600, submitter=late)
        record = bench.finished(task_id, 40)
        eventually((tmp_path / "died-here").exists, 10, "a process died there")
        bench.drained(names.RECORDER_QUEUE, names.LEASE_QUEUE, names.WORK_QUEUE)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 1, 20, "one dead letter is left")
        hops = bench.hops(task_id)

    assert _why(record) == DEAD
    assert (hops.count("started"), hops.count("failed"), hops.count("lost")) == (0, 1, 0)


def test_a_second_copy_of_what_succeeded_in_time_is_no_dead_letter(bench):
    task_id = bench.submit("echo", {"message": "x"}, deadline=600)
    with running_worker(bench.settings):
        record = bench.finished(task_id)
        bench.send_again(bench.message(task_id, **{DEADLINE_AT: 1}))
        bench.drained()

    assert record.state is State.SUCCEEDED
    assert bench.state(task_id) is State.SUCCEEDED
    assert bench.depth(names.DEAD_QUEUE) == 0


def test_a_workers_clock_that_is_ahead_ends_no_task_whose_deadline_is_to_come(bench, monkeypatch, tmp_path):
    clock = Clock(tmp_path)
    for name, value in clock.environ().items():
        monkeypatch.setenv(name, value)
    clock.jump(6 * HOURS)
    task_id = bench.submit("echo", {"message": "x"}, deadline=600)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)

    assert record.state is State.SUCCEEDED
