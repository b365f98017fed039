"""P1, P3, P7 where Redis is more than one server: a master under Sentinels that dies, and a cluster of three masters."""

import contextlib
import signal
import sys
import threading
import time

import pytest
from pydantic import SecretStr

from dispatch.config.settings import ANSWER_WITHIN
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.gateway.admission.readiness import store_check
from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyState
from support import redises
from support.waiting import eventually
from support.worker import bench, running_worker


@contextlib.contextmanager
def _desk(settings, url):
    with bench(settings.model_copy(update={"redis_url": SecretStr(url)})) as made:
        yield made


def _one_of_each(desk):
    """A task that succeeds at the second attempt, and one that dies, is redriven and dies again."""
    climbs = desk.submit("echo", {"message": "x", "failTimes": 1}, key="climbs")
    dies = desk.submit("echo", {"message": "x", "permanent": True})
    climbed, died = desk.finished(climbs), desk.finished(dies)

    assert (climbed.state, climbed.attempt) == (State.SUCCEEDED, 2)
    assert died.state is State.DEAD_LETTERED
    assert [record.task_id for record in desk.stores.dead_letters.list().items] == [dies]

    letters = desk.stores.service(desk.publisher)
    letters.redrive(dies, by="me")
    eventually(lambda: desk.store.get(dies).cycle == 1 and desk.store.get(dies).is_dead_letter, 20, "it dies again")
    eventually(lambda: desk.depth(names.DEAD_QUEUE) == 1, 20, "the first letter goes")

    assert {record.task_id for record in desk.store.list(principal="local").items} == {climbs, dies}
    assert (
        desk.stores.idempotency.reserve("local", "climbs", str({"message": "x", "failTimes": 1}), "other").state
        is KeyState.REPLAY
    )
    assert desk.hops(climbs).count("succeeded") == 1
    return climbs


def _hears(desk, task_id, settle):
    """Whether a long poll returns with a change and not with the end of its time."""
    revision = desk.store.get(task_id).revision
    timer = threading.Timer(0.3, settle)
    timer.start()
    began = time.monotonic()
    record = desk.store.wait(task_id, revision, 8)
    timer.join()
    return record.revision > revision and time.monotonic() - began < 6


# --- Sentinel ------------------------------------------------------------------------------------
def test_a_task_goes_every_way_with_a_master_that_sentinels_name(settings):
    with redises.sentinels() as watched, _desk(settings, watched.url) as desk:
        assert store_check(desk.store)() is None

        with running_worker(desk.settings, abrupt=True):
            _one_of_each(desk)
            slow = desk.submit("echo", {"message": "x", "sleepSeconds": 1})
            assert _hears(desk, slow, lambda: None)


class _Clients:
    """Submits until told to stop; how long each answer took."""

    def __init__(self, desk):
        self.accepted, self.refused, self.slowest, self.gap = [], 0, 0.0, 0.0
        self._desk, self._stop = desk, threading.Event()
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
                self.accepted.append(self._desk.submit("echo", {"message": "x"}))
            except DispatchError:
                self.refused += 1
            else:
                self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()
            self.slowest = max(self.slowest, time.monotonic() - began)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_the_master_dies_and_tasks_carry_on_with_its_replica(settings, death, capsys):
    with (
        redises.sentinels() as watched,
        _desk(settings, watched.url) as desk,
        running_worker(desk.settings, abrupt=True) as worker,
        _Clients(desk) as clients,
    ):
        clients.reach(40, 30)
        old = watched.master()
        old.signal(death)
        clients.reach(len(clients.accepted) + 40, 60)
        clients.stop()
        new = watched.master()
        eventually(lambda: _answered(desk), 20, "Redis answers")
        states = {desk.finished(task_id, 40).state for task_id in clients.accepted}

        assert new is not old
        assert states == {State.SUCCEEDED}
        assert clients.slowest < ANSWER_WITHIN
        assert worker.process.poll() is None
    with capsys.disabled():
        sys.stdout.write(
            f"\nRedis master gone ({death.name}): {len(clients.accepted)} accepted, all succeeded; {clients.gap:.1f} s "
            f"without an accepted task, slowest answer {clients.slowest:.2f} s, {clients.refused} refused\n"
        )


def _answered(desk):
    try:
        return desk.store.ping()
    except StoreUnavailable:
        return False


# --- Cluster -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def masters():
    """A cluster of three masters."""
    with redises.cluster() as running:
        yield running


def test_a_task_goes_every_way_with_its_keys_on_three_masters(settings, masters):
    with _desk(settings, masters.url) as desk:
        assert store_check(desk.store)() is None

        with running_worker(desk.settings, abrupt=True):
            _one_of_each(desk)
            slow = desk.submit("echo", {"message": "x", "sleepSeconds": 1})
            assert _hears(desk, slow, lambda: None)
            tasks = [desk.submit("echo", {"message": "x"}) for _ in range(30)]
            states = {desk.finished(task_id).state for task_id in tasks}
            page = desk.store.list(principal="local", limit=20)
            more = desk.store.list(principal="local", limit=20, cursor=page.next)
        used = [len(keys) for keys in masters.keys(f"{settings.redis_prefix}task:*")]

    assert states == {State.SUCCEEDED}
    assert len(page.items) + len(more.items) == 33
    assert all(used)


def test_masters_that_lost_their_scripts_or_restarted_go_on(settings, masters):
    with _desk(settings, masters.url) as desk, running_worker(desk.settings, abrupt=True) as worker:
        before = [desk.submit("echo", {"message": "x", "sleepSeconds": 0.2}) for _ in range(20)]
        for server in masters.servers:
            with server.client() as client:
                client.script_flush()
        masters.servers[1].kill()
        masters.servers[1].start()
        eventually(masters.whole, 20, "the cluster is whole again")
        eventually(lambda: _answered(desk), 20, "the cluster answers")
        after = eventually(lambda: _submitted(desk), 20, "tasks are accepted")
        states = {desk.finished(task_id, 40).state for task_id in [*before, after]}

        assert worker.process.poll() is None
    assert states == {State.SUCCEEDED}


def _submitted(desk):
    try:
        return desk.submit("echo", {"message": "x"})
    except DispatchError:
        return None


def test_a_silent_cluster_is_an_error_in_bounded_time(settings, masters):
    with _desk(settings, masters.url) as desk:
        assert desk.store.ping().noeviction

        for server in masters.servers:
            server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                desk.submit("echo", {"message": "x"})
            took = time.monotonic() - began
        finally:
            for server in masters.servers:
                server.signal(signal.SIGCONT)
        eventually(lambda: _answered(desk), 20, "the cluster answers again")

    assert took < ANSWER_WITHIN / 2
