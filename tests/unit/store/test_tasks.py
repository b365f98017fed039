"""Accepting a task: what is written in which order, and what is freed when it never runs."""

import json

import pytest

from dispatch.config.settings import load
from dispatch.errors import StoreFull
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.tasks import StoreHealth, TaskStore
from support.cases import each
from support.unit_fakes import Failing, FakeRedis, task_message

SETTINGS = load({})
RECORD = ("robot:task:{t-1}", "robot:claim:{t-1}", "robot:hops:{t-1}", "robot:message:{t-1}")
ACCEPTED = 1_700_000_000_000
KEY = ("robot:idem:ada:k",)
ERROR = ErrorInfo("queue-full", "it is full", retryable=True)


def store(*, clustered=False, **answers):
    redis = FakeRedis(**answers)
    redis.clustered = clustered
    return TaskStore(redis, SETTINGS), redis


LISTS = ("robot:index:ada", "robot:index", "robot:waiting")
REMINDER = ACCEPTED / 1_000 + SETTINGS.unpublished_grace


def test_the_record_comes_with_its_reminder_and_its_entries():
    made, redis = store(accept=[["SCHEDULED", 1, 0, 424]] * 2)
    state = made.accept(task_message(), max_attempts=4, idempotency_key="k")
    script = redis.trips[0][0]
    hop, message, *times_and_words = script[2:]
    words = times_and_words[2:]
    fields = dict(zip(words[::2], words[1::2], strict=True))

    assert state is State.SCHEDULED
    assert script[:2] == ("accept", (*RECORD, "robot:due", *LISTS, "robot:usage:ada"))
    assert times_and_words[:2] == [REMINDER, ACCEPTED]
    assert (fields["key"], fields["maxAttempts"], fields["createdAt"]) == ("k", 4, ACCEPTED)
    assert json.loads(hop)["kind"] == "accepted"
    assert message == task_message().to_json()


def test_in_a_cluster_the_reminder_comes_before_the_record_and_the_indexes_after_it():
    made, redis = store(clustered=True, accept=[["SCHEDULED", 1, 0, 424]] * 2)
    made.accept(task_message(), max_attempts=4, idempotency_key="k")
    reminder, script, counted, *entries = redis.trips[0]

    assert reminder == ("ZADD", "robot:due", REMINDER, "t-1")
    assert script[:2] == ("accept", RECORD)
    assert counted == ("use", ("robot:usage:ada",), "t-1", "open", len(script[3]))
    assert entries[:3] == [("ZADD", name, ACCEPTED, "t-1") for name in LISTS]


def test_entries_of_expired_records_leave_the_indexes_now_and_then():
    made, redis = store(accept=[["SCHEDULED", 1, 0, 424]] * 2)
    for _ in range(2):
        made.accept(task_message(), max_attempts=4, idempotency_key=None)
    expired = ACCEPTED - int(SETTINGS.idempotency_ttl * 1_000)

    assert redis.trips[0][1:] == (
        ("ZREMRANGEBYSCORE", "robot:index:ada", "-inf", expired),
        ("ZREMRANGEBYSCORE", "robot:index", "-inf", expired),
    )
    assert redis.trips[1][1:] == ()


def test_what_a_full_redis_took_in_part_is_rejected_and_its_key_freed():
    made, redis = store(reject="OK")
    run = redis.run
    redis.run = lambda *commands: run(*commands) if commands[0][0] != "accept" else Failing(StoreFull())()
    with pytest.raises(StoreFull):
        made.accept(task_message(), max_attempts=4, idempotency_key="k")

    assert redis.names() == [["reject", "ZREM"], ["use", "ZREM", "ZREM"], ["release_idempotency_key"]]


def test_a_repeated_request_finds_the_state_of_the_first():
    made, _ = store(accept=[["RUNNING"]])

    assert made.accept(task_message(), max_attempts=4, idempotency_key="k") is State.RUNNING


@each(("answer", "published"), [("OK", True), ("REJECTED", False)])
def test_a_confirmed_message_is_published_unless_it_was_rejected_meanwhile(answer, published):
    made, redis = store(mark_published=answer)
    done = made.mark_published(task_message(), queue="q", max_attempts=4, idempotency_key="k", confirmMs=3)
    script, confirmed = redis.trips[0]

    assert done is published
    assert script[:4] == ("mark_published", (*RECORD, "robot:due"), "q", "QUEUED")
    assert json.loads(script[4]) == {"kind": "published", "confirmMs": 3}
    assert script[5] == SETTINGS.queue_ttl
    assert confirmed == ("confirm_idempotency_key", KEY, "t-1")


def test_without_an_idempotency_key_none_is_confirmed():
    made, redis = store()
    made.mark_published(task_message(), queue="q", max_attempts=4, idempotency_key=None)

    assert redis.names() == [["mark_published"]]


@each(
    ("answer", "rejected", "trips"),
    [
        ("OK", True, [["reject", "ZREM"], ["use"], ["release_idempotency_key"]]),
        ("CLAIMED", False, [["reject", "ZREM"]]),
        ("YOUNG", False, [["reject", "ZREM"]]),
    ],
)
def test_the_idempotency_key_of_a_rejected_task_is_freed(answer, rejected, trips):
    made, redis = store(reject=answer)
    done = made.reject(task_message(), error=ERROR, idempotency_key="k", silent_for=1.5)

    assert (done, redis.names()) == (rejected, trips)
    assert redis.commands[0][2:5] == ("queue-full", "it is full", 86_400_000)
    assert redis.commands[0][6] == 1_500


@each(("stored_nowhere", "ttl"), [(True, SETTINGS.unpublished_grace), (False, SETTINGS.result_ttl)])
def test_a_refused_task_is_in_no_list_and_its_record_stays_for_as_long_as_a_copy_may_come(stored_nowhere, ttl):
    made, redis = store(reject="OK")
    done = made.refuse(task_message(), error=ERROR, idempotency_key="k", stored_nowhere=stored_nowhere)

    assert done is True
    assert (redis.commands[0][4], redis.commands[0][6]) == (ttl * 1_000, 0)
    assert redis.names() == [["reject", "ZREM"], ["use", "ZREM", "ZREM"], ["release_idempotency_key"]]
    assert redis.trips[1][1:] == (("ZREM", "robot:index:ada", "t-1"), ("ZREM", "robot:index", "t-1"))


def test_what_a_worker_has_claimed_is_not_refused():
    made, redis = store(reject="CLAIMED")

    assert not made.refuse(task_message(), error=ERROR, idempotency_key="k", stored_nowhere=True)
    assert redis.names() == [["reject", "ZREM"]]


def test_hops_have_times_that_people_read_and_the_end_of_a_wait():
    lines = ['{"seq":1,"at":0,"kind":"accepted"}', '{"seq":2,"at":1000,"kind":"delayed","seconds":60}']
    made, _ = store(LRANGE=[lines], HMGET=[["echo", None, None, None]])

    assert made.hops("t-1") == [
        {"seq": 1, "at": "1970-01-01T00:00:00.000Z", "kind": "accepted"},
        {
            "seq": 2,
            "at": "1970-01-01T00:00:01.000Z",
            "kind": "delayed",
            "seconds": 60,
            "until": "1970-01-01T00:01:01.000Z",
        },
    ]


@each(
    ("nodes", "keeps"),
    [
        ([{"maxmemory_policy": "noeviction", "maxmemory": 100}], True),
        ([{"maxmemory_policy": "allkeys-lru", "maxmemory": 0}], True),
        ([{"maxmemory_policy": "allkeys-lru", "maxmemory": 100}], False),
        ([{"maxmemory_policy": "noeviction"}, {"maxmemory_policy": "volatile-ttl", "maxmemory": "100"}], False),
    ],
)
def test_a_redis_that_may_drop_records_is_noticed_on_each_node(nodes, keeps):
    made, redis = store()
    redis.memory = lambda: nodes

    assert made.ping() == StoreHealth(noeviction=keeps)


@each(
    ("nodes", "error", "full"),
    [
        ([{"maxmemory": 0, "used_memory": 200}], None, False),
        ([{"maxmemory": 300, "used_memory": 200}], None, False),
        ([{"maxmemory": 300, "used_memory": 200}, {"maxmemory": 200, "used_memory": 200}], None, True),
        ([{"maxmemory": 300, "used_memory": 200}], StoreFull(), True),
    ],
)
def test_a_redis_is_full_when_a_node_reports_it_or_refuses_a_write(nodes, error, full):
    made, redis = store()
    redis.memory, redis.failure = lambda: nodes, error

    assert made.ping().full is full


def test_no_record_is_read_without_ids():
    made, redis = store()

    assert made.get_many([]) == []
    assert redis.trips == []
