"""P1, P3, P4, P5: a task that waits between its steps, and what crashes meanwhile."""

import base64
import dataclasses
import json
import time

import pytest
from kombu import Connection
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.broker import provision
from dispatch.protocol import names
from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.mending import Mend, mended
from dispatch.protocol.message import CHECKPOINT, DEAD_REASON, MAX_ERROR, STEP
from dispatch.protocol.record import State, Status
from dispatch.protocol.waits import MAX_STATE
from support.steps_client import APP, send, waiting
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

#: Text that takes a header most room, once it is JSON: each character becomes two surrogates.
LONGEST = "\U0001f916" * MAX_ERROR


def _levels(bench):
    return [names.delay_queue(level) for level in reversed(range(bench.settings.delay_levels))]


def _begins(bench, task_id):
    return [hop["at"] for hop in bench.store.hops(task_id) if hop["kind"] == "started"]


@each_pool
def test_each_step_runs_once_and_finds_what_the_one_before_left(bench, pool):
    with running_worker(bench.settings, app=APP, abrupt=True, pool=pool):
        task_id = send(bench, steps=2, seconds=2)
        between = waiting(bench, task_id)
        leased = bench.stores.claims.leased(task_id)
        record = bench.finished(task_id)
        bench.drained(*_levels(bench), names.WORK_QUEUE)
        hops = bench.store.hops(task_id)

    assert (between.status, between.attempt, leased) == (Status.RUNNING, 1, False)
    assert between.wakes_at > between.updated_at
    assert (record.state, record.attempt, record.step) == (State.SUCCEEDED, 1, 2)
    assert record.result == {"attempts": [1, 1, 1], "pad": 0}
    kinds = [hop["kind"] for hop in hops if hop["kind"] != "progress"]
    assert kinds == ["started", "waiting", "started", "waiting", "started", "succeeded"]
    waits = [hop for hop in hops if hop["kind"] == "waiting"]
    assert [(hop["seconds"], hop["step"]) for hop in waits] == [(2, 1), (2, 2)]
    assert all(began >= wait["until"] for began, wait in zip(_begins(bench, task_id)[1:], waits, strict=True))


@each_pool
@pytest.mark.parametrize("point", ["route.decided", "route.published", "route.handed-over"])
def test_a_worker_dies_handing_a_step_over_and_no_step_runs_twice(bench, monkeypatch, tmp_path, pool, point):
    died = tmp_path / "died-here"
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={died}")
    workers = [running_worker(bench.settings, app=APP, abrupt=True, pool=pool) for _ in range(2)]
    with workers[0], workers[1]:
        task_id = send(bench)
        record = bench.finished(task_id, 40)
        bench.drained(*_levels(bench), names.LEASE_QUEUE, names.WORK_QUEUE)
        hops = bench.hops(task_id)

    assert died.exists()
    assert (record.state, record.step, record.result["attempts"]) == (State.SUCCEEDED, 1, [1, 1])
    assert (hops.count("started"), hops.count("waiting"), hops.count("succeeded")) == (2, 1, 1)


def test_a_step_that_fails_climbs_the_ladder_and_resumes_and_the_next_has_the_whole_ladder(bench):
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, steps=2, fails=2)
        record = bench.finished(task_id, 60)
        hops = [hop["kind"] for hop in bench.store.hops(task_id) if hop["kind"] != "progress"]

    step = ["started", "failed", "delayed"] * 2 + ["started"]
    assert (record.state, record.result["attempts"]) == (State.SUCCEEDED, [3, 3, 3])
    assert hops == [*step, "waiting", *step, "waiting", *step, "succeeded"]


def test_a_dead_letter_is_redriven_from_its_last_step(bench, tmp_path):
    gate = tmp_path / "gate"
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, gate=str(gate))
        dead = bench.finished(task_id)
        (letter,) = bench.settled_dead_letters(1)
        gate.touch()
        bench.stores.service(bench.publisher).redrive(task_id, by="ada")
        eventually(lambda: bench.store.get(task_id).cycle == 1 and bench.finished(task_id), 20, "its next cycle ended")
        record, waits = bench.store.get(task_id), bench.hops(task_id).count("waiting")

    assert waits == 1
    assert (dead.state, dead.error.type, dead.step) == (State.DEAD_LETTERED, "closed", 1)
    assert (letter.step, letter.text(CHECKPOINT)) == (1, '{"attempts":[1],"pad":""}')
    assert (record.state, record.result["attempts"], record.step) == (State.SUCCEEDED, [1, 1], 1)


def test_a_fresh_redrive_begins_anew_and_a_refused_one_leaves_the_step_that_it_had(bench, tmp_path):
    gate = tmp_path / "gate"
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, gate=str(gate))
        bench.finished(task_id)
        dead = bench.store.whole(task_id)
        (letter,) = bench.settled_dead_letters(1)
        mend, records = Mend(fresh=True), bench.stores.dead_letters
        copy = redriven_copy(letter)
        copy = dataclasses.replace(copy, message=mended(copy.message, mend, bench.settings.sealing))
        records.redrive(letter, copy, by="ada", max_attempts=4, mend=mend)
        begun = bench.store.get(task_id)
        records.undo_redrive(copy)
        undone = bench.store.whole(task_id)
        gate.touch()
        bench.stores.service(bench.publisher).redrive(task_id, by="ada", mend=mend)
        eventually(lambda: bench.store.get(task_id).state is State.SUCCEEDED, 30)
        record, waits = bench.store.get(task_id), bench.hops(task_id).count("waiting")

    assert (begun.state, begun.step) == (State.SCHEDULED, 0)
    assert (undone.state, undone.step, undone.checkpoint, undone.message) == (
        State.DEAD_LETTERED, 1, dead.checkpoint, dead.message
    )  # fmt: skip
    assert (waits, record.step, record.result["attempts"]) == (2, 1, [1, 1])


def test_redis_loses_everything_and_the_next_step_runs_at_its_time_with_its_state(bench):
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, seconds=4)
        before = waiting(bench, task_id)
        client = bench.stores.redis
        for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
            client.run(("DEL", key))
        eventually(lambda: bench.store.get(task_id) is not None, 30, "it has a record again")
        record = bench.finished(task_id)

    assert (record.state, record.step, record.result["attempts"]) == (State.SUCCEEDED, 1, [1, 1])
    assert record.updated_at >= before.wakes_at
    assert record.principal == "local"


def test_a_broker_that_lost_a_waiting_task_gets_it_back_no_sooner_than_its_time_and_with_its_state(bench):
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, seconds=6, fails=1)
        before = waiting(bench, task_id)
        eventually(lambda: any(map(bench.depth, _levels(bench))), 10, "its copy is in a level")
        bench.purge(*_levels(bench))
    with sweeping(bench, 3, queue_ttl=0.1, sweep_margin=0.1, lease=0.5) as sweep:
        eventually(lambda: sweep(task_id) or "resent" in bench.hops(task_id), 30, "it is sent again")
        resent_at = time.time() * 1_000
    with running_worker(bench.settings, app=APP, abrupt=True):
        record = bench.finished(task_id)

    assert resent_at >= before.wakes_at
    assert (record.state, record.step, record.result["attempts"]) == (State.SUCCEEDED, 1, [2, 2])


def test_a_state_that_the_code_cannot_read_is_a_dead_letter_at_once(bench):
    texts = ['{"attempts":"many"}', '{"attempts":[1],"gone":1}', "no JSON"]
    with running_worker(bench.settings, app=APP, abrupt=True):
        tasks = [send(bench, headers={STEP: 1, CHECKPOINT: text}) for text in texts]
        records = [bench.finished(task_id) for task_id in tasks]
        letters = bench.settled_dead_letters(3)

    assert {(record.state, record.error.type, record.attempt) for record in records} == {
        (State.DEAD_LETTERED, "invalid-state", 1)
    }
    assert {letter.headers[DEAD_REASON] for letter in letters} == {"permanent"}
    assert {letter.text(CHECKPOINT) for letter in letters} == set(texts)


@pytest.mark.parametrize("character", ["\\", "a"])
def test_the_largest_state_survives_the_ladder_beside_the_longest_error(bench, character):
    room = MAX_STATE - len('{"attempts":[2,2],"pad":""}')
    pad = character * (room // (2 if character == "\\" else 1))
    with running_worker(bench.settings, app=APP, abrupt=True):
        task_id = send(bench, fails=1, error=LONGEST, pad=pad)
        record = bench.finished(task_id)
        too_large = bench.finished(send(bench, pad="a" * MAX_STATE))

    assert (record.state, record.result["pad"]) == (State.SUCCEEDED, len(pad))
    assert (too_large.state, too_large.error.type) == (State.DEAD_LETTERED, "state-too-large")


@each_pool
def test_what_a_handler_may_not_ask_for_is_a_dead_letter(bench, pool):
    with running_worker(bench.settings, app=APP, abrupt=True, pool=pool):
        records = [
            bench.finished(send(bench, **asked)) for asked in ({"seconds": 16}, {"seconds": -1}, {"until": [""]})
        ]

    assert {(record.state, record.error.type) for record in records} == {(State.DEAD_LETTERED, "invalid-result")}


def test_without_delay_levels_a_wait_is_held_and_other_tasks_go_on(bench):
    with running_worker(bench.settings, app=APP, abrupt=True) as worker:
        with Connection(bench.settings.broker("admin")) as connection:  # the worker has declared what it needs
            for level in range(bench.settings.delay_levels):
                connection.default_channel.exchange_delete(names.delay_exchange(level))
        waits = send(bench, seconds=3)
        eventually(lambda: "hand-over waits" in worker.text(), 20, "its copy is refused")
        others = [bench.finished(bench.submit("echo", {"message": "x", "failTimes": 1})) for _ in range(3)]
        held = bench.state(waits)
        with Connection(bench.settings.broker("admin")) as connection:
            provision.declare(connection, bench.celery.dispatch_map, bench.settings)
        record = bench.finished(waits, 40)

    assert {(other.state, other.attempt) for other in others} == {(State.SUCCEEDED, 2)}
    assert held is State.WAITING
    assert (record.state, record.result["attempts"]) == (State.SUCCEEDED, [1, 1])


def test_a_state_is_encrypted_where_it_lies(settings):
    keys = {"encryption_keys": SecretStr(base64.urlsafe_b64encode(b"k" * 32).decode())}
    signed = {"message_keys": SecretStr(f"a:{'s' * 40}")}
    pad = "Ada-Lovelace-7f3a"
    keyed = settings.model_copy(update={**keys, **signed})
    with open_bench(keyed) as bench, running_worker(keyed, app=APP, abrupt=True):
        task_id = send(bench, seconds=8, pad=pad, until=["go"])
        waiting(bench, task_id)
        eventually(lambda: bench.depth(names.delay_queue(3)) == 1, 10, "its copy is in a level")
        (copy,) = bench.dead_letters(names.delay_queue(3))
        stored = bench.stores.redis.run(("HGET", bench.stores.redis.keys.task(task_id).record, "checkpoint"))[0]
        record = bench.finished(task_id)

    assert stored == copy.text(CHECKPOINT)
    assert json.loads(bench.settings.sealing.unsealed(stored)) == {"attempts": [1], "pad": pad}
    assert stored.startswith("sealed:")
    assert (record.state, record.result["pad"]) == (State.SUCCEEDED, len(pad))
