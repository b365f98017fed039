"""P1, P3, P4: Redis or RabbitMQ goes away under a worker, and comes back."""

import contextlib
import os
import signal

import psutil
import redis
from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.proxy import DOWN, Proxy
from support.waiting import eventually
from support.worker import each_pool, running_worker

PAYLOAD = {"message": "x"}


def _slow(seconds, **more):
    return {"message": "x", "sleepSeconds": seconds, **more}


@contextlib.contextmanager
def _redis_proxy(bench):
    """Settings for a worker whose Redis can be taken away."""
    with Proxy.to(bench.settings.redis_url.get_secret_value()) as proxy:
        yield proxy, bench.settings.model_copy(update={"redis_url": SecretStr(proxy.url)})


@contextlib.contextmanager
def _broker_proxy(bench):
    """Settings for a worker whose RabbitMQ can be taken away."""
    with Proxy.to(bench.settings.broker("worker")) as proxy:
        yield proxy, bench.settings.model_copy(update={"broker_url": SecretStr(proxy.url)})


def _away(proxy):
    proxy.refuse()
    proxy.cut()


def _wipe(bench):
    client = redis.Redis.from_url(bench.settings.redis_url.get_secret_value())
    with contextlib.closing(client):
        for key in client.scan_iter(f"{bench.settings.redis_prefix}*", count=1_000):
            client.delete(key)


@each_pool
def test_without_redis_nothing_runs_unclaimed_and_no_attempt_is_used_up(bench, pool):
    with _redis_proxy(bench) as (proxy, settings), running_worker(settings, abrupt=True, pool=pool) as worker:
        _away(proxy)
        ids = [bench.submit("echo", PAYLOAD) for _ in range(5)]
        eventually(lambda: worker.text().count("held: Redis did not take the claim") >= 5, 20, "all are held")
        held = {bench.state(task_id) for task_id in ids}
        proxy.admit()
        records = [bench.finished(task_id, 30) for task_id in ids]

    assert held == {State.QUEUED}
    assert {(record.state, record.attempt, record.lost_runs) for record in records} == {(State.SUCCEEDED, 1, 0)}
    assert {bench.runs(task_id) for task_id in ids} == {1}


@each_pool
def test_a_result_waits_for_redis_and_the_handler_is_not_run_again(bench, pool):
    with _redis_proxy(bench) as (proxy, settings), running_worker(settings, abrupt=True, pool=pool):
        task_id = bench.submit("echo", _slow(1))
        bench.wait_for(task_id, State.RUNNING)
        _away(proxy)
        # Longer than its lease of two seconds: the renewals fail, then the completion does.
        eventually(lambda: not bench.stores.claims.leased(task_id), 20, "its lease has lapsed")
        lapsed = bench.state(task_id)
        proxy.admit()
        record = bench.finished(task_id, 30)

    assert lapsed is State.RUNNING
    assert (record.state, record.attempt, record.lost_runs) == (State.SUCCEEDED, 1, 0)
    assert bench.hops(task_id).count("started") == 1


@each_pool
def test_a_failure_waits_in_hand_until_redis_can_record_it(bench, pool):
    with _redis_proxy(bench) as (proxy, settings), running_worker(settings, abrupt=True, pool=pool) as worker:
        task_id = bench.submit("echo", _slow(1, failTimes=1))
        bench.wait_for(task_id, State.RUNNING)
        proxy.hold(DOWN)
        eventually(lambda: "hand-over waits" in worker.text(), 20, "the hand-over waits")
        waiting = [bench.depth(names.rung_queue(rung.name)) for rung in settings.ladder.rungs]
        proxy.release()
        record = bench.finished(task_id, 30)

    assert waiting == [0, 0, 0]
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert (bench.hops(task_id).count("started"), bench.hops(task_id).count("failed")) == (2, 1)


def test_a_wiped_redis_costs_no_task(bench):
    with running_worker(bench.settings, abrupt=True):
        waiting = bench.submit("echo", {"message": "x", "failTimes": 3})
        running = [bench.submit("echo", _slow(4)) for _ in range(8)]  # every child; so none ends while Redis is wiped
        queued = [bench.submit("echo", PAYLOAD, principal="ada") for _ in range(10)]
        bench.wait_for(running[0], State.RUNNING)
        seen = bench.store.get_many([waiting, *running, *queued])
        living = {record.task_id: record for record in seen if not record.state.terminal}
        _wipe(bench)
        records = {
            task_id: eventually(lambda task_id=task_id: _succeeded(bench, task_id), 60, f"{task_id} comes back")
            for task_id in living
        }
    listed = {record.task_id for record in bench.store.list(principal="ada").items}

    assert {waiting, *running} <= living.keys()
    assert State.QUEUED in {record.state for record in living.values()}
    for field in ("trace_id", "principal", "request_id", "type", "created_at"):
        assert _each(records, field) == _each(living, field)
    assert all(record.result["message"] == "x" for record in records.values())
    assert records[waiting].attempt == 4
    assert listed == set(queued) & living.keys()
    assert bench.depth(names.DEAD_QUEUE) == 0


def _each(records, attribute):
    return {task_id: getattr(record, attribute) for task_id, record in records.items()}


def _succeeded(bench, task_id):
    record = bench.store.get(task_id)
    return record if record is not None and record.state is State.SUCCEEDED else None


@each_pool
def test_a_cut_connection_loses_nothing_and_counts_nothing(bench, pool):
    with _broker_proxy(bench) as (proxy, settings), running_worker(settings, pool=pool) as worker:
        running = [bench.submit("echo", _slow(2)) for _ in range(4)]
        for task_id in running:
            bench.wait_for(task_id, State.RUNNING)
        queued = [bench.submit("echo", PAYLOAD) for _ in range(30)]
        hopeless = [bench.submit("echo", {"message": "x", "permanent": True}) for _ in range(5)]
        proxy.cut()
        records = [bench.finished(task_id, 40) for task_id in [*running, *queued]]
        dead = [bench.finished(task_id, 40) for task_id in hopeless]
        bench.drained(names.WORK_QUEUE, names.LEASE_QUEUE, names.RECORDER_QUEUE)

        assert worker.process.poll() is None
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {record.attempt for record in records} == {1}
    assert {bench.hops(record.task_id).count("succeeded") for record in records} == {1}
    assert {(record.state, record.attempt) for record in dead} == {(State.DEAD_LETTERED, 1)}
    assert {dead_letter.task_id for dead_letter in bench.dead_letters()} == set(hopeless)


def test_after_a_cut_the_loop_reads_from_no_other_connection_that_has_the_number_of_a_dead_childs_pipe(
    bench, tmp_path, monkeypatch
):
    monkeypatch.setenv("BYSTANDER", str(tmp_path))

    def bystander(step):
        (tmp_path / step).touch()
        done = tmp_path / f"{step}.done"
        eventually(done.exists, 20, f"{step} is done")
        return done.read_text()

    with (
        _broker_proxy(bench) as (proxy, settings),
        running_worker(settings, app="support.bystander", abrupt=True) as worker,
    ):
        running = [bench.submit("echo", _slow(3)) for _ in range(4)]
        for task_id in running:
            bench.wait_for(task_id, State.RUNNING)
        bystander("vacate")
        killed = worker.children()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not {*killed} & {*worker.children()}, 10, "the dead are gone")
        after = [bench.finished(task_id, 40).state for task_id in running]
        bystander("settle")
        proxy.cut()
        after += [bench.finished(bench.submit("echo", PAYLOAD), 40).state for _ in range(3)]
        intact = bystander("look")

    assert set(after) == {State.SUCCEEDED}
    assert intact == "24"


def test_a_child_that_reports_and_dies_while_the_connection_is_lost_does_not_stop_its_worker(bench):
    with _broker_proxy(bench) as (proxy, settings), running_worker(settings, abrupt=True) as worker:
        task_id = bench.submit("echo", _slow(1))
        bench.wait_for(task_id, State.RUNNING)
        family = worker.children()
        os.kill(worker.process.pid, signal.SIGSTOP)
        proxy.cut()  # the loop learns of it before it can read what the child reports
        eventually(lambda: (bench.store.get(task_id).progress or {}).get("percent") == 100, 20, "the handler returns")
        eventually(lambda: all(map(_waits, family)), 20, "each child waits for a job")
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        os.kill(worker.process.pid, signal.SIGCONT)
        states = [bench.finished(each, 40).state for each in (task_id, bench.submit("echo", PAYLOAD))]

    assert states == [State.SUCCEEDED, State.SUCCEEDED]


def _waits(pid):
    """Whether a process has slept through ten looks."""
    return all(psutil.Process(pid).status() == psutil.STATUS_SLEEPING for _ in range(10))


def test_a_broker_that_refuses_for_a_while_gets_the_retry_later_and_the_handler_runs_once_an_attempt(bench):
    with _broker_proxy(bench) as (proxy, settings), running_worker(settings, abrupt=True) as worker:
        task_id = bench.submit("echo", _slow(1, failTimes=1))
        bench.wait_for(task_id, State.RUNNING)
        proxy.hold()
        eventually(lambda: "hand-over waits" in worker.text(), 30, "the retry can't be published")
        decided = bench.store.whole(task_id)
        proxy.release()
        record = bench.finished(task_id, 40)
        bench.drained()

    assert (decided.state, decided.decision is not None) == (State.RETRY_WAIT, True)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert bench.hops(task_id).count("started") == 2
    assert bench.hops(task_id).count("failed") == 1


def test_one_worker_holds_exactly_forty_of_a_full_backlog(bench):
    ids = [bench.submit("echo", _slow(1)) for _ in range(60)]
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: bench.depth(names.WORK_QUEUE) == 20, 10, lambda: f"{bench.depth(names.WORK_QUEUE)} ready")
        bench.purge(names.WORK_QUEUE)  # what is not in its hand
        for task_id in ids[:40]:
            bench.finished(task_id, 40)
        held = [task_id for task_id in ids if bench.state(task_id) is State.SUCCEEDED]

    assert bench.settings.prefetch == 40
    assert held == ids[:40]


@each_pool
def test_after_a_lost_connection_a_worker_holds_as_many_as_before(bench, pool):
    with _broker_proxy(bench) as (proxy, settings), running_worker(settings, abrupt=True, pool=pool) as worker:
        proxy.cut()
        eventually(lambda: "Connection to broker lost" in worker.text(), 20, "it has lost its connection")
        for _ in range(60):
            bench.submit("echo", _slow(60))
        eventually(lambda: bench.depth(names.WORK_QUEUE) == 20, 20, lambda: f"{bench.depth(names.WORK_QUEUE)} ready")
