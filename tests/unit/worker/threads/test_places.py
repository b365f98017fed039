"""Threads on a loop of the test's own: places, the line, limits, runaways, and the end."""

import threading
import types

import pytest

from dispatch.worker.pace import AHEAD
from dispatch.worker.threads import job as jobs
from dispatch.worker.threads import places as module
from dispatch.worker.threads import pool as pools
from dispatch.worker.threads.places import ThreadPlaces, threads_for
from dispatch.worker.threads.pool import ThreadPool
from support.cases import each
from support.unit_fakes import Log
from support.waiting import eventually


class FakeBridge:
    """Keeps the calls of the pool's threads until the test runs them."""

    def __init__(self):
        self.calls = []

    def call(self, function):
        self.calls.append(function)

    def run(self):
        while self.calls:
            self.calls.pop(0)()


class FakeTimerHub:
    """Keeps the timers."""

    def __init__(self):
        self.timers = []

    def call_later(self, seconds, function):
        self.timers.append((seconds, function))

    def fire_timers(self):
        due, self.timers = self.timers, []
        for _, function in due:
            function()


class GatedDelivery:
    """A request whose handler runs until the test opens its gate."""

    def __init__(self, name, passed, time_limit, seconds):
        self.name, self.seconds = name, seconds
        self.gate, self.began = threading.Event(), threading.Event()
        self.task = types.SimpleNamespace(time_limit=time_limit, soft_time_limit=None)
        self.arguments = ("echo", name, {}, self)
        self.on_accepted = lambda *_: None
        self.on_success = lambda report: passed.append(f"{report} ended")
        self.on_failure = lambda info: passed.append(f"{name}: {type(info.exception.exc).__name__}")
        self.on_timeout = lambda soft, _: passed.append(f"{name} limit{' soft' * soft}")

    def run(self):
        self.began.set()
        self.gate.wait(30)
        return self.name


class World:
    """Two threads."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(module, "log", Log())
        monkeypatch.setattr(jobs.tracer, "trace", lambda *arguments: arguments[3].run())
        self.bridge, self.hub, self.left, self.passed, self.returned = FakeBridge(), FakeTimerHub(), [], [], []
        self.places = ThreadPlaces(2, self.bridge, soft=None, hard=None, too_many=self.left.append)
        self.places.register(self.hub)
        self.places.give_back = self.returned.extend
        self.given = {}

    def start(self, *names, timeout=600.0, seconds=AHEAD * 2):
        """Take places, and begin runs in them."""
        requests = []
        for name in names:
            assert self.places.take(seconds) is not None
            self.given[name] = GatedDelivery(name, self.passed, timeout, seconds)
            requests.append(self.given[name])
        self.places.start(self.places, requests)

    def began(self, *names):
        """Wait until these run."""
        for name in names:
            assert self.given[name].began.wait(10), name

    def open(self, *names):
        """Let runs end, and pass on that they have."""
        for name in names:
            self.given[name].gate.set()
            eventually(lambda: self.bridge.calls, 10, f"{name} has ended")
            self.bridge.run()


@pytest.fixture
def world(monkeypatch):
    made = World(monkeypatch)
    yield made
    for delivery in made.given.values():
        delivery.gate.set()


def test_there_are_as_many_places_as_threads_and_an_end_makes_room(world):
    world.start("a")
    assert world.places.take(1.0) is world.places
    assert world.places.take(1.0) is None
    world.places.leave(world.places, 1.0)
    world.start("b")
    assert world.places.take(1.0) is None
    world.began("a", "b")
    world.open("b")

    assert world.places.take(1.0) is not None
    assert world.passed == ["b ended"]


@each(
    ("seconds", "threads"),
    [
        ([], 0),
        ([AHEAD * 2], 1),
        ([AHEAD / 2] * 2, 1),
        ([AHEAD / 4] * 5, 2),
        ([AHEAD * 2] * 3, 3),
        ([AHEAD / 4, AHEAD * 2, AHEAD / 4], 3),
    ],
)
def test_short_runs_share_a_thread_and_long_ones_do_not(seconds, threads):
    assert threads_for(seconds) == threads


def test_a_run_behind_one_that_takes_long_after_all_gets_another_thread(world):
    world.start("a", "b", seconds=AHEAD / 4)
    world.began("a")

    assert not world.given["b"].began.wait(0.05)

    world.hub.fire_timers()
    world.began("b")


def test_what_no_thread_has_begun_is_given_back(world):
    world.start("a", "b", seconds=AHEAD / 4)
    world.began("a")
    world.places.recall()
    world.open("a")

    assert [request.name for request in world.returned] == ["b"]
    assert world.passed == ["a ended"]
    assert world.places.busy == 0


def test_a_run_beyond_its_limit_fails_and_its_slot_has_a_new_thread(world):
    world.start("stuck", timeout=1e-9)
    world.start("b")
    world.began("stuck", "b")
    world.hub.fire_timers()

    assert world.passed == ["stuck: TimeLimitExceeded", "stuck limit"]
    assert (world.places.runaways, world.left) == (1, [])

    world.start("c")
    world.began("c")
    world.open("c", "b", "stuck")

    assert world.passed[2:] == ["c ended", "b ended"]
    assert (world.places.runaways, world.places.busy) == (0, 0)


def test_with_too_many_of_them_the_worker_leaves(world):
    world.start("stuck", "stuck too", timeout=1e-9)
    world.began("stuck", "stuck too")
    world.hub.fire_timers()

    assert world.places.runaways == 2
    assert len(world.left) == 1


def test_a_machine_without_another_thread_has_the_attempt_fail_and_the_worker_leave(world, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    world.start("stuck", timeout=1e-9)
    world.began("stuck")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    world.hub.fire_timers()

    assert world.passed == ["stuck: TimeLimitExceeded", "stuck limit"]
    assert world.left == ["a thread could not be replaced: can't start new thread"]
    assert world.places.take(1.0) is not None
    assert world.places.take(1.0) is None


def test_limits_are_looked_at_while_something_runs_also_after_a_reconnect(world):
    world.start("a")
    world.began("a")
    assert len(world.hub.timers) == 1
    world.hub.timers.clear()  # a lost connection may take the timer along
    world.places.register(world.hub)
    assert len(world.hub.timers) == 1
    world.open("a")
    world.hub.fire_timers()

    assert world.hub.timers == []


def test_the_end_of_a_run_that_cannot_be_handled_costs_no_other(world):
    world.start("bad", "b")
    world.given["bad"].on_success = lambda _: 1 / 0
    world.open("bad", "b")

    assert world.passed == ["b ended"]


@pytest.fixture
def pool(world, monkeypatch):
    """A pool over the world's places, in a worker that ends when the test has it so."""
    monkeypatch.setattr(pools, "state", types.SimpleNamespace(should_terminate=None))
    monkeypatch.setattr(pools, "end_with_main_thread", lambda _: None)
    made = ThreadPool(2)
    made.places = world.places
    return made


def test_a_warm_shutdown_waits_for_what_runs(world, pool):
    world.start("a", "b")
    world.began("a", "b")
    opener = threading.Timer(0.05, lambda: [world.given[name].gate.set() for name in "ab"])
    opener.start()
    pool.stop()

    assert sorted(world.passed) == ["a ended", "b ended"]


def test_a_cold_shutdown_passes_on_what_has_ended_and_gives_the_rest_up(world, pool):
    world.start("a", "b")
    world.began("a", "b")
    world.given["a"].gate.set()
    eventually(lambda: world.bridge.calls, 10, "a has ended")
    pools.state.should_terminate = True
    pool.stop()
    pool.terminate()

    assert world.passed == ["a ended", "b: Terminated"]


def test_no_thread_is_terminated(pool):
    with pytest.raises(NotImplementedError, match="its time limit fences it"):
        pool.terminate_job(1, 15)
