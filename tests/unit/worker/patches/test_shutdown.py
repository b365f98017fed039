"""A shutdown waits for the end of the loop's iteration; a second signal goes through at once."""

import signal
import types

import pytest

from dispatch.worker.patches import shutdown as module
from dispatch.worker.patches.shutdown import Shutdown
from support.unit_fakes import Log
from support.waiting import eventually


class FakeLoop:
    """Keeps the calls until a test runs them."""

    def __init__(self):
        self.calls = []

    def call(self, function):
        self.calls.append(function)

    def turn(self):
        while self.calls:
            self.calls.pop(0)()


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def handled():
    """The signals that Celery's handlers were called with; the handlers of the process are restored afterwards."""
    numbers = (signal.SIGTERM, signal.SIGQUIT, module._NOW)
    before = {number: signal.getsignal(number) for number in numbers}
    seen = []
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, frame: seen.append((number, frame)))
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def shutdown(loop, handled, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 60.0)  # no watch of an earlier test may interfere
    shutdown = Shutdown(loop)
    shutdown.install()
    assert handled == []
    return shutdown


def test_a_signal_begins_the_shutdown_when_the_loop_comes_round(shutdown, loop, handled):
    signal.raise_signal(signal.SIGTERM)

    assert (shutdown.begun, handled) == (False, [])

    loop.turn()

    assert (shutdown.begun, handled) == (True, [(signal.SIGTERM, None)])


def test_a_second_signal_before_that_does_not_wait(shutdown, loop, handled):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGQUIT)
    loop.turn()

    assert handled == [(signal.SIGQUIT, None)]
    assert shutdown.begun


@pytest.mark.usefixtures("shutdown")
def test_a_signal_after_the_beginning_goes_through_at_once(loop, handled):
    signal.raise_signal(signal.SIGTERM)
    loop.turn()
    signal.raise_signal(signal.SIGQUIT)

    assert handled == [(signal.SIGTERM, None), (signal.SIGQUIT, None)]


def test_without_a_loop_the_shutdown_begins_anyway(loop, handled, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    shutdown = Shutdown(loop)
    shutdown.install()
    signal.raise_signal(signal.SIGTERM)
    eventually(lambda: handled)

    assert handled == [(signal.SIGTERM, None)]
    assert len(loop.calls) == 1


def test_a_worker_that_leaves_by_itself_ends_when_the_loop_comes_round(shutdown, loop, handled, monkeypatch):
    celery = types.SimpleNamespace(should_stop=None)
    monkeypatch.setattr(module, "state", celery)
    monkeypatch.setattr(module, "log", Log())
    flushed = []
    shutdown.before = lambda cold: flushed.append((cold, celery.should_stop))
    for _ in range(2):
        shutdown.leave("it has reasons")

    assert (shutdown.begun, celery.should_stop, len(loop.calls)) == (False, None, 1)

    loop.turn()
    signal.raise_signal(signal.SIGTERM)  # a second one goes through, as after a signal

    assert (shutdown.begun, celery.should_stop, flushed) == (True, module.LEFT, [(False, None)])
    assert handled == [(signal.SIGTERM, None)]


@pytest.mark.usefixtures("handled")
def test_a_handler_that_is_not_celerys_is_left_alone(loop):
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    Shutdown(loop).install()

    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN
