"""P1, P2, P3, P4: what crashes while a task waits in the delay levels."""

import random
import time

import pytest
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyInProgress
from support.cluster import running_cluster
from support.processes import Forked
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import open_bench, running_worker

PAYLOAD = {"message": "x"}


def _submit(settings, delay, key):
    with open_bench(settings) as bench:
        bench.submit("echo", PAYLOAD, key=key, delay=delay)


def _dies_submitting(bench, monkeypatch, tmp_path, point, delay, key=None):
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
        assert Forked(_submit, bench.settings, delay, key).wait(60) == -9
    (record,) = bench.store.list().items
    return record.task_id


def _through(bench, wakes_at):
    """Wait until the copies of a task are out of the levels, and out of the work queue."""
    eventually(lambda: time.time() * 1_000 > wakes_at + 1_000, 30, "its time has come")
    bench.drained(*[names.delay_queue(level) for level in reversed(range(bench.settings.delay_levels))])
    bench.drained()


@pytest.mark.parametrize("point", ["submit.recorded", "submit.published"])
def test_a_gateway_dies_and_the_delayed_task_is_rejected_and_its_copy_never_runs(bench, monkeypatch, tmp_path, point):
    task_id = _dies_submitting(bench, monkeypatch, tmp_path, point, 10)
    with sweeping(bench, unpublished_grace=0.01) as sweep:
        eventually(lambda: sweep(task_id) or bench.state(task_id) is State.REJECTED, 10, "it is rejected")
    with running_worker(bench.settings, abrupt=True):
        _through(bench, bench.store.get(task_id).wakes_at)

    assert bench.state(task_id) is State.REJECTED
    assert "started" not in bench.hops(task_id)


def test_a_gateway_dies_and_the_repeated_key_is_one_delayed_task_that_runs_once(bench, monkeypatch, tmp_path):
    task_id = _dies_submitting(bench, monkeypatch, tmp_path, "submit.published", 8, "k")
    wakes_at = bench.store.get(task_id).wakes_at
    repeated = eventually(lambda: _repeated(bench), 20, "the key is adopted")
    adopted = bench.store.get(repeated)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(repeated)
        _through(bench, wakes_at)

    assert (repeated, adopted.wakes_at) == (task_id, wakes_at)  # a delay begins with the first request
    assert record.state is State.SUCCEEDED
    assert record.started_at >= wakes_at
    assert bench.hops(repeated).count("started") == 1


def _repeated(bench):
    try:
        return bench.submit("echo", PAYLOAD, key="k", delay=3)
    except KeyInProgress:
        return None


def test_redis_loses_everything_and_the_delayed_task_runs_all_the_same(bench):
    task_id = bench.submit("echo", PAYLOAD, delay=4, principal="ada")
    wakes_at = bench.store.get(task_id).wakes_at
    client = bench.stores.redis
    for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
        client.run(("DEL", key))
    gone = bench.store.get(task_id)
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: bench.store.get(task_id) is not None, 30, "it has a record again")
        record = bench.finished(task_id)

    assert gone is None
    assert (record.state, record.principal, record.attempt) == (State.SUCCEEDED, "ada", 1)
    assert record.started_at >= wakes_at
    assert [item.task_id for item in bench.store.list(principal="ada").items] == [task_id]


def test_a_broker_that_lost_a_delayed_task_gets_it_back_no_sooner_than_its_time(bench):
    task_id = bench.submit("echo", PAYLOAD, delay=6)
    wakes_at = bench.store.get(task_id).wakes_at
    bench.purge(*[names.delay_queue(level) for level in range(bench.settings.delay_levels)])
    with sweeping(bench, 3, queue_ttl=0.1, sweep_margin=0.1, lease=0.5) as sweep:
        eventually(lambda: sweep(task_id) or "resent" in bench.hops(task_id), 30, "it is sent again")
        resent_at = time.time() * 1_000
        copies = bench.depth(names.WORK_QUEUE)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)

    assert copies == 1
    assert resent_at >= wakes_at
    assert record.state is State.SUCCEEDED
    assert record.started_at >= wakes_at


def test_a_delayed_task_that_fails_climbs_the_ladder_and_is_not_delayed_again(bench):
    task_id = bench.submit("echo", {"message": "x", "failTimes": 1}, delay=2)
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)

    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert [hop["kind"] for hop in bench.store.hops(task_id)] == [
        "accepted", "published", "started", "failed", "delayed", "started", "succeeded",
    ]  # fmt: skip


def test_a_dead_letter_of_a_delayed_task_is_redriven_at_once(bench):
    task_id = bench.submit("echo", {"message": "x", "permanent": True}, delay=2)
    with running_worker(bench.settings, abrupt=True):
        bench.finished(task_id)
        (dead_letter,) = bench.settled_dead_letters(1)
        began = time.time()
        bench.stores.service(bench.publisher).redrive(task_id, by="ada")
        eventually(lambda: bench.store.get(task_id).cycle == 1 and bench.finished(task_id), 20, "its next cycle ended")
        record = bench.store.get(task_id)

    assert not any(header.startswith("delay-") for header in dead_letter.headers)
    assert record.started_at >= began * 1_000 - 1_000


@pytest.fixture
def lonely():
    """A RabbitMQ of the test's own."""
    with running_cluster(size=1) as cluster:
        yield cluster


def test_a_broker_killed_while_it_dead_letters_from_level_to_level_loses_no_delayed_task(settings, lonely):
    changes = {
        "broker_url": SecretStr(lonely.broker_url),
        "management_url": SecretStr(lonely.management_url),
    }
    (member,) = lonely.members
    rng = random.Random(7)
    with open_bench(settings.model_copy(update=changes)) as bench:
        tasks = [bench.submit("echo", PAYLOAD, delay=rng.randint(1, 15)) for _ in range(300)]
        wakes = {task_id: bench.store.get(task_id).wakes_at for task_id in tasks}
        eventually(lambda: bench.depth(names.WORK_QUEUE) >= 60, 20, "some have come through")
        member.kill()
        member.start()
        eventually(lonely.whole, 60, "RabbitMQ is back")
        with running_worker(bench.settings, abrupt=True):
            records = [bench.finished(task_id, 60) for task_id in tasks]
            bench.drained()

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert all(record.started_at >= wakes[record.task_id] for record in records)
    assert {bench.runs(task_id) for task_id in tasks} == {1}
