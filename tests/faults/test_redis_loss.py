"""P1, P2, P4: Redis loses everything in mid-flight, by a command or by a death without its file."""

import contextlib

import pytest

from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.dead_letters import ALL_RECORDED
from support import redises
from support.gateway_live import gateway
from support.stores import Stores
from support.waiting import eventually
from support.worker import open_bench, running_worker

PAYLOAD = {"message": "x"}


def _flush(server):
    with server.client() as client:
        client.flushall()


LOSSES = {"flushed": _flush, "killed without its file": redises.Server.lose_data}


def _known(settings):
    stores = Stores(settings)
    with contextlib.closing(stores):
        return stores.dead_letters.recorded_marker() == ALL_RECORDED


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_every_task_goes_on_and_new_ones_are_accepted(own, server, lose):
    with open_bench(own) as bench, gateway(own) as client, running_worker(own, abrupt=True) as worker:
        dead = bench.submit("echo", {"message": "x", "permanent": True})
        bench.finished(dead)
        bench.drained(names.RECORDER_QUEUE)
        waiting = bench.submit("echo", {"message": "x", "failTimes": 2})
        bench.wait_for(waiting, State.RETRY_WAIT)
        # Every child has one: so none of them ends, and is dropped, in the moment before the loss.
        running = [bench.submit("echo", {"message": "x", "sleepSeconds": 6}) for _ in range(8)]
        queued = [bench.submit("echo", PAYLOAD, principal="ada") for _ in range(50)]
        bench.wait_for(running[0], State.RUNNING)
        ids = [waiting, *running, *queued]
        living = bench.store.get_many(ids)
        lose(server)
        new = eventually(lambda: _accepted(client), 30, "a new task is accepted")
        for task_id in [*ids, new]:
            eventually(lambda task_id=task_id: bench.state(task_id) is State.SUCCEEDED, 60, f"{task_id} goes on")
        bench.drained(names.LEASE_QUEUE, names.WORK_QUEUE, *(names.rung_queue(r.name) for r in own.ladder.rungs))
        eventually(lambda: _known(own), 20, "the dead letters are recorded again")
        listed = client.get("/v1/dead-letters").json["items"]
        again = client.post(f"/v1/dead-letters/{dead}/redrive")
        record = eventually(lambda: (r := bench.store.get(dead)).cycle == 1 and r.state.terminal and r, 30, "its next")

        assert worker.process.poll() is None
    assert not any(each.state.terminal for each in living)
    assert [(dead_letter["taskId"], dead_letter["deadReason"], dead_letter["attempt"]) for dead_letter in listed] == [
        (dead, "permanent", 1)
    ]
    assert listed[0]["error"]["retryable"] is False
    assert (again.status_code, record.state) == (202, State.DEAD_LETTERED)
    assert "dead letters without a record recorded again" in worker.text() or "Redis has started again" in worker.text()


def test_a_janitor_that_dies_over_its_walk_leaves_it_to_the_next(own, server):
    with open_bench(own) as bench:
        with running_worker(own):
            dead = bench.submit("echo", {"message": "x", "permanent": True})
            bench.finished(dead)
            bench.drained(names.RECORDER_QUEUE)
        _flush(server)
        with contextlib.closing(Stores(own)) as stores:
            stores.dead_letters.set_recorded_marker("a walk that is not over")
        with running_worker(own, abrupt=True):
            eventually(lambda: _known(own), 20, "the dead letters are recorded again")
            listed = bench.stores.dead_letters.list().items

    assert [record.task_id for record in listed] == [dead]


def _accepted(client):
    answer = client.post("/v1/tasks", json={"type": "echo", "payload": PAYLOAD})
    return answer.status_code == 202 and answer.json["taskId"]
