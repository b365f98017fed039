"""Accepting a task: what is written in which order, and what is freed when it never runs."""

import json

from dispatch.config.settings import load
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.tasks import TaskStore
from support.cases import each
from support.unit_fakes import FakeRedis, task_message

SETTINGS = load({})
RECORD = ("robot:task:{t-1}", "robot:claim:{t-1}", "robot:hops:{t-1}")
ACCEPTED = 1_700_000_000_000
KEY = ("robot:idem:ada:k",)
ERROR = ErrorInfo("queue-full", "it is full", retryable=True)


def store(**answers):
    redis = FakeRedis(**answers)
    return TaskStore(redis, SETTINGS), redis


def test_the_reminder_comes_before_the_record_and_the_indexes_after_it():
    made, redis = store(accept="SCHEDULED")
    state = made.accept(task_message(), max_attempts=4, idempotency_key="k")
    reminder, script, *indexes = redis.trips[0]
    seed = json.loads(script[2])

    assert state is State.SCHEDULED
    assert reminder == ("ZADD", "robot:due", ACCEPTED / 1_000 + SETTINGS.unpublished_grace, "t-1")
    assert (script[:2], seed["key"], seed["maxAttempts"]) == (("accept", RECORD), "k", 4)
    assert indexes[:3] == [
        ("ZADD", name, ACCEPTED, "t-1") for name in ("robot:index:ada", "robot:index", "robot:waiting")
    ]


def test_entries_of_expired_records_leave_the_indexes():
    made, redis = store(accept="SCHEDULED")
    made.accept(task_message(), max_attempts=4, idempotency_key=None)
    expired = ACCEPTED - int(SETTINGS.idempotency_ttl * 1_000)

    assert redis.trips[0][5:] == (
        ("ZREMRANGEBYSCORE", "robot:index:ada", "-inf", expired),
        ("ZREMRANGEBYSCORE", "robot:index", "-inf", expired),
    )


def test_a_repeated_request_finds_the_state_of_the_first():
    made, _ = store(accept="RUNNING")

    assert made.accept(task_message(), max_attempts=4, idempotency_key="k") is State.RUNNING


@each(("answer", "published"), [("OK", True), ("REJECTED", False)])
def test_a_confirmed_message_is_published_unless_it_was_rejected_meanwhile(answer, published):
    made, redis = store(mark_published=answer)
    done = made.mark_published(task_message(), queue="q", max_attempts=4, idempotency_key="k", confirmMs=3)
    script, confirmed = redis.trips[0]

    assert done is published
    assert script[:3] == ("mark_published", RECORD, "q")
    assert json.loads(script[3]) == {"kind": "published", "confirmMs": 3}
    assert confirmed == ("confirm_idempotency_key", KEY, "t-1")


def test_without_an_idempotency_key_none_is_confirmed():
    made, redis = store()
    made.mark_published(task_message(), queue="q", max_attempts=4, idempotency_key=None)

    assert redis.names() == [["mark_published"]]


@each(
    ("answer", "rejected", "trips"),
    [
        ("OK", True, [["reject", "ZREM"], ["release_idempotency_key"]]),
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


def test_hops_have_times_that_people_read_and_the_end_of_a_wait():
    lines = ['{"seq":1,"at":0,"kind":"accepted"}', '{"seq":2,"at":1000,"kind":"delayed","seconds":60}']
    made, _ = store(LRANGE=[lines])

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

    assert made.ping().noeviction is keeps


def test_no_record_is_read_without_ids():
    made, redis = store()

    assert made.get_many([]) == []
    assert redis.trips == []
