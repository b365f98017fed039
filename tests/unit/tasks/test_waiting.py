"""Waiting inside a handler."""

import time

from support.context import FakeContext
from tasks.waiting import pause, stopped


def test_a_pause_lasts_as_long_as_asked():
    began = time.monotonic()

    assert pause(FakeContext(), 0.05)
    assert time.monotonic() - began >= 0.05


def test_a_pause_of_nothing_returns_at_once():
    assert pause(FakeContext(), 0)
    assert pause(FakeContext(), -1)


def test_a_cancelled_task_does_not_wait():
    began = time.monotonic()

    assert not pause(FakeContext(cancel=lambda _: True), 60)
    assert time.monotonic() - began < 5


def test_a_task_cancelled_in_the_middle_wakes_up():
    looks = iter([False, True])

    assert not pause(FakeContext(cancel=lambda _: next(looks)), 60)


def test_stopped_has_the_detail_that_it_is_given():
    assert str(stopped()) == "cancelled on request"
    assert (str(stopped("but it goes on")), stopped().type) == ("cancelled on request, but it goes on", "cancelled")
