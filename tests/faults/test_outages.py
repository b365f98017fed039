"""P1, P3, P4: Redis or RabbitMQ goes away under a worker, and comes back."""

import contextlib
import os
import signal

import redis
from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.proxy import DOWN, Proxy
from support.waiting import eventually
from support.worker import running_worker

PAYLOAD = {"message": "x"}


def _slow(seconds, **more):
    return {"message": "x", "sleepSeconds": seconds, **more}


@contextlib.contextmanager
def _redis_proxy(desk):
    """Settings for a worker whose Redis can be taken away."""
    with Proxy.to(desk.settings.redis_url.get_secret_value()) as proxy:
        yield proxy, desk.settings.model_copy(update={"redis_url": SecretStr(proxy.url)})


@contextlib.contextmanager
def _broker_proxy(desk):
    """Settings for a worker whose RabbitMQ can be taken away."""
    with Proxy.to(desk.settings.broker("worker")) as proxy:
        yield proxy, desk.settings.model_copy(update={"broker_url": SecretStr(proxy.url)})


def _away(proxy):
    proxy.refuse()
    proxy.cut()


def _wipe(desk):
    client = redis.Redis.from_url(desk.settings.redis_url.get_secret_value())
    with contextlib.closing(client):
        for key in client.scan_iter(f"{desk.settings.redis_prefix}*", count=1_000):
            client.delete(key)


def test_without_redis_nothing_runs_unclaimed_and_no_attempt_is_used_up(desk):
    with _redis_proxy(desk) as (proxy, settings), running_worker(settings, abrupt=True) as worker:
        _away(proxy)
        ids = [desk.submit("echo", PAYLOAD) for _ in range(5)]
        eventually(lambda: worker.text().count("held: Redis did not answer the claim") >= 5, 20, "all are held")
        held = {desk.state(task_id) for task_id in ids}
        proxy.admit()
        records = [desk.finished(task_id, 30) for task_id in ids]

    assert held == {State.QUEUED}
    assert {(record.state, record.attempt, record.lost_runs) for record in records} == {(State.SUCCEEDED, 1, 0)}
    assert {desk.hops(task_id).count("started") for task_id in ids} == {1}


def test_a_result_waits_for_redis_and_the_handler_is_not_run_again(desk):
    with _redis_proxy(desk) as (proxy, settings), running_worker(settings, abrupt=True):
        task_id = desk.submit("echo", _slow(1))
        desk.wait_for(task_id, State.RUNNING)
        _away(proxy)
        # Longer than its lease of two seconds: the renewals fail, then the completion does.
        eventually(lambda: not desk.stores.claims.leased(task_id), 20, "its lease has lapsed")
        lapsed = desk.state(task_id)
        proxy.admit()
        record = desk.finished(task_id, 30)

    assert lapsed is State.RUNNING
    assert (record.state, record.attempt, record.lost_runs) == (State.SUCCEEDED, 1, 0)
    assert desk.hops(task_id).count("started") == 1


def test_a_failure_waits_in_hand_until_redis_can_record_it(desk):
    with _redis_proxy(desk) as (proxy, settings), running_worker(settings, abrupt=True) as worker:
        task_id = desk.submit("echo", _slow(1, failTimes=1))
        desk.wait_for(task_id, State.RUNNING)
        proxy.hold(DOWN)
        eventually(lambda: "hand-over waits" in worker.text(), 20, "the hand-over waits")
        waiting = [desk.depth(names.rung_queue(rung.name)) for rung in settings.ladder.rungs]
        proxy.release()
        record = desk.finished(task_id, 30)

    assert waiting == [0, 0, 0]
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert (desk.hops(task_id).count("started"), desk.hops(task_id).count("failed")) == (2, 1)


def test_a_wiped_redis_costs_no_task(desk):
    with running_worker(desk.settings, abrupt=True):
        waiting = desk.submit("echo", {"message": "x", "failTimes": 3})
        running = [desk.submit("echo", _slow(4)) for _ in range(8)]  # every child; so none ends while Redis is wiped
        queued = [desk.submit("echo", PAYLOAD, principal="ada") for _ in range(10)]
        desk.wait_for(running[0], State.RUNNING)
        seen = desk.store.get_many([waiting, *running, *queued])
        living = {record.task_id: record for record in seen if not record.state.terminal}
        _wipe(desk)
        records = {
            task_id: eventually(lambda task_id=task_id: _succeeded(desk, task_id), 60, f"{task_id} comes back")
            for task_id in living
        }
    listed = {record.task_id for record in desk.store.list(principal="ada").items}

    assert {waiting, *running} <= living.keys()
    assert State.QUEUED in {record.state for record in living.values()}
    for said in ("trace_id", "principal", "request_id", "type", "created_at"):
        assert _each(records, said) == _each(living, said)
    assert all(record.result["message"] == "x" and record.message is not None for record in records.values())
    assert records[waiting].attempt == 4
    assert listed == set(queued) & living.keys()
    assert desk.depth(names.DEAD_QUEUE) == 0


def _each(records, attribute):
    return {task_id: getattr(record, attribute) for task_id, record in records.items()}


def _succeeded(desk, task_id):
    record = desk.store.get(task_id)
    return record if record is not None and record.state is State.SUCCEEDED else None


def test_a_cut_connection_loses_nothing_and_counts_nothing(desk):
    with _broker_proxy(desk) as (proxy, settings), running_worker(settings) as worker:
        running = [desk.submit("echo", _slow(2)) for _ in range(4)]
        for task_id in running:
            desk.wait_for(task_id, State.RUNNING)
        queued = [desk.submit("echo", PAYLOAD) for _ in range(30)]
        hopeless = [desk.submit("echo", {"message": "x", "permanent": True}) for _ in range(5)]
        proxy.cut()
        records = [desk.finished(task_id, 40) for task_id in [*running, *queued]]
        dead = [desk.finished(task_id, 40) for task_id in hopeless]
        desk.drained(names.WORK_QUEUE, names.LEASE_QUEUE, names.RECORDER_QUEUE)

        assert worker.process.poll() is None
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {record.attempt for record in records} == {1}
    assert {desk.hops(record.task_id).count("succeeded") for record in records} == {1}
    assert {(record.state, record.attempt) for record in dead} == {(State.DEAD_LETTERED, 1)}
    assert {letter.task_id for letter in desk.letters()} == set(hopeless)


def test_after_a_cut_the_loop_reads_from_nobodys_connection_that_has_the_number_of_a_dead_childs_pipe(
    desk, tmp_path, monkeypatch
):
    monkeypatch.setenv("BYSTANDER", str(tmp_path))

    def bystander(step):
        (tmp_path / step).touch()
        done = tmp_path / f"{step}.done"
        eventually(done.exists, 20, f"{step} is done")
        return done.read_text()

    with (
        _broker_proxy(desk) as (proxy, settings),
        running_worker(settings, app="support.bystander", abrupt=True) as worker,
    ):
        running = [desk.submit("echo", _slow(3)) for _ in range(4)]
        for task_id in running:
            desk.wait_for(task_id, State.RUNNING)
        bystander("vacate")
        killed = worker.children()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not {*killed} & {*worker.children()}, 10, "the dead are gone")
        after = [desk.finished(task_id, 40).state for task_id in running]
        bystander("settle")
        proxy.cut()
        after += [desk.finished(desk.submit("echo", PAYLOAD), 40).state for _ in range(3)]
        intact = bystander("look")

    assert set(after) == {State.SUCCEEDED}
    assert intact == "24"


def test_a_broker_that_refuses_for_a_while_gets_the_retry_later_and_the_handler_runs_once_an_attempt(desk):
    with _broker_proxy(desk) as (proxy, settings), running_worker(settings, abrupt=True) as worker:
        task_id = desk.submit("echo", _slow(1, failTimes=1))
        desk.wait_for(task_id, State.RUNNING)
        proxy.hold()
        eventually(lambda: "hand-over waits" in worker.text(), 30, "the retry can't be published")
        decided = desk.store.get(task_id)
        proxy.release()
        record = desk.finished(task_id, 40)
        desk.drained()

    assert (decided.state, decided.decision is not None) == (State.RETRY_WAIT, True)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert desk.hops(task_id).count("started") == 2
    assert desk.hops(task_id).count("failed") == 1


def test_one_worker_holds_exactly_forty_of_a_full_backlog(desk):
    ids = [desk.submit("echo", _slow(1)) for _ in range(60)]
    with running_worker(desk.settings, abrupt=True):
        eventually(lambda: desk.depth(names.WORK_QUEUE) == 20, 10, lambda: f"{desk.depth(names.WORK_QUEUE)} ready")
        desk.purge(names.WORK_QUEUE)  # what is not in its hand
        for task_id in ids[:40]:
            desk.finished(task_id, 40)
        held = [task_id for task_id in ids if desk.state(task_id) is State.SUCCEEDED]

    assert desk.settings.prefetch == 40
    assert held == ids[:40]
