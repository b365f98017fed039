"""A worker's heartbeats: what it is now, and its leaving at the end."""

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.maintenance.presence import BEAT, Heartbeat
from dispatch.store.workers import GONE, WorkerInfo
from support.waiting import eventually


class FakeRegistry:
    """Keeps the heartbeats."""

    def __init__(self):
        self.beats, self.left, self.failure = [], [], None

    def beat(self, worker):
        self.beats.append(worker)

    def leave(self, name):
        self.left.append(name)
        if self.failure:
            raise self.failure


class Inspection:
    """A worker whose number of active tasks rises with each look."""

    def __init__(self):
        self.active = 0

    def __call__(self):
        self.active += 1
        return WorkerInfo("w@test", "host", 7, "1.0", 2, self.active, 0, {}, 0)


@pytest.fixture
def registry():
    return FakeRegistry()


@pytest.fixture
def heartbeat(registry):
    return Heartbeat(registry, Inspection())


def test_each_heartbeat_is_the_worker_as_it_is_now(heartbeat, registry):
    heartbeat.step()
    heartbeat.step()

    assert [worker.active for worker in registry.beats] == [2, 3]


def test_several_heartbeats_may_be_missed_before_a_worker_counts_as_gone():
    assert BEAT * 3 < GONE


def test_a_worker_that_stops_leaves(heartbeat, registry):
    heartbeat.start()
    eventually(lambda: registry.beats)
    heartbeat.stop(wait=5)

    assert registry.left == ["w@test"]


def test_a_worker_may_leave_without_redis(heartbeat, registry):
    registry.failure = StoreUnavailable()
    heartbeat.finish()

    assert registry.left == ["w@test"]
