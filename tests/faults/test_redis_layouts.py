"""P1, P3, P7 where Redis is more than one server: a master under Sentinels that dies, and a cluster of three masters."""

import contextlib
import signal
import sys
import threading
import time

import pytest
from pydantic import SecretStr

import topology
from dispatch.broker import provision
from dispatch.config.settings import ANSWER_WITHIN
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.gateway.admission.readiness import store_check
from dispatch.protocol import names
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.lanes import parse_lanes
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyState
from dispatch.store.key_usage import KeyUsage
from dispatch.worker.holding import READ_INTERVAL
from support import limited_client, redises, steps_client
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import open_bench, running_worker


@contextlib.contextmanager
def _bench(settings, url):
    with open_bench(settings.model_copy(update={"redis_url": SecretStr(url)})) as made:
        yield made


def _one_of_each(bench):
    """A task that succeeds at the second attempt, and one that dies, is redriven and dies again."""
    climbs = bench.submit("echo", {"message": "x", "failTimes": 1}, key="climbs")
    dies = bench.submit("echo", {"message": "x", "permanent": True})
    climbed, died = bench.finished(climbs), bench.finished(dies)

    assert (climbed.state, climbed.attempt) == (State.SUCCEEDED, 2)
    assert died.state is State.DEAD_LETTERED
    assert [record.task_id for record in bench.stores.dead_letters.list().items] == [dies]

    dead_letters = bench.stores.service(bench.publisher)
    dead_letters.redrive(dies, by="me")
    eventually(lambda: bench.store.get(dies).cycle == 1 and bench.store.get(dies).is_dead_letter, 20, "it dies again")
    eventually(lambda: bench.depth(names.DEAD_QUEUE) == 1, 20, "the first dead letter goes")

    assert {record.task_id for record in bench.store.list(principal="local").items} == {climbs, dies}
    assert (
        bench.stores.idempotency.reserve("local", "climbs", str({"message": "x", "failTimes": 1}), "other").state
        is KeyState.REPLAY
    )
    assert bench.hops(climbs).count("succeeded") == 1
    _audited(bench.stores)
    return climbs


def _audited(stores):
    """Entries of the audit log, and last uses of API keys, are written and read."""
    for number in range(3):
        assert stores.audit.add(AuditEntry("me", "redriveDeadLetter", str(number), "ok"))
    first = stores.audit.page(limit=2)
    usage = KeyUsage(stores.redis)
    usage.record({"0123456789ab": 1.0, "ba9876543210": 2.0})

    assert [one.entry.target for one in (*first.items, *stores.audit.page(cursor=first.next).items)] == ["2", "1", "0"]
    assert usage.last(["ba9876543210", "absent", "0123456789ab"]) == [2, None, 1]


def _notified(bench, task_id, settle):
    """Whether a long poll returns with a change and not with the end of its time."""
    revision = bench.store.get(task_id).revision
    timer = threading.Timer(0.3, settle)
    timer.start()
    began = time.monotonic()
    record = bench.store.wait(task_id, revision, 8)
    timer.join()
    return record.revision > revision and time.monotonic() - began < 6


# --- Sentinel ------------------------------------------------------------------------------------
def test_a_task_goes_every_way_with_a_master_that_sentinels_name(settings):
    with redises.sentinels() as watched, _bench(settings, watched.url) as bench:
        assert store_check(bench.store)() is None

        with running_worker(bench.settings, abrupt=True):
            _one_of_each(bench)
            slow = bench.submit("echo", {"message": "x", "sleepSeconds": 1})
            assert _notified(bench, slow, lambda: None)


class _Clients:
    """Submits until stopped; how long each answer took."""

    def __init__(self, bench):
        self.accepted, self.refused, self.slowest, self.gap = [], 0, 0.0, 0.0
        self._bench, self._stop = bench, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        self._thread.join(20)

    def reach(self, count, seconds):
        eventually(lambda: len(self.accepted) >= count, seconds, lambda: f"{len(self.accepted)} of {count} accepted")

    def _run(self):
        last = time.monotonic()
        while not self._stop.wait(0.02):
            began = time.monotonic()
            try:
                self.accepted.append(self._bench.submit("echo", {"message": "x"}))
            except DispatchError:
                self.refused += 1
            else:
                self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()
            self.slowest = max(self.slowest, time.monotonic() - began)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_the_master_dies_and_tasks_carry_on_with_its_replica(settings, death, capsys):
    with (
        redises.sentinels() as watched,
        _bench(settings, watched.url) as bench,
        running_worker(bench.settings, abrupt=True) as worker,
        _Clients(bench) as clients,
    ):
        clients.reach(40, 30)
        old = watched.master()
        old.signal(death)
        clients.reach(len(clients.accepted) + 40, 60)
        clients.stop()
        new = watched.master()
        eventually(lambda: _answered(bench), 20, "Redis answers")
        states = {bench.finished(task_id, 40).state for task_id in clients.accepted}

        assert new is not old
        assert states == {State.SUCCEEDED}
        assert clients.slowest < ANSWER_WITHIN
        assert worker.process.poll() is None
    with capsys.disabled():
        sys.stdout.write(
            f"\nRedis master gone ({death.name}): {len(clients.accepted)} accepted, all succeeded; {clients.gap:.1f} s "
            f"without an accepted task, slowest answer {clients.slowest:.2f} s, {clients.refused} refused\n"
        )


def _answered(bench):
    try:
        return bench.store.ping()
    except StoreUnavailable:
        return False


# --- Cluster -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def masters():
    """A cluster of three masters."""
    with redises.cluster() as running:
        yield running


def test_a_task_goes_every_way_with_its_keys_on_three_masters(settings, masters):
    with _bench(settings, masters.url) as bench:
        assert store_check(bench.store)() is None

        with running_worker(bench.settings, abrupt=True):
            _one_of_each(bench)
            slow = bench.submit("echo", {"message": "x", "sleepSeconds": 1})
            assert _notified(bench, slow, lambda: None)
            tasks = [bench.submit("echo", {"message": "x"}) for _ in range(30)]
            states = {bench.finished(task_id).state for task_id in tasks}
            page = bench.store.list(principal="local", limit=20)
            more = bench.store.list(principal="local", limit=20, cursor=page.next)
        used = [len(keys) for keys in masters.keys(f"{settings.redis_prefix}task:*")]

    assert states == {State.SUCCEEDED}
    assert len(page.items) + len(more.items) == 33
    assert all(used)


def _batch(client, count, **options):
    """Accept tasks in one request; their ids."""
    items = [{"type": "echo", "payload": {"message": str(number)}, "options": options} for number in range(count)]
    answer = client.post("/v1/tasks/batch", json={"items": items})
    return [one["task"]["taskId"] for one in answer.json["items"]]


def _states(bench, task_ids):
    return {record.state for record in bench.store.get_many(task_ids)}


def test_lanes_batches_signals_jobs_and_pauses_with_keys_on_three_masters(settings, masters):
    changes = {"redis_url": SecretStr(masters.url), "lanes": parse_lanes("bulk=echo"), "delay_levels": 8}
    own = settings.model_copy(update=changes)
    provision.apply(topology.broker_map(own), own)
    with (
        open_bench(own) as bench,
        gateway(own) as client,
        running_worker(own, app=steps_client.APP, abrupt=True),
    ):
        now, later = _batch(client, 40), _batch(client, 30, delaySeconds=200)
        ran = {bench.finished(task_id, 40).state for task_id in now}
        waits = steps_client.send(bench, "wait.signals", steps=1, seconds=200)
        steps_client.waiting(bench, waits)
        signalled = client.post(f"/v1/tasks/{waits}/signals/go", json={"battery": 40})
        woken = bench.finished(waits)
        order = {"verb": "cancel", "filter": {"state": "DELAYED"}, "ratePerSecond": 1_000}
        job_id = client.post("/v1/jobs", json=order).json["jobId"]
        job = eventually(lambda: (one := client.get(f"/v1/jobs/{job_id}").json)["state"] == "done" and one, 40)
        client.put("/v1/pauses/type:echo", json={"reason": "a test"})
        time.sleep(2 * READ_INTERVAL)  # no worker holds before it has read that
        paused = _batch(client, 60)
        eventually(lambda: _states(bench, paused) == {State.HELD}, 40, "all are held")
        client.delete("/v1/pauses/type:echo")
        resumed = {bench.finished(task_id, 40).state for task_id in paused}
        cancelled = _states(bench, later)
        runs = {bench.hops(task_id).count("succeeded") for task_id in (*now, *paused)}

    assert (ran, resumed, cancelled, runs) == ({State.SUCCEEDED}, {State.SUCCEEDED}, {State.CANCELLED}, {1})
    assert (signalled.status_code, woken.result["signals"]) == (202, [["go", {"battery": 40}]])
    assert (job["matched"], job["done"], job["failed"]) == (30, 30, 0)


def test_concurrency_keys_and_rates_lie_in_slots_of_their_own(settings, masters, tmp_path):
    log = tmp_path / "runs.txt"
    with (
        _bench(settings.model_copy(update={"hold_ttl": 600.0}), masters.url) as bench,
        running_worker(bench.settings, app=limited_client.APP, abrupt=True),
    ):
        ids = [limited_client.send(bench, "limited.both", log, key=f"r{number % 3}") for number in range(12)]
        states = {bench.finished(task_id, 60).state for task_id in ids}
        held = sum("held" in bench.hops(task_id) for task_id in ids)

    assert states == {State.SUCCEEDED}
    assert held
    assert limited_client.most_at_once(log) <= 3


def test_masters_that_lost_their_scripts_or_restarted_go_on(settings, masters):
    with _bench(settings, masters.url) as bench, running_worker(bench.settings, abrupt=True) as worker:
        before = [bench.submit("echo", {"message": "x", "sleepSeconds": 0.2}) for _ in range(20)]
        for server in masters.servers:
            with server.client() as client:
                client.script_flush()
        masters.servers[1].kill()
        masters.servers[1].start()
        eventually(masters.whole, 20, "the cluster is whole again")
        eventually(lambda: _answered(bench), 20, "the cluster answers")
        after = eventually(lambda: _submitted(bench), 20, "tasks are accepted")
        states = {bench.finished(task_id, 40).state for task_id in [*before, after]}

        assert worker.process.poll() is None
    assert states == {State.SUCCEEDED}


def _submitted(bench):
    try:
        return bench.submit("echo", {"message": "x"})
    except DispatchError:
        return None


def test_a_silent_cluster_is_an_error_in_bounded_time(settings, masters):
    with _bench(settings, masters.url) as bench:
        assert bench.store.ping().noeviction

        for server in masters.servers:
            server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                bench.submit("echo", {"message": "x"})
            took = time.monotonic() - began
        finally:
            for server in masters.servers:
                server.signal(signal.SIGCONT)
        eventually(lambda: _answered(bench), 20, "the cluster answers again")

    assert took < ANSWER_WITHIN / 2
