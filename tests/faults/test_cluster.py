"""P1, P3: a cluster of three RabbitMQ nodes loses the leader of the work queue under load."""

import collections
import dataclasses
import itertools
import sys
import threading
import time
import uuid

import pytest
from pydantic import SecretStr

from dispatch.errors import DispatchError
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.cluster import running_cluster
from support.waiting import eventually
from support.worker import open_bench, running_worker

#: Clients that submit side by side, and tasks accepted before and after the kill.
CLIENTS, BEFORE, AFTER = 3, 60, 60


@pytest.fixture(scope="module")
def cluster():
    """Three nodes on this machine."""
    with running_cluster() as running:
        yield running


@pytest.fixture
def bench(cluster, settings):
    """TaskStore, publisher and submitter on the cluster's three URLs."""
    changes = {
        "broker_url": SecretStr(cluster.broker_url),
        "management_url": SecretStr(cluster.management_url),
    }
    with open_bench(settings.model_copy(update=changes)) as made:
        eventually(lambda: cluster.online(names.WORK_QUEUE) == 3, 20, "the work queue has three members")
        yield made


@dataclasses.dataclass
class Load:
    """Clients that submit until stopped, and repeat what was refused with the same Idempotency-Key.

    Beside them one that drops what was refused: a key whose first request was cut off has to wait, a new one has not.
    """

    bench: object
    accepted: list = dataclasses.field(default_factory=list)  #: task ids
    moments: list = dataclasses.field(default_factory=list)  #: when each was accepted
    refusals: collections.Counter = dataclasses.field(default_factory=collections.Counter)  #: by reason

    def __post_init__(self):
        self._stop = threading.Event()
        self._hopeless = threading.Event()  #: the test has failed
        work = [self._client] * CLIENTS + [self._impatient]
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, failed, *_):
        if failed:
            self._hopeless.set()
        self.stop()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def reach(self, count):
        enough = f"{count} are accepted; refused: "
        eventually(lambda: len(self.accepted) >= count, 40, lambda: enough + str(self.refusals.most_common(5)))

    def longest_pause(self):
        """Seconds between two accepted tasks at most."""
        moments = sorted(self.moments)
        return max(after - before for before, after in itertools.pairwise(moments))

    def _client(self):
        while not self._stop.is_set():
            key = str(uuid.uuid4())
            while not (self._submit(key) or self._hopeless.is_set()):
                continue

    def _impatient(self):
        while not self._stop.is_set():
            self._submit(None)

    def _submit(self, key):
        try:
            task_id = self.bench.submit("echo", {"message": "x"}, key=key)
        except DispatchError as exc:
            self.refusals[f"{type(exc).__name__}: {exc}"] += 1
            self._hopeless.wait(0.05)
            return False
        self.accepted.append(task_id)
        self.moments.append(time.monotonic())
        return True


def _longest_silence(records):
    """Seconds between two finished tasks at most."""
    moments = sorted(record.finished_at for record in records)
    return max(after - before for before, after in itertools.pairwise(moments)) / 1_000


def test_the_leader_of_the_work_queue_is_killed_under_load_and_nothing_is_lost(bench, cluster, capsys):
    with running_worker(bench.settings) as worker, Load(bench) as load:
        load.reach(BEFORE)
        leader = cluster.leader(names.WORK_QUEUE)
        leader.kill()
        load.reach(len(load.accepted) + AFTER)
        load.stop()
        records = [bench.finished(task_id, 40) for task_id in load.accepted]
        bench.drained(timeout=30)

        assert worker.process.poll() is None
        assert {record.state for record in records} == {State.SUCCEEDED}
        assert {bench.hops(record.task_id).count("succeeded") for record in records} == {1}

        leader.start()
        eventually(cluster.whole, 60, "the node is back")
        eventually(lambda: cluster.online(names.WORK_QUEUE) == 3, 30, "and takes part again")
        later = bench.finished(bench.submit("echo", {"message": "later"}))

    assert later.state is State.SUCCEEDED
    assert bench.depth(names.DEAD_QUEUE) == 0
    with capsys.disabled():
        sys.stdout.write(
            f"\nRabbitMQ {cluster.version()}: leader {leader.node.name} killed; {len(records)} accepted, 0 lost; "
            f"longest pause {load.longest_pause():.2f} s between two accepted tasks, "
            f"{_longest_silence(records):.2f} s between two finished ones; {load.refusals.total()} refusals\n"
        )


@pytest.mark.timeout(300)  # RabbitMQ tries a dead-lettering that was refused again after 30 s each
def test_the_leader_of_a_delay_level_is_killed_and_every_delayed_task_runs_once_in_its_time(bench, cluster):
    with running_worker(bench.settings, abrupt=True):
        tasks = [bench.submit("echo", {"message": "x"}, delay=3 + number % 10) for number in range(120)]
        wakes = {task_id: bench.store.get(task_id).wakes_at for task_id in tasks}
        leader = cluster.leader(names.delay_queue(1))
        leader.kill()
        records = [bench.finished(task_id, 60) for task_id in tasks]
        leader.start()
        eventually(cluster.whole, 60, "the node is back")
        bench.drained(timeout=30)

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert all(record.started_at >= wakes[record.task_id] for record in records)
    assert {bench.hops(task_id).count("succeeded") for task_id in tasks} == {1}
    assert bench.depth(names.DEAD_QUEUE) == 0
