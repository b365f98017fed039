"""One test for each boundary of the protocol: the process dies exactly there, and the outcome is certain."""

import pytest

from dispatch import crashpoints
from dispatch.broker.publisher import Publisher
from dispatch.deadletters.recorder import TOGETHER, DeadLetterRecorder
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyInProgress
from support.processes import Forked
from support.stores import Stores
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker


@pytest.fixture
def fault(monkeypatch, tmp_path):
    """Arm a point for the processes that are started next; returns a check whether it was reached."""
    marker = tmp_path / "died-here"

    def arm(point):
        assert point in crashpoints.POINTS
        monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={marker}")
        return marker.exists

    return arm


# --- the gateway -----------------------------------------------------------------------------------
def _submit(settings, key, reserves):
    with open_bench(settings) as bench:
        bench.store.reserves = reserves
        bench.submit("echo", {"message": "x"}, key=key)


def _dies_submitting(settings, key, *, reserves=True):
    return Forked(_submit, settings, key, reserves).wait(60)


@pytest.mark.parametrize("point", ["submit.key-reserved", "submit.recorded", "submit.published", "submit.marked"])
def test_a_gateway_dies_and_the_repeated_key_is_one_task_that_runs_once(bench, fault, point):
    reached = fault(point)
    # The key by itself, as in a Redis Cluster: otherwise there is no moment between it and the record.
    alone = point == "submit.key-reserved"

    assert _dies_submitting(bench.settings, "k", reserves=not alone) == -9
    assert reached()
    task_id = eventually(lambda: _repeated(bench), 20, "the key is adopted, replayed or free")
    with running_worker(bench.settings, abrupt=True):
        record = bench.finished(task_id)
        bench.drained()

    assert record.state is State.SUCCEEDED
    assert len(bench.store.list().items) == 1
    assert bench.hops(task_id).count("started") == 1


def _repeated(bench):
    try:
        return bench.submit("echo", {"message": "x"}, key="k")
    except KeyInProgress:
        return None


@pytest.mark.parametrize("point", ["submit.recorded", "submit.published"])
def test_a_gateway_dies_and_its_client_does_not_repeat(bench, fault, point):
    fault(point)
    _dies_submitting(bench.settings, "k")
    record = bench.store.list().items[0]
    with running_worker(bench.settings, abrupt=True):
        ended = bench.finished(record.task_id)
        bench.drained()

    # Never published: rejected. Published: a worker's claim and the sweeper race, and either is true; never both.
    runs = bench.hops(record.task_id).count("started")
    assert (ended.state, runs) in {(State.SUCCEEDED, 1), (State.REJECTED, 0)}
    assert point == "submit.published" or ended.state is State.REJECTED


# --- a run and its failure ---------------------------------------------------------------------------
OUTCOMES = {
    # point: (attempts, handler starts)
    "run.delivered": (1, 1),
    "claim.answered": (1, 2),
    "run.claimed": (2, 2),
    "run.handled": (2, 2),
    "run.reported": (1, 2),
    "run.completed": (1, 1),
    "ack.succeeded": (1, 1),
    "ack.waiting": (1, 1),
}


#: With threads the whole worker dies, and nothing of it sees that a run is lost: its lease lapses, and no attempt is used up.
WITH_THREADS = {**OUTCOMES, "run.claimed": (1, 2), "run.handled": (1, 2)}


@pytest.mark.parametrize(
    ("pool", "point"),
    [
        *(("prefork", point) for point in OUTCOMES),
        *(("threads", point) for point in WITH_THREADS if point != "ack.succeeded"),
    ],
)
def test_a_worker_dies_and_the_task_succeeds_once(bench, fault, pool, point):
    reached = fault(point)
    with running_worker(bench.settings, abrupt=True, pool=pool), running_worker(bench.settings, abrupt=True, pool=pool):
        task_id = bench.submit("echo", {"message": "x"})
        record = bench.finished(task_id, 40)
        eventually(reached, 10, "a process died there")
        bench.drained()
        hops = bench.hops(task_id)

    assert record.state is State.SUCCEEDED
    assert (record.attempt, hops.count("started")) == (OUTCOMES if pool == "prefork" else WITH_THREADS)[point]
    assert hops.count("succeeded") == 1
    assert bench.depth(names.DEAD_QUEUE) == 0


@each_pool
@pytest.mark.parametrize("point", ["route.decided", "route.published", "route.handed-over"])
def test_a_worker_dies_handing_a_failure_over_and_no_attempt_runs_twice(bench, fault, pool, point):
    reached = fault(point)
    with running_worker(bench.settings, abrupt=True, pool=pool), running_worker(bench.settings, abrupt=True, pool=pool):
        task_id = bench.submit("echo", {"message": "x", "failTimes": 1})
        record = bench.finished(task_id, 40)
        bench.drained(names.rung_queue("1m"), names.LEASE_QUEUE, names.WORK_QUEUE)
        hops = bench.hops(task_id)

    assert reached()
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert (hops.count("started"), hops.count("failed"), hops.count("succeeded")) == (2, 1, 1)


@pytest.mark.parametrize("point", ["route.decided", "route.published", "route.handed-over", "recorder.recorded"])
def test_a_worker_dies_burying_a_task_and_one_dead_letter_is_left(bench, fault, point):
    reached = fault(point)
    with running_worker(bench.settings), running_worker(bench.settings):
        task_id = bench.submit("echo", {"message": "x", "permanent": True})
        record = bench.finished(task_id, 40)
        eventually(reached, 10, "a process died there")
        bench.drained(names.RECORDER_QUEUE, names.LEASE_QUEUE, names.WORK_QUEUE)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 1, 20, "one dead letter is left")

    assert record.state is State.DEAD_LETTERED
    assert record.dead_reason == "permanent"
    assert bench.hops(task_id).count("started") == 1
    assert [dead_letter.task_id for dead_letter in bench.dead_letters()] == [task_id]


def _recorder(settings):
    with open_bench(settings) as bench:
        DeadLetterRecorder(settings.address("worker"), bench.stores.dead_letters, bench.stores.ladders).step()


def test_a_worker_dies_with_dead_letters_that_it_has_recorded_together_and_each_has_one_record(bench, fault):
    task_ids = [bench.submit("echo", {"message": "x"}) for _ in range(TOGETHER)]
    copies = [dead_copy(bench.message(task_id), Reason.PERMANENT, "it broke") for task_id in task_ids]
    bench.purge(names.WORK_QUEUE)
    for copy in copies:
        bench.publisher.publish(copy.message, copy.exchange, copy.routing_key)
    reached = fault("recorder.recorded")
    ended = Forked(_recorder, bench.settings).wait(60)
    recorded = sum(bench.state(task_id) is State.DEAD_LETTERED for task_id in task_ids)
    with running_worker(bench.settings):
        for task_id in task_ids:
            bench.wait_for(task_id, State.DEAD_LETTERED, 20)
        bench.drained(names.RECORDER_QUEUE, names.WORK_QUEUE)

    assert (ended, reached()) == (-9, True)
    assert recorded > 1  # by one round trip, of which none was acked
    assert [bench.hops(task_id).count("dead-lettered") for task_id in task_ids] == [1] * TOGETHER
    assert sorted(dead_letter.task_id for dead_letter in bench.dead_letters()) == sorted(task_ids)
    assert bench.stores.tasks.usage.read(bench.store.get(task_ids[0]).principal).dead == TOGETHER


def test_a_worker_dies_renewing_its_leases_and_the_task_succeeds_once(bench, fault):
    reached = fault("lease.renewing")
    with running_worker(bench.settings, abrupt=True), running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 2})
        record = bench.finished(task_id, 40)
        bench.drained()

    assert reached()
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)
    assert bench.hops(task_id).count("succeeded") == 1


# --- redrive and sweeper -------------------------------------------------------------------------------
def _redrive(settings, task_id):
    with open_bench(settings) as bench:
        bench.stores.service(bench.publisher).redrive(task_id, by="test")


@pytest.mark.parametrize("point", ["redrive.recorded", "redrive.published", "redrive.finished"])
def test_a_redrive_dies_and_its_next_cycle_runs_once(bench, fault, point):
    with running_worker(bench.settings):
        task_id = bench.submit("echo", {"message": "x", "permanent": True})
        bench.finished(task_id)
    reached = fault(point)
    ended = Forked(_redrive, bench.settings, task_id).wait(60)
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: (r := bench.store.get(task_id)).cycle == 1 and r.state is State.DEAD_LETTERED, 40)
        bench.drained()
        left = bench.settled_dead_letters(1)

    assert (ended, reached()) == (-9, True)
    assert [dead_letter.cycle for dead_letter in left] == [1]
    assert bench.hops(task_id).count("started") == 2


def _sweep(settings, task_id):
    impatient = settings.model_copy(update={"queue_ttl": 0.1, "sweep_margin": 0.1, "lease": 0.5})
    publisher = Publisher(settings.broker("replay"))
    stores = Stores(impatient)
    sweeper = stores.sweeper(publisher)

    def swept():
        stores.reminders.set(task_id, 0)
        sweeper.sweep()
        return False

    eventually(swept, 30, "it dies before")


@pytest.mark.parametrize("point", ["sweep.recorded", "sweep.published"])
def test_a_sweeper_dies_sending_a_lost_task_again_and_it_runs_once(bench, fault, point):
    task_id = bench.submit("echo", {"message": "x"})
    bench.purge(names.WORK_QUEUE)
    reached = fault(point)
    ended = Forked(_sweep, bench.settings, task_id).wait(60)
    with running_worker(bench.settings.model_copy(update={"unpublished_grace": 0.5}), abrupt=True):
        record = bench.finished(task_id, 40)
        bench.drained()

    assert (ended, reached()) == (-9, True)
    assert record.state is State.SUCCEEDED
    assert bench.hops(task_id).count("started") == 1
