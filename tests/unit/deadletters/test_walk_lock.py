"""The right to walk through the DLQ: one at a time, kept while the walk lasts, free afterwards."""

import pytest

from dispatch.deadletters import walk_lock as module
from dispatch.deadletters.walk_lock import LOCK_TTL, TRY_INTERVAL, WalkInProgress, WalkLock
from dispatch.errors import StoreUnavailable
from support.unit_fakes import FakeRedis, ManualClock


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def milliseconds(redis):
    return [command[3] for command in redis.commands]


def enter(lock, patience=0.0):
    with lock.held(patience):
        pass


def test_a_lock_is_taken_for_a_while_and_released():
    redis = FakeRedis()
    lock = WalkLock(redis)
    enter(lock)

    assert redis.commands == [
        ("walk_lock", ("robot:dead:walk",), lock._walker, 15_000),
        ("walk_lock", ("robot:dead:walk",), lock._walker, 0),
    ]


def test_each_walker_has_a_name_of_its_own():
    assert WalkLock(FakeRedis())._walker != WalkLock(FakeRedis())._walker


def test_a_lock_that_another_holds_is_not_waited_for():
    redis = FakeRedis(walk_lock="TAKEN")
    with pytest.raises(WalkInProgress):
        enter(WalkLock(redis))

    assert milliseconds(redis) == [15_000]


def test_with_patience_a_lock_is_tried_again(clock):
    redis = FakeRedis(walk_lock=["TAKEN", "TAKEN", "OK", "OK"])
    enter(WalkLock(redis), patience=5)

    assert clock.slept == [TRY_INTERVAL] * 2


def test_patience_ends(clock):
    redis = FakeRedis(walk_lock="TAKEN")
    with pytest.raises(WalkInProgress):
        enter(WalkLock(redis), patience=1)

    assert sum(clock.slept) == pytest.approx(1, abs=TRY_INTERVAL)


def test_a_walk_that_raises_releases_the_lock():
    redis = FakeRedis()
    with pytest.raises(ZeroDivisionError), WalkLock(redis).held():
        raise ZeroDivisionError

    assert milliseconds(redis) == [15_000, 0]


def test_an_outage_at_the_release_is_no_error_of_the_walk():
    redis = FakeRedis()
    with WalkLock(redis).held():
        redis.failure = StoreUnavailable()

    assert milliseconds(redis) == [15_000]


def test_a_lock_is_renewed_at_a_third_of_its_life(clock):
    redis = FakeRedis()
    with WalkLock(redis).held() as lock:
        for _ in range(10):
            lock.keep()
            clock.now += LOCK_TTL / 6

    assert milliseconds(redis) == [15_000] * 5 + [0]


def test_a_walk_whose_lock_lapsed_ends(clock):
    redis = FakeRedis(walk_lock=["OK", "TAKEN", "TAKEN"])
    with WalkLock(redis).held() as lock:
        clock.now += LOCK_TTL
        with pytest.raises(WalkInProgress):
            lock.keep()
