"""A principal's share of requests, counted in Redis for all gateway processes."""

import contextlib
import time

import pytest

from dispatch.gateway.admission.quota import OWN, Counting, Quota
from dispatch.gateway.http.problems import Problem
from dispatch.protocol.dead_letters import Reason
from dispatch.store.scripts import RedisHandle
from support.gateway_live import gateway
from support.proxy import DOWN, Proxy
from support.stores import Stores
from support.waiting import eventually


@pytest.fixture
def limited(settings):
    return settings.model_copy(update={"rate_limit": 10, "rate_window": 20.0})


@pytest.fixture
def quotas(limited):
    """Of two gateway processes."""
    return [Quota(RedisHandle(limited, timeout=1.0), limited) for _ in range(2)]


def test_a_share_is_used_up_by_all_processes_together_and_comes_back(quotas):
    left = [quotas[number % 2].spend("ada")["RateLimit"].split(";")[1] for number in range(10)]
    with pytest.raises(Problem) as refused:
        quotas[0].spend("ada")

    assert left[0] == "r=9"
    assert left[-1] in {"r=0", "r=1"}  # two seconds bring one back
    assert refused.value.kind.slug == "quota-exceeded"
    assert refused.value.headers["Retry-After"] in {"1", "2"}
    assert quotas[1].spend("bob")["RateLimit-Policy"] == '"principal";q=10;w=20'
    assert eventually(lambda: _spent(quotas[1], "ada"), 10, "two seconds later there is room for one more")


def _spent(quota, principal):
    try:
        return quota.spend(principal)
    except Problem:
        return None


def test_without_a_limit_nothing_is_counted(settings):
    unlimited = settings.model_copy(update={"rate_limit": 0})

    assert Quota(RedisHandle(unlimited, timeout=1.0), unlimited).spend("ada") == {}


def test_without_redis_no_request_is_refused(limited):
    with Proxy.to(limited.redis_url.get_secret_value()) as proxy:
        silent = limited.model_copy(update={"redis_url": type(limited.redis_url)(proxy.url)})
        redis = RedisHandle(silent, timeout=silent.store_timeout)
        quota = Quota(redis, silent)
        assert quota.spend("ada")
        proxy.hold(DOWN)
        began = time.monotonic()
        answers = [quota.spend("ada") for _ in range(30)]
        took = time.monotonic() - began
        redis.close()

    assert answers == [{}] * 30
    assert took < 4  # the breaker fails the others at once


def test_what_a_principal_holds_is_bounded_and_named_and_a_repeat_is_still_answered(settings):
    few = settings.model_copy(update={"quota_open_tasks": 2, "quota_stored_bytes": 6_000, "quota_dead_letters": 1})
    task = {"type": "echo", "payload": {"message": "x"}}
    large = {"type": "echo", "payload": {"message": "x" * 6_000}}
    with gateway(few) as http, contextlib.closing(Stores(few)) as stores:

        def submit(body, key):
            return http.post("/v1/tasks", json=body, headers={"Idempotency-Key": key})

        first, second, third, repeat = (submit(task, key) for key in ("a", "b", "c", "b"))
        for answer in (first, second):
            message = stores.tasks.whole(answer.json["taskId"]).message
            assert stores.tasks.usage.read("local").open
            stores.dead_letters.record(message, reason=Reason.PERMANENT, max_attempts=4)
        dead = submit(task, "d")
        for answer in (first, second):
            stores.dead_letters.discard(answer.json["taskId"], by="op")
        accepted, heavy = submit(large, "e"), submit(task, "f")

    assert [answer.status_code for answer in (first, second, third, repeat)] == [202, 202, 429, 202]
    assert repeat.json["taskId"] == second.json["taskId"]
    assert [answer.json["quota"] for answer in (third, dead, heavy)] == ["open-tasks", "dead-letters", "stored-bytes"]
    assert (third.json["type"], third.json["limit"], third.json["used"]) == ("/problems/quota-exceeded", 2, 2)
    assert accepted.status_code == 202
    assert '"open-tasks";q=2' in first.headers["RateLimit-Policy"]
    assert '"principal";q=30000;w=60' in first.headers["RateLimit-Policy"]
    assert '"open-tasks";r=0' in third.headers["RateLimit"]


TASK = {"type": "echo", "payload": {"message": "x"}}


def left(answer):
    """Requests that are left by the header."""
    return int(answer.headers["RateLimit"].split(";r=")[1].split(";")[0])


def test_every_request_counts_once_whether_it_is_carried_out_or_refused(settings):
    """Far from the quota, and near it; a submission, a read, and what is refused before it comes to Redis."""
    for most in (5_000, 100):  # none comes back for 17 seconds
        with gateway(settings.model_copy(update={"rate_limit": most, "rate_window": 86_400.0})) as http:
            first = http.post("/v1/tasks", json=TASK)
            path = first.json["statusUrl"]
            answers = [
                http.post("/v1/tasks", json=TASK),
                http.post("/v1/tasks", json=TASK, headers={"Idempotency-Key": f"a{most}"}),
                http.post("/v1/tasks", json=TASK, headers={"Idempotency-Key": f"a{most}"}),
                http.post("/v1/tasks", json={}),
                http.post("/v1/tasks", data="{"),
                http.get(path),
                http.get(path, headers={"If-None-Match": "*"}),
                http.get(path, headers={"Prefer": "wait=0"}),
                http.get("/v1/tasks/none"),
                http.get("/v1/tasks/~"),
            ]

        assert [answer.status_code for answer in answers] == [202, 202, 202, 422, 415, 200, 304, 200, 404, 404]
        assert [left(first) - left(answer) for answer in answers] == list(range(1, len(answers) + 1))


def test_far_from_the_quota_a_process_counts_by_itself_and_no_request_is_lost(settings):
    """A command to Redis for some of the requests counts the others with it, whichever process they came to."""
    limited = settings.model_copy(update={"rate_limit": 5_000, "rate_window": 86_400.0})
    redis = RedisHandle(limited, timeout=5.0)
    processes, commands = [Quota(redis, limited) for _ in range(2)], 0
    for quota in processes:
        quota.spend("ada")
    for number in range(200):
        charge = processes[number % 2].charge("ada", reads=False)
        if charge is None:
            processes[number % 2].spend("ada")
        redis.run_along(charge, ("PING",))
        commands += charge is None or isinstance(charge, Counting)
    ends = [int(quota.spend("ada")["RateLimit"].split(";r=")[1].split(";")[0]) for quota in processes]
    redis.close()

    assert ends[-1] == 5_000 - 204
    assert commands < 200


@pytest.mark.parametrize("sent", [False, True])
def test_a_request_that_ends_before_redis_is_asked_takes_no_other_ones_count_along(settings, sent):
    """It may be refused by its form; those that the process has counted by itself go with the next command, once."""
    limited = settings.model_copy(update={"rate_limit": 5_000, "rate_window": 86_400.0})
    redis = RedisHandle(limited, timeout=5.0)
    quota = Quota(redis, limited)
    quota.spend("ada")
    own = [quota.charge("ada", reads=False) for _ in range(OWN)]
    ended, other = quota.charge("ada", reads=True), quota.charge("ada", reads=True)
    if sent:
        redis.run_along(other, ("PING",))
    last = quota.spend("ada")
    redis.close()

    assert all(charge.sent for charge in own)
    assert not ended.sent
    assert last["RateLimit"].startswith(f'"principal";r={5_000 - 2 - OWN - sent};')


def test_what_a_process_counts_by_itself_is_bounded(settings):
    limited = settings.model_copy(update={"rate_limit": 5_000, "rate_window": 86_400.0})
    redis = RedisHandle(limited, timeout=5.0)
    quota = Quota(redis, limited)
    quota.spend("ada")
    charges = [quota.charge("ada", reads=False) for _ in range(OWN + 1)]
    redis.close()

    assert [isinstance(charge, Counting) for charge in charges] == [False] * OWN + [True]


def test_near_the_quota_each_request_is_counted_first(settings):
    limited = settings.model_copy(update={"rate_limit": 1_000, "rate_window": 86_400.0})
    redis = RedisHandle(limited, timeout=5.0)
    quota = Quota(redis, limited)
    quota.spend("ada")
    charges = [quota.charge("ada", reads=False) for _ in range(3)]
    redis.close()

    assert charges == [None] * 3


def test_a_read_beyond_the_quota_is_refused_like_any_other_request(settings):
    with gateway(settings.model_copy(update={"rate_limit": 2, "rate_window": 86_400.0})) as http:
        path = http.post("/v1/tasks", json=TASK).json["statusUrl"]
        answers = [http.get(path), http.get(path), http.get("/v1/tasks/~"), http.post("/v1/tasks", json={})]

    assert [answer.status_code for answer in answers] == [200, 429, 429, 429]
    assert [answer.json.get("quota") for answer in answers[1:]] == ["requests"] * 3
    assert answers[1].headers["RateLimit"].startswith('"principal";r=0')


def test_a_right_that_redis_lacks_for_counting_refuses_nothing(settings):
    """As when the quota is read by itself: it protects other clients, not the system."""
    limited = settings.model_copy(update={"rate_limit": 100_000, "rate_window": 60.0})
    with gateway(limited) as http, contextlib.closing(Stores(limited)) as stores:
        path = http.post("/v1/tasks", json=TASK).json["statusUrl"]
        stores.redis.run(("SET", stores.redis.keys.rate("local"), "no number"))
        eventually(lambda: not _counted(http.get(path)), 10, "the process does not count by itself any more")
        answers = [http.get(path), http.post("/v1/tasks", json=TASK), http.get(path)]

    assert [answer.status_code for answer in answers] == [200, 202, 200]
    assert not any(_counted(answer) for answer in answers)


def _counted(answer):
    return "principal" in answer.headers.get("RateLimit", "")
