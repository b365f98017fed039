"""A rate limit in memory: how many of a key are let through, when the next one is, and that it remembers a bounded number."""

import pytest

from dispatch.gateway.admission import local_rate as module
from dispatch.gateway.admission.local_rate import LocalRate
from support.unit_fakes import ManualClock


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_so_many_are_let_through_at_once_and_then_one_after_the_other(clock):
    rate = LocalRate(3)
    first = [rate.take("a") for _ in range(4)]
    other = rate.take("b")
    clock.now += 20
    later = [rate.take("a") for _ in range(2)]

    assert first == [None, None, None, 20]
    assert other is None
    assert later == [None, 20]


def test_what_was_refused_does_not_make_the_wait_longer(clock):
    rate = LocalRate(1)
    rate.take("a")
    waits = [rate.take("a") for _ in range(5)]
    clock.now += 60

    assert waits == [60] * 5
    assert rate.take("a") is None


@pytest.mark.usefixtures("clock")
def test_many_keys_are_remembered_up_to_a_number():
    rate = LocalRate(1, most=2)
    for key in "abc":
        rate.take(key)

    assert (rate.take("c"), rate.take("b")) == (60, 60)
    assert rate.take("a") is None


def test_without_a_limit_everything_is_let_through():
    rate = LocalRate(0)

    assert {rate.take("a") for _ in range(99)} == {None}
