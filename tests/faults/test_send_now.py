"""P1, P3, P5: a wait that is ended before its time, and what crashes meanwhile."""

import pytest

from dispatch import crashpoints
from dispatch.broker.publisher import Publisher
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.control.send_many import SendMany
from dispatch.errors import NotSent
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.protocol.retry import parse_ladder
from support.processes import Forked
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import open_bench, running_worker

STATES = {State.RETRY_WAIT, State.DELAYED}
FAILS = {"message": "x", "failTimes": 1}
POINTS = ["send-now.recorded", "send-now.published", "send-now.handed-over"]


@pytest.fixture
def settings(settings):
    """With rungs long enough for a test to act while a task waits on one."""
    return settings.model_copy(update={"ladder": parse_ladder("1m=12,5m=13,30m=14")})


@pytest.fixture
def patient(settings):
    """A bench whose rungs outlast every test."""
    with open_bench(settings.model_copy(update={"ladder": parse_ladder("1m=600,5m=601,30m=602")})) as made:
        yield made


def _send(bench, task_id):
    return bench.stores.send_now(bench.publisher).send(task_id, STATES, "sent-now", by="op")


def _send_in_a_process(settings, task_id):
    with open_bench(settings) as bench:
        _send(bench, task_id)


def _on_a_rung(bench, payload=FAILS):
    """A task that waits on its first rung, with no worker left."""
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", payload)
        bench.wait_for(task_id, State.RETRY_WAIT)
        eventually(lambda: bench.store.get(task_id).decided_seq is None, 10, "its hand-over is recorded")
    return task_id


def _rungs(bench):
    return [names.rung_queue(rung.name) for rung in bench.settings.ladder.rungs]


def test_a_wait_on_a_rung_is_ended_and_the_waiting_copy_comes_back_stale(bench):
    task_id = _on_a_rung(bench)
    sent = _send(bench, task_id)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)
        bench.drained(*_rungs(bench))
        bench.drained()

    assert (sent.state, sent.queue, sent.next_attempt_at) == (State.QUEUED, names.WORK_QUEUE, None)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert bench.hops(task_id) == [
        "accepted", "published", "started", "failed", "delayed", "sent-now", "started", "succeeded",
    ]  # fmt: skip


def test_a_delayed_task_runs_now_and_its_copy_in_the_levels_is_done(bench):
    task_id = bench.submit("echo", {"message": "x"}, delay=10)
    wakes_at = bench.store.get(task_id).wakes_at
    _send(bench, task_id)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)
        bench.drained(*[names.delay_queue(level) for level in reversed(range(bench.settings.delay_levels))])
        bench.drained()

    assert record.state is State.SUCCEEDED
    assert record.finished_at < wakes_at
    assert bench.hops(task_id).count("started") == 1


def test_the_attempts_of_the_ladder_are_as_many_as_ever(patient):
    task_id = _on_a_rung(patient, {"message": "x", "failTimes": 9})
    with running_worker(patient.settings, abrupt=True):
        for attempt in (2, 3, 4):
            _send(patient, task_id)
            eventually(lambda attempt=attempt: _failed(patient, task_id, attempt), 20, f"attempt {attempt} has failed")
        record = patient.finished(task_id)

    assert (record.state, record.attempt, record.dead_reason) == (State.DEAD_LETTERED, 4, "retries-exhausted")


def _failed(bench, task_id, attempt):
    record = bench.store.get(task_id)
    return record.attempt == attempt and (record.state.terminal or (record.rung and record.decided_seq is None))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("mended_by", ["the sweeper", "a repeat", "the waiting copy"])
def test_a_gateway_dies_and_the_next_attempt_runs_once(bench, monkeypatch, tmp_path, point, mended_by):
    task_id = _on_a_rung(bench)
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
        ended = Forked(_send_in_a_process, bench.settings, task_id).wait(60)
    handed_over = point == "send-now.handed-over"
    if mended_by == "the sweeper":
        with sweeping(bench, 2, lease=0.1, unpublished_grace=0.1) as sweep:
            eventually(lambda: sweep(task_id) or bench.store.get(task_id).decided_seq is None, 10, "it is swept")
    elif mended_by == "a repeat" and not handed_over:
        _send(bench, task_id)
    else:  # the waiting copy comes into the work queue
        bench.drained(*_rungs(bench))
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)
        bench.drained(*_rungs(bench))
        bench.drained()

    assert ended == -9
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert (bench.hops(task_id).count("started"), bench.hops(task_id).count("sent-now")) == (2, 1)


@pytest.mark.parametrize("point", ["route.decided", "route.published"])
def test_a_worker_died_between_its_decision_and_the_hand_over_and_the_wait_is_ended(
    bench, monkeypatch, tmp_path, point
):
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
        with running_worker(bench.settings, abrupt=True) as worker:
            task_id = bench.submit("echo", FAILS)
            eventually(lambda: worker.process.poll() is not None, 30, "it dies there")
    undecided = bench.store.get(task_id)
    sent = _send(bench, task_id)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)
        bench.drained(*_rungs(bench))
        bench.drained()

    assert (undecided.state, undecided.decided_seq) == (State.RETRY_WAIT, undecided.seq)
    assert (sent.state, sent.seq) == (State.QUEUED, undecided.seq + 2)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert bench.hops(task_id).count("started") == 2


def test_what_does_not_wait_is_not_sent(bench):
    queued = bench.submit("echo", {"message": "x"})
    with pytest.raises(NotWaiting):
        _send(bench, queued)
    with running_worker(bench.settings, abrupt=True):
        bench.finished(queued)
    with pytest.raises(TaskTerminal):
        _send(bench, queued)

    assert bench.depth(names.WORK_QUEUE) == 0


def _send_many(bench, task_ids, publisher=None):
    stores = bench.stores
    sender = SendMany(stores.tasks, stores.handovers, publisher or bench.publisher, bench.settings.sealing)
    return sender.send(task_ids, STATES, "sent-now", by="op")


def _send_many_in_a_process(settings, task_ids):
    with open_bench(settings) as bench:
        _send_many(bench, task_ids)


def test_many_are_sent_at_once_and_each_that_cannot_be_has_its_reason(bench):
    waiting = [bench.submit("echo", {"message": "x"}, delay=14) for _ in range(5)]
    queued, cancelled = bench.submit("echo", {"message": "x"}), bench.submit("echo", {"message": "x"}, delay=14)
    bench.stores.control(bench.publisher).cancel(cancelled, by="op")
    outcomes = _send_many(bench, [*waiting, queued, cancelled, "unknown"])
    again = _send_many(bench, waiting)
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id) for task_id in waiting]

    assert [outcomes[task_id] for task_id in waiting] == [None] * 5
    assert [type(outcomes[task_id]) for task_id in (queued, cancelled, "unknown")] == [
        NotWaiting, TaskTerminal, UnknownTask,
    ]  # fmt: skip
    assert {type(each) for each in again.values()} == {NotWaiting}
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}
    assert [bench.hops(task_id).count("sent-now") for task_id in waiting] == [1] * 5


@pytest.mark.parametrize("point", POINTS)
def test_a_process_dies_that_sends_many_and_each_runs_once(bench, monkeypatch, tmp_path, point):
    waiting = [bench.submit("echo", {"message": "x"}, delay=12) for _ in range(5)]
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
        ended = Forked(_send_many_in_a_process, bench.settings, waiting).wait(60)
    with sweeping(bench, lease=0.0, unpublished_grace=0.0) as sweep, running_worker(bench.settings, abrupt=True):
        for task_id in waiting:
            sweep(task_id)
        records = [bench.finished(task_id) for task_id in waiting]
        bench.drained(*[names.delay_queue(level) for level in reversed(range(bench.settings.delay_levels))])
        bench.drained()

    assert ended == -9
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert [bench.hops(task_id).count("started") for task_id in waiting] == [1] * 5


def test_a_broker_that_takes_nothing_leaves_many_decided_and_a_repeat_sends_them(bench):
    waiting = [bench.submit("echo", {"message": "x"}, delay=14) for _ in range(3)]
    away = Publisher("amqp://127.0.0.1:1//", timeout=0.5, connect_timeout=0.2)
    outcomes = _send_many(bench, waiting, away)
    away.close()
    again = _send_many(bench, waiting)

    assert {type(each) for each in outcomes.values()} == {NotSent}
    assert set(again.values()) == {None}
    assert bench.depth(names.WORK_QUEUE) == 3
