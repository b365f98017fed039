"""What reserving an Idempotency-Key finds, and what is written to confirm and to free one."""

import pytest

from dispatch.config.settings import load
from dispatch.store.idempotency import Holder, IdempotencyKeys, KeyInProgress, KeyReused, KeyState, Reservation
from support.cases import each
from support.unit_fakes import FakeRedis

SETTINGS = load({})
KEY = ("robot:idem:ada:k",)


def reserve(answer):
    redis = FakeRedis(reserve_idempotency_key=[answer])
    return IdempotencyKeys(redis, SETTINGS).reserve("ada", "k", "print", "t-1"), redis


@each("state", list(KeyState))
def test_a_key_that_may_be_used_comes_with_its_task(state):
    reservation, redis = reserve([state.value, "t-0", 0])

    assert reservation == Reservation(state, "t-0")
    assert redis.commands == [
        ("reserve_idempotency_key", KEY, "t-1", "print", int(SETTINGS.idempotency_ttl * 1_000), 5_000)
    ]


def test_a_key_of_another_request_is_refused():
    with pytest.raises(KeyReused):
        reserve(["REUSED", "t-0", 0])


def test_a_key_whose_first_request_is_in_flight_has_a_time_to_come_again():
    with pytest.raises(KeyInProgress) as caught:
        reserve(["BUSY", "t-0", 1_500])

    assert caught.value.retry_after == 1.5


def test_a_key_is_confirmed_and_freed_for_its_own_task_only():
    redis = FakeRedis()
    keys = IdempotencyKeys(redis, SETTINGS)
    keys.release("ada", "k", "t-1")

    assert keys.confirmation("ada", "k", "t-1") == ("confirm_idempotency_key", KEY, "t-1")
    assert redis.commands == [("release_idempotency_key", KEY, "t-1")]


@each(
    ("held", "holder"),
    [
        (["t-1", "1"], Holder("t-1", confirmed=True)),
        (["t-1", None], Holder("t-1", confirmed=False)),
        ([None, None], None),
    ],
)
def test_the_task_of_a_key_is_found(held, holder):
    assert IdempotencyKeys(FakeRedis(HMGET=[held]), SETTINGS).find("ada", "k") == holder
