import time

import pytest

from dispatch.worker.server_clock import ServerClock


def test_it_is_this_processs_own_clock_before_the_servers_was_read():
    assert ServerClock()() == pytest.approx(time.time(), abs=1)


def test_it_goes_on_from_the_servers_time_whatever_this_processs_clock_does(monkeypatch):
    clock = ServerClock()
    now = time.monotonic()
    clock.read(1_000_000.0, now - 0.2, now + 0.2)
    monkeypatch.setattr(time, "time", lambda: 5.0)

    assert clock() == pytest.approx(1_000_000.0, abs=1)


def test_the_last_reading_counts():
    clock = ServerClock()
    now = time.monotonic()
    clock.read(5.0, now, now)
    clock.read(1_000_000.0, now, now)

    assert clock() == pytest.approx(1_000_000.0, abs=1)
