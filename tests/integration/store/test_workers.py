"""``/v1/workers``: the workers with a recent heartbeat."""

import pytest

from dispatch.store.scripts import RedisHandle
from dispatch.store.workers import WorkerInfo, WorkerRegistry
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import running_worker

ENTRY = WorkerInfo("w@a", "a", 7, "0.1.0", 2, 1, 3, {"echo": 5}, started_at=1_795_500_000_000)


@pytest.fixture
def vhost(created_vhost):
    """A worker runs here."""
    return created_vhost


@pytest.fixture
def redis(settings):
    made = RedisHandle(settings, timeout=2.0)
    yield made
    made.close()


@pytest.fixture
def registry(redis):
    return WorkerRegistry(redis)


def test_a_worker_is_listed_with_what_it_does_until_it_stops(settings):
    with gateway(settings) as client:

        def workers():
            return client.get("/v1/workers").get_json()["items"]

        assert workers() == []
        with running_worker(settings) as worker:
            eventually(workers, 10, "the worker is listed")
            for _ in range(3):
                assert client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}}).status_code == 202
            found = eventually(lambda: (all_ := workers()) and all_[0]["done"] == {"echo": 3} and all_[0], 20, workers)
        gone = eventually(lambda: workers() == [], 10, "it has left")

    assert (found["pid"], found["active"], found["reserved"]) == (worker.process.pid, 0, 0)
    assert settings.concurrency_min <= found["processes"] <= settings.concurrency_max
    assert found["seenAt"] >= found["startedAt"]
    assert gone


def test_a_silent_worker_and_one_of_another_release_are_not_listed(registry, redis):
    key = redis.keys.workers
    registry.beat(ENTRY)
    redis.run(("HSET", key, "other", '{"seenAt":9999999999999,"name":"other"}'))
    redis.run(("HSET", key, "broken", "nonsense"))
    listed = registry.present()
    silent = '{"seenAt":1,"name":"old","host":"a","pid":1,"version":"0","processes":1,"active":0,"reserved":0,"done":{},"started_at":1}'
    redis.run(("HSET", key, "old", silent))

    assert [entry.name for entry in listed] == ["w@a"]
    assert [entry.name for entry in registry.present()] == ["w@a"]
    registry.beat(ENTRY)  # which also removes silent workers
    assert "old" not in dict.fromkeys(redis.run(("HKEYS", key))[0])
    registry.leave("w@a")
    assert registry.present() == []
