"""P1, P2: sweepers race a gateway that was stopped and goes on, clients that repeat their key, and late copies."""

import contextlib
import os
import signal

import pytest

from dispatch import crashpoints
from dispatch.errors import NotSent
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyInProgress
from support.processes import CONTEXT, Forked, is_stopped
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import open_bench, running_worker

PAYLOAD = {"message": "x"}


def _gateway(settings, answer):
    with open_bench(settings) as bench:
        try:
            answer.send(bench.submit("echo", PAYLOAD, key="k"))
        except NotSent:
            answer.send("refused")


@pytest.fixture
def stopped(bench, monkeypatch, tmp_path):
    """A gateway that stops at a point; a function that lets it go on and returns its answer."""
    with contextlib.ExitStack() as stack:

        def start(point):
            marker = tmp_path / "stopped-here"
            monkeypatch.setenv(crashpoints.VARIABLE, f"{point}@STOP={marker}")
            ours, theirs = CONTEXT.Pipe()
            process = Forked(_gateway, bench.settings, theirs)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            eventually(lambda: marker.exists() and is_stopped(process.pid), 60, "it stops there")
            monkeypatch.delenv(crashpoints.VARIABLE)

            def go_on():
                os.kill(process.pid, signal.SIGCONT)
                assert ours.poll(30), "no answer"
                return ours.recv()

            return go_on

        yield start


def _repeat(bench):
    try:
        return bench.submit("echo", PAYLOAD, key="k")
    except KeyInProgress:
        return None


def _only_record(bench):
    (record,) = bench.store.list().items
    return record


@pytest.mark.parametrize("point", ["submit.recorded", "submit.published"])
def test_a_gateway_that_goes_on_after_its_task_was_rejected_refuses_and_nothing_runs(bench, stopped, point):
    go_on = stopped(point)
    task_id = _only_record(bench).task_id
    message = bench.message(task_id)
    with sweeping(bench, 4, unpublished_grace=0.1) as sweep:
        eventually(lambda: sweep(task_id) or bench.state(task_id) is State.REJECTED, 20, "it is rejected")
        repeated = _repeat(bench)  # its key is free again: this is another task
        answer = go_on()
        bench.send_again(message)
        sweep(task_id)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(repeated)
        bench.drained()

    assert answer == "refused"
    assert bench.state(task_id) is State.REJECTED
    assert bench.hops(task_id).count("started") == 0
    assert bench.hops(task_id).count("rejected") == 1
    assert (repeated != task_id, record.state, bench.hops(repeated).count("started")) == (True, State.SUCCEEDED, 1)


def test_a_gateway_that_goes_on_after_its_client_came_back_is_one_task(bench, stopped):
    go_on = stopped("submit.published")
    task_id = _only_record(bench).task_id
    repeated = eventually(lambda: _repeat(bench), 20, "the repeated key goes on with it")
    with sweeping(bench, 4, unpublished_grace=0.1) as sweep:
        sweep(task_id)
        answer = go_on()
        sweep(task_id)
        bench.send_again(bench.message(task_id))
    copies = bench.depth(names.WORK_QUEUE)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)
        bench.drained()

    assert repeated == answer == task_id
    assert copies == 3
    assert (record.state, bench.hops(task_id).count("started")) == (State.SUCCEEDED, 1)


def test_a_gateway_that_goes_on_after_a_worker_was_done_answers_accepted(bench, stopped):
    go_on = stopped("submit.published")
    task_id = _only_record(bench).task_id
    patient = bench.settings.model_copy(update={"unpublished_grace": 60.0})  # or its own sweeper might be the first
    with sweeping(bench, 4, unpublished_grace=0.1) as sweep, running_worker(patient, abrupt=True):
        record = bench.finished(task_id)
        sweep(task_id)
        answer = go_on()
        sweep(task_id)
        bench.drained()

    assert answer == task_id
    assert (record.state, bench.state(task_id)) == (State.SUCCEEDED, State.SUCCEEDED)
    assert bench.hops(task_id).count("started") == 1
