"""P1, P3, P5: a wait that is ended before its time, and what crashes meanwhile."""

import pytest

from dispatch import crashpoints
from dispatch.control.refusals import NotWaiting, TaskTerminal
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
