"""The bridge to the event loop: calls from other threads run on it, at once, and none can end it."""

import os
import select
import threading

import pytest

from dispatch.worker import loop as module
from dispatch.worker.loop import LoopBridge
from support.unit_fakes import Log


class FakeHub:
    """Calls its readers when their descriptors are readable, as an event loop does."""

    def __init__(self):
        self.readers = {}

    def add_reader(self, descriptor, callback):
        self.readers[descriptor] = callback

    def poll(self, seconds=5.0):
        ready, _, _ = select.select(list(self.readers), [], [], seconds)
        for descriptor in ready:
            self.readers[descriptor]()
        return len(ready)


@pytest.fixture
def bridge():
    bridge = LoopBridge()
    yield bridge
    os.close(bridge._reader)
    os.close(bridge._writer)


@pytest.fixture
def hub(bridge):
    hub = FakeHub()
    bridge.register(hub)
    return hub


def test_a_call_from_another_thread_wakes_the_loop_and_runs_there(bridge, hub):
    ran = []
    caller = threading.Thread(target=bridge.call, args=[lambda: ran.append(threading.current_thread())])
    caller.start()
    hub.poll()
    caller.join()

    assert ran == [threading.current_thread()]
    assert hub.poll(0) == 0


def test_calls_run_in_their_order(bridge, hub):
    ran = []
    for number in range(5):
        bridge.call(lambda number=number: ran.append(number))
    hub.poll()

    assert ran == [0, 1, 2, 3, 4]


def test_many_calls_wake_the_loop_once(bridge, hub):
    ran = []
    for number in range(500):
        bridge.call(lambda number=number: ran.append(number))
    written = len(os.read(bridge._reader, 4_096))
    bridge.run()
    bridge.call(lambda: ran.append("later"))
    hub.poll()

    assert written == 1
    assert ran == [*range(500), "later"]


def test_a_call_that_raises_does_not_end_the_loop(bridge, hub, monkeypatch):
    monkeypatch.setattr(module, "log", Log())
    ran = []
    bridge.call(lambda: 1 / 0)
    bridge.call(lambda: ran.append("after"))
    hub.poll()

    assert ran == ["after"]


def test_what_was_called_before_there_was_a_loop_runs_when_one_comes(bridge):
    ran = []
    bridge.call(lambda: ran.append(1))
    bridge.register(FakeHub())

    assert ran == [1]


def test_after_a_reconnect_the_new_hub_is_woken(bridge, hub):
    ran, fresh = [], FakeHub()
    bridge.register(fresh)
    bridge.call(lambda: ran.append(1))

    assert list(fresh.readers) == list(hub.readers)
    assert fresh.poll() == 1
    assert ran == [1]


def test_a_full_pipe_blocks_no_caller(bridge, hub):
    ran = []
    while select.select([], [bridge._writer], [], 0)[1]:
        os.write(bridge._writer, b"\0" * 4_096)
    bridge.call(lambda: ran.append(1))
    hub.poll()

    assert ran == [1]
    assert hub.poll(0) == 0
