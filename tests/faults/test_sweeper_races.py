"""P1, P2: sweepers race a gateway that was stopped and goes on, clients that repeat their key, and late copies."""

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from dispatch import crashpoints
from dispatch.errors import NotSent
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyInProgress
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import bench, running_worker

PAYLOAD = {"message": "x"}


def _gateway(settings, answer):
    with bench(settings) as desk:
        try:
            answer.send(desk.submit("echo", PAYLOAD, key="k"))
        except NotSent:
            answer.send("refused")


@pytest.fixture
def stopped(desk, monkeypatch, tmp_path):
    """A gateway that stops at a point; a function that lets it go on and says what it answered."""
    with contextlib.ExitStack() as stack:

        def start(point):
            marker = tmp_path / "stopped-here"
            monkeypatch.setenv(crashpoints.VARIABLE, f"{point}@STOP={marker}")
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_gateway, args=(desk.settings, theirs))
            process.start()
            stack.callback(process.join, 10)
            stack.callback(process.kill)
            eventually(lambda: marker.exists() and _stops(process.pid), 60, "it stops there")
            monkeypatch.delenv(crashpoints.VARIABLE)

            def go_on():
                os.kill(process.pid, signal.SIGCONT)
                assert ours.poll(30), "no answer"
                return ours.recv()

            return go_on

        yield start


def _stops(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _repeat(desk):
    try:
        return desk.submit("echo", PAYLOAD, key="k")
    except KeyInProgress:
        return None


def _only_record(desk):
    (record,) = desk.store.list().items
    return record


@pytest.mark.parametrize("point", ["submit.recorded", "submit.published"])
def test_a_gateway_that_goes_on_after_its_task_was_rejected_says_so_and_nothing_runs(desk, stopped, point):
    go_on = stopped(point)
    task_id = _only_record(desk).task_id
    with sweeping(desk, 4, unpublished_grace=0.1) as sweep:
        eventually(lambda: sweep(task_id) or desk.state(task_id) is State.REJECTED, 20, "it is rejected")
        repeated = _repeat(desk)  # its key is free again: this is another task
        answer = go_on()
        desk.send_again(desk.message(task_id))
        sweep(task_id)
    with running_worker(desk.settings, abrupt=True):
        record = desk.finished(repeated)
        desk.drained()

    assert answer == "refused"
    assert desk.state(task_id) is State.REJECTED
    assert desk.hops(task_id).count("started") == 0
    assert desk.hops(task_id).count("rejected") == 1
    assert (repeated != task_id, record.state, desk.hops(repeated).count("started")) == (True, State.SUCCEEDED, 1)


def test_a_gateway_that_goes_on_after_its_client_came_back_is_one_task(desk, stopped):
    go_on = stopped("submit.published")
    task_id = _only_record(desk).task_id
    repeated = eventually(lambda: _repeat(desk), 20, "the repeated key goes on with it")
    with sweeping(desk, 4, unpublished_grace=0.1) as sweep:
        sweep(task_id)
        answer = go_on()
        sweep(task_id)
        desk.send_again(desk.message(task_id))
    copies = desk.depth(names.WORK_QUEUE)
    with running_worker(desk.settings, abrupt=True):
        record = desk.finished(task_id)
        desk.drained()

    assert repeated == answer == task_id
    assert copies == 3
    assert (record.state, desk.hops(task_id).count("started")) == (State.SUCCEEDED, 1)


def test_a_gateway_that_goes_on_after_a_worker_was_done_says_accepted(desk, stopped):
    go_on = stopped("submit.published")
    task_id = _only_record(desk).task_id
    patient = desk.settings.model_copy(update={"unpublished_grace": 60.0})  # or its own sweeper might be the first
    with sweeping(desk, 4, unpublished_grace=0.1) as sweep, running_worker(patient, abrupt=True):
        record = desk.finished(task_id)
        sweep(task_id)
        answer = go_on()
        sweep(task_id)
        desk.drained()

    assert answer == task_id
    assert (record.state, desk.state(task_id)) == (State.SUCCEEDED, State.SUCCEEDED)
    assert desk.hops(task_id).count("started") == 1
