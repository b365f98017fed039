"""``/v1/workers``: who is there, by their own signs of life."""

import pytest

from dispatch.store.keys import roster_key
from dispatch.store.scripts import Scripts
from dispatch.store.workers import WorkerInfo, WorkerRegistry
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import running_worker

ENTRY = WorkerInfo("w@a", "a", 7, "0.1.0", 2, 1, 3, {"echo": 5}, started_at=1_795_500_000_000)


@pytest.fixture
def roster(settings):
    made = WorkerRegistry(settings, timeout=2.0)
    yield made
    made.close()


def test_a_worker_is_listed_with_what_it_does_until_it_stops(settings):
    with gateway(settings) as client:

        def workers():
            return client.get("/v1/workers").get_json()["items"]

        assert workers() == []
        with running_worker(settings) as worker:
            eventually(workers, 10, "the worker says that it is there")
            for _ in range(3):
                assert client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}}).status_code == 202
            found = eventually(lambda: (all_ := workers()) and all_[0]["done"] == {"echo": 3} and all_[0], 20, workers)
        gone = eventually(lambda: workers() == [], 10, "it has left")

    assert (found["pid"], found["active"], found["reserved"]) == (worker.process.pid, 0, 0)
    assert settings.concurrency_min <= found["processes"] <= settings.concurrency_max
    assert found["seenAt"] >= found["startedAt"]
    assert gone


def test_what_fell_silent_and_what_another_release_wrote_is_not_listed(roster, settings):
    redis = Scripts(settings, timeout=2.0, names=())
    key = roster_key(settings.redis_prefix)
    roster.beat(ENTRY)
    redis.run(("HSET", key, "other", '{"seenAt":9999999999999,"name":"other"}'))
    redis.run(("HSET", key, "broken", "nonsense"))
    listed = roster.present()
    silent = '{"seenAt":1,"name":"old","host":"a","pid":1,"version":"0","processes":1,"active":0,"reserved":0,"done":{},"started_at":1}'
    redis.run(("HSET", key, "old", silent))

    assert [entry.name for entry in listed] == ["w@a"]
    assert [entry.name for entry in roster.present()] == ["w@a"]
    roster.beat(ENTRY)  # which also forgets whoever is gone
    assert "old" not in dict.fromkeys(redis.run(("HKEYS", key))[0])
    roster.leave("w@a")
    assert roster.present() == []
    redis.close()
