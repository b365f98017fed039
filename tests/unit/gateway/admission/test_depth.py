import threading

import amqp.exceptions
import pytest
import structlog.testing

from dispatch.broker import faults
from dispatch.gateway.admission import depth
from dispatch.gateway.admission.depth import DepthReader
from dispatch.gateway.admission.guard import Guard
from support.waiting import eventually


class FakeGauge:
    def __init__(self, ready=0):
        self.ready = ready
        self.failure = None
        self.reads = self.closed = 0
        self.gate = threading.Event()
        self.gate.set()

    def read(self):
        self.gate.wait(10)
        self.reads += 1
        if self.failure:
            raise self.failure
        return self.ready

    def close(self):
        self.closed += 1

    def trouble(self, exc):
        return faults.trouble("amqps://u:hush@h:1/v", exc)


@pytest.fixture
def start(monkeypatch):
    monkeypatch.setattr(depth, "INTERVAL", 0.01)
    started = []

    def make(gauge, guard=None, rate=lambda: None):
        reader = DepthReader(guard or Guard(100), gauge, rate)
        reader.start()
        started.append(reader)
        return reader

    yield make
    for reader in started:
        reader.close()
        assert not reader._thread.is_alive()


def _ours(lines):
    """The depth reader's lines: other threads of the process may log, too."""
    return [line for line in lines if line["event"].startswith("reading the work queue depth")]


def test_readings_reach_the_guard(start):
    guard = Guard(100)
    start(FakeGauge(101), guard)

    eventually(guard.full)


def test_a_failing_broker_opens_the_guard_and_the_thread_goes_on(start, monkeypatch):
    monkeypatch.setattr(depth, "FRESH", 0.05)
    gauge = FakeGauge()
    reader = start(gauge)
    eventually(lambda: reader.fresh)

    gauge.failure = OSError("amqp://user:hunter2@host")
    with structlog.testing.capture_logs() as lines:
        eventually(lambda: gauge.closed >= 3)
    assert [line["reason"] for line in _ours(lines)] == ["OSError"]
    assert "hunter2" not in str(lines)
    assert "hush" not in str(lines)
    eventually(lambda: not reader.fresh)

    gauge.failure = None
    eventually(lambda: reader.probe(1) and reader.fresh)


def test_a_missing_queue_is_logged_with_the_remedy(start):
    gauge = FakeGauge()
    gauge.failure = amqp.exceptions.NotFound()
    with structlog.testing.capture_logs() as lines:
        start(gauge)
        eventually(lambda: gauge.closed >= 2)

    assert ["topology apply" in line["reason"] for line in _ours(lines)] == [True]


def test_a_probe_looks_now(start, monkeypatch):
    monkeypatch.setattr(depth, "INTERVAL", 60)
    gauge = FakeGauge()
    reader = start(gauge)
    eventually(lambda: gauge.reads == 1)

    assert reader.probe(1)
    assert gauge.reads == 2


def test_a_probe_does_not_wait_for_a_silent_broker(start):
    gauge = FakeGauge()
    gauge.gate.clear()
    reader = start(gauge)

    assert not reader.probe(0.05)
    gauge.gate.set()


def test_the_drain_rate_is_asked_for_only_when_it_may_be_needed(start):
    asked = []
    gauge, guard = FakeGauge(1), Guard(100)

    def rate():
        asked.append(1)
        return 7.0

    start(gauge, guard, rate)
    eventually(lambda: gauge.reads > 3)
    assert asked == []

    gauge.ready = 107
    eventually(lambda: asked)
    eventually(lambda: guard.refusal().headers["Retry-After"] == "1")
