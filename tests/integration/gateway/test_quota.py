"""A principal's share of requests, counted in Redis for all gateway processes."""

import time

import pytest

from dispatch.gateway.admission.quota import Quota
from dispatch.gateway.http.problems import Problem
from dispatch.store.scripts import RedisHandle
from support.proxy import DOWN, Proxy
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
    assert Quota(RedisHandle(settings, timeout=1.0), settings).spend("ada") == {}


def test_without_redis_nobody_is_refused(limited):
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
