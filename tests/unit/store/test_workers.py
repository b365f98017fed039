"""The registry of workers: heartbeats of this release and of others, and silent workers."""

import dataclasses
import json

from dispatch.store.workers import GONE, WorkerInfo, WorkerRegistry
from support.cases import each
from support.unit_fakes import FakeRedis

WORKER = WorkerInfo("w@one", "one", 7, "1.0", 2, 1, 3, {"echo": 5}, 1_000)
NOW = 1_000_000


def heartbeat(seen_at=NOW * 1_000, **changes):
    fields = {name: value for name, value in dataclasses.asdict(WORKER).items() if name != "seen_at"}
    return json.dumps({"seenAt": seen_at, **fields, **changes})


def present(*heartbeats, resp3=False):
    found = {str(number): text for number, text in enumerate(heartbeats)}
    raw = found if resp3 else [part for pair in found.items() for part in pair]
    return WorkerRegistry(FakeRedis(TIME=[["1000000", "0"]], HGETALL=[raw])).present()


def test_a_heartbeat_is_an_object_that_the_script_can_continue():
    redis = FakeRedis()
    WorkerRegistry(redis).beat(WORKER)
    name, keys, worker, info, forget_after = redis.commands[0]

    assert (name, keys, worker, forget_after) == ("heartbeat", ("robot:workers",), "w@one", GONE * 4_000)
    assert info.startswith("{")
    assert "seen_at" not in json.loads(info)


def test_a_worker_that_leaves_has_no_info():
    redis = FakeRedis()
    WorkerRegistry(redis).leave("w@one")

    assert redis.commands[0][2:4] == ("w@one", "")


@each("resp3", [True, False])
def test_workers_are_listed_by_name(resp3):
    found = present(heartbeat(name="b"), heartbeat(name="a"), resp3=resp3)

    assert [worker.name for worker in found] == ["a", "b"]
    assert found[0] == dataclasses.replace(WORKER, name="a", seen_at=NOW * 1_000)


def test_a_silent_worker_is_not_listed():
    last, gone = NOW * 1_000 - int(GONE * 1_000), NOW * 1_000 - int(GONE * 1_000) - 1

    assert [worker.seen_at for worker in present(heartbeat(last), heartbeat(gone))] == [last]


def test_a_heartbeat_of_a_later_release_is_read_as_far_as_it_is_known():
    assert len(present(heartbeat(mood="good"))) == 1


@each("text", ["", "{", "[]", "7", '{"name": "x"}', '{"seenAt": 1}'])
def test_what_is_no_heartbeat_is_left_out(text):
    assert present(text) == []


def test_a_worker_as_the_api_shows_it():
    assert dataclasses.replace(WORKER, seen_at=2_000).to_json() == {
        "name": "w@one", "host": "one", "pid": 7, "version": "1.0", "processes": 2, "active": 1, "reserved": 3,
        "done": {"echo": 5}, "startedAt": "1970-01-01T00:00:01.000Z", "seenAt": "1970-01-01T00:00:02.000Z",
    }  # fmt: skip
