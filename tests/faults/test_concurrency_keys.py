"""One at a time per key: first come first served, never two at once, whatever dies meanwhile."""

import base64

import pytest
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.control.send_now import SendNow
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.protocol.webhooks import EVENTS, Webhook
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.handovers import Handovers
from support.limited_client import APP, all_succeed, begins, most_at_once, order, send
from support.receiver import running_receiver
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

#: Enough that most wait behind others, on several workers.
MANY = 200


def _keys(bench):
    return ConcurrencyKeys(bench.stores.redis, lease=bench.settings.lease)


@each_pool
def test_tasks_of_a_key_run_one_at_a_time_in_their_order_and_use_up_no_attempt(patient, log, pool):
    workers = [running_worker(patient.settings, app=APP, abrupt=True, pool=pool) for _ in range(2)]
    with workers[0], workers[1]:
        first = send(patient, "limited.one", log, seconds=5)  # meanwhile the others come
        patient.wait_for(first, State.RUNNING)
        ids = [first, *(send(patient, "limited.one", log) for _ in range(MANY - 1))]
        records = all_succeed(patient, ids, 120)
        patient.drained()
        eventually(lambda: _keys(patient).view("r") is None, 20, "the key is free")

    assert most_at_once(log) == 1
    assert order(log) == ids
    assert {record.attempt for record in records} == {1}
    assert set(begins(log).values()) == {1}


class _LatePublisher:
    """Keeps what is published."""

    def __init__(self):
        self.kept = []

    def publish(self, *words):
        self.kept.append(words)
        return 0.0


def test_a_copy_that_comes_before_the_one_that_was_sent_in_its_place_leaves_the_task_its_place(settings):
    with open_bench(settings.model_copy(update={"hold_ttl": 600.0, "lease": 60.0})) as bench:
        first = bench.submit("echo", {"message": "first"}, concurrency_key="local:k")
        late = _LatePublisher()
        SendNow(bench.store, Handovers(bench.stores.redis), late).send(first, (State.QUEUED,), "released")
        ids = [first, *(bench.submit("echo", {"message": "later"}, concurrency_key="local:k") for _ in range(3))]
        with running_worker(bench.settings, abrupt=True):
            eventually(lambda: _keys(bench).view("local:k").first == tuple(ids), 30, "all have their places")
            waiting = {bench.state(task_id) for task_id in ids[1:]}
            for words in late.kept:
                bench.publisher.publish(*words)
            records = [bench.finished(task_id, 60) for task_id in ids]
    began = [record.started_at for record in records]

    assert waiting <= {State.HELD, State.QUEUED}
    assert began == sorted(began)
    assert {bench.runs(task_id) for task_id in ids} == {1}


def test_another_key_and_tasks_without_one_go_on_meanwhile(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        first = send(patient, "limited.one", log, seconds=6)
        patient.wait_for(first, State.RUNNING)
        second = send(patient, "limited.one", log)
        held = patient.wait_for(second, State.HELD)
        other = patient.finished(send(patient, "limited.one", log, key="r2"))
        plain = patient.finished(patient.submit("echo", {"message": "x"}))
        still = patient.state(first)
        view = _keys(patient).view("r")
        all_succeed(patient, [first, second])

    assert (held.held_by, held.concurrency_key, held.attempt) == ("key:r", "r", 0)
    assert (other.state, plain.state, still) == (State.SUCCEEDED, State.SUCCEEDED, State.RUNNING)
    assert [task_id for task_id, _ in view.holders] == [first]
    assert (view.limit, view.waiting, view.first) == (1, 1, (second,))
    assert patient.hops(second)[-4:] == ["held", "released", "started", "succeeded"]


@pytest.mark.parametrize("task_type", ["limited.two", "limited.crowd"])
def test_a_limit_of_two_lets_two_run_at_once_and_no_more(patient, log, task_type):
    ids = [send(patient, task_type, log, seconds=0.2) for _ in range(20)]
    with running_worker(patient.settings, app=APP, abrupt=True), running_worker(patient.settings, app=APP, abrupt=True):
        all_succeed(patient, ids, 60)

    assert most_at_once(log) == 2


def test_a_clients_key_is_held_too(patient):
    with running_worker(patient.settings, abrupt=True):
        first = patient.submit("echo", {"message": "x", "sleepSeconds": 4}, concurrency_key="local:k")
        patient.wait_for(first, State.RUNNING)
        second = patient.submit("echo", {"message": "x"}, concurrency_key="local:k")
        held = patient.wait_for(second, State.HELD)
        all_succeed(patient, [first, second])

    assert held.held_by == "key:local:k"


def test_a_task_holds_its_key_while_it_waits_between_steps(patient, log):
    ids = [send(patient, "limited.one", log, waits=2) for _ in range(3)]
    with running_worker(patient.settings, app=APP, abrupt=True):
        all_succeed(patient, ids, 60)

    assert most_at_once(log) == 1
    assert order(log) == ids


def test_a_task_that_waits_for_its_next_attempt_holds_nothing(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        failing = send(patient, "limited.one", log, fails=2)
        patient.wait_for(failing, State.RETRY_WAIT)
        second = patient.finished(send(patient, "limited.one", log))
        between = patient.store.get(failing)
        record = all_succeed(patient, [failing])[0]

    assert second.state is State.SUCCEEDED
    assert not between.state.terminal
    assert record.attempt == 3
    assert most_at_once(log) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_holders_worker_is_killed_and_no_other_runs_before_the_holder_has_ended(patient, log, pool):
    with running_worker(patient.settings, app=APP, abrupt=True, pool=pool) as first:
        ids = [send(patient, "limited.one", log, seconds=1.5) for _ in range(4)]
        patient.wait_for(ids[1], State.HELD)
        first.kill()
    with running_worker(patient.settings, app=APP, abrupt=True, pool=pool):
        all_succeed(patient, ids, 60)

    assert most_at_once(log) == 1
    assert order(log) == ids


def _cancel(bench, task_id):
    return bench.stores.control(bench.publisher).cancel(task_id, by="op")


@each_pool
def test_a_cancelled_holder_gives_its_key_to_the_next(patient, log, pool):
    with running_worker(patient.settings, app=APP, abrupt=True, pool=pool):
        holder = send(patient, "limited.one", log, seconds=30, asks=True)
        patient.wait_for(holder, State.RUNNING)
        others = [send(patient, "limited.one", log) for _ in range(2)]
        patient.wait_for(others[-1], State.HELD)
        _cancel(patient, holder)
        all_succeed(patient, others, 25)
        record = patient.finished(holder)
        patient.drained()
        eventually(lambda: _keys(patient).view("r") is None, 20, "the key is free")

    assert record.state is State.CANCELLED
    assert order(log) == [holder, *others]


def test_a_holder_that_is_cancelled_between_two_steps_gives_its_key_to_the_next(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        holder = send(patient, "limited.one", log, waits=60)
        patient.wait_for(holder, State.WAITING)
        other = send(patient, "limited.one", log)
        patient.wait_for(other, State.HELD)
        _cancel(patient, holder)
        second = patient.finished(other)
        first = patient.finished(holder)
        eventually(lambda: _keys(patient).view("r") is None, 20, "the key is free")

    assert (first.state, second.state) == (State.CANCELLED, State.SUCCEEDED)


def test_a_task_that_is_cancelled_while_it_waits_for_a_key_holds_up_none_after_it(patient, log):
    with running_worker(patient.settings, app=APP, abrupt=True):
        holder = send(patient, "limited.one", log, seconds=5)
        patient.wait_for(holder, State.RUNNING)
        waiting = [send(patient, "limited.one", log) for _ in range(3)]
        for task_id in waiting:
            patient.wait_for(task_id, State.HELD)
        cancelled = _cancel(patient, waiting[0])
        all_succeed(patient, [holder, *waiting[1:]])
        patient.drained()
        eventually(lambda: _keys(patient).view("r") is None, 20, "the key is free")

    assert (cancelled.state, patient.state(waiting[0])) == (State.CANCELLED, State.CANCELLED)
    assert order(log) == [holder, *waiting[1:]]


@pytest.mark.parametrize("point", ["", "key.ended", "key.released", "webhook.submitted"])
def test_the_end_of_a_task_with_a_key_and_a_webhook_is_announced_and_its_key_given_back(
    settings, monkeypatch, tmp_path, point
):
    if point:
        monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
    with running_receiver() as receiver:
        changes = {
            "hold_ttl": 600.0,
            "webhook_secrets": SecretStr("whsec_" + base64.b64encode(bytes(32)).decode()),
            "http_allowed_hosts": (f"127.0.0.1:{receiver.port}",),
        }
        with open_bench(settings.model_copy(update=changes)) as bench:
            workers = [running_worker(bench.settings, abrupt=True) for _ in range(2)]
            with workers[0], workers[1]:
                ids = [
                    bench.submit(
                        "echo",
                        {"message": "x", "sleepSeconds": 1},
                        concurrency_key="local:k",
                        webhook=Webhook(receiver.url, EVENTS),
                    )
                    for _ in range(3)
                ]
                all_succeed(bench, ids, 60)
                eventually(
                    lambda: {each.json["data"]["taskId"] for each in receiver.got} == set(ids), 40, "each is announced"
                )
                eventually(lambda: _keys(bench).view("local:k") is None, 30, "the key is free")
            delivered = {each.headers["webhook-id"] for each in receiver.got}

    assert len(delivered) == len(ids)


POINTS = [
    "key.taken",
    "key.held",
    "key.ended",
    "key.released",
    "hold.decided",
    "hold.handed-over",
    "send-now.recorded",
    "send-now.published",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_dies_at_a_step_of_a_key_and_each_task_runs_once_without_the_hold_queues_help(
    patient, log, monkeypatch, tmp_path, point
):
    marker = tmp_path / "died-here"
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={marker}")
    workers = [running_worker(patient.settings, app=APP, abrupt=True) for _ in range(2)]
    with workers[0], workers[1]:
        ids = [send(patient, "limited.one", log, seconds=0.1) for _ in range(8)]
        records = all_succeed(patient, ids, 90)
        patient.drained()
        eventually(lambda: _keys(patient).view("r") is None, 30, "the key is free")

    assert marker.exists()
    assert most_at_once(log) == 1
    assert {record.attempt for record in records} <= {1, 2}
    assert sum(begins(log).values()) <= len(ids) + 1  # what ran on the worker that died ran again


def test_redis_loses_everything_and_what_was_held_runs_when_it_leaves_the_hold_queue(bench, log):
    with running_worker(bench.settings, app=APP, abrupt=True):
        ids = [send(bench, "limited.one", log, seconds=0.2) for _ in range(6)]
        bench.wait_for(ids[-1], State.HELD)
        client = bench.stores.redis
        for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
            client.run(("DEL", key))
        eventually(lambda: set(begins(log)) == set(ids), 60, "all have run")
        bench.drained(names.HOLD_QUEUE, names.LEASE_QUEUE, names.WORK_QUEUE)
        eventually(lambda: {each.state for each in bench.store.get_many(ids) if each} == {State.SUCCEEDED}, 30)
        assert bench.state(ids[-1]) is State.SUCCEEDED  # those that had ended before have no record any more
