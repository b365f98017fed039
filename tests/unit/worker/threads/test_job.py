"""One delivery in a thread: which comes first, its end or its fence, and what is passed on of either."""

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded

from dispatch.protocol.retry import AttemptFailed
from dispatch.worker.limits import RunFenced
from dispatch.worker.outcomes import LIMITS
from dispatch.worker.threads import job as module
from dispatch.worker.threads.job import ThreadJob
from support.unit_fakes import ManualClock


class FakeDelivery:
    """A request, and what was passed on to it."""

    def __init__(self):
        self.passed = []
        self.arguments = ("echo", "t-1", {}, None)

    def on_accepted(self, _pid, at):
        self.passed.append(("accepted", at))

    def on_success(self, report):
        self.passed.append(("ended", report))

    def on_failure(self, info):
        self.passed.append(("failed", info.exception.exc))

    def on_timeout(self, soft, seconds):
        self.passed.append(("limit", soft, seconds))


class World:
    """A job of a handler of the test's own."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.delivery = FakeDelivery()

    def job(self, run, soft=None, hard=10.0):
        self.monkeypatch.setattr(module.tracer, "trace", lambda *_: run())
        return ThreadJob(self.delivery, soft=soft, hard=hard)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_run_that_ends_passes_its_report_on_and_no_fence_falls_any_more(world):
    job = world.job(lambda: "report")

    assert job.run() is True
    assert job.fence() is False

    job.deliver()

    assert world.delivery.passed == [("ended", "report")]
    assert world.delivery.arguments[2] == {LIMITS: job.limits}


def test_a_fenced_run_has_no_place_in_the_pool_when_it_ends(world):
    def run():
        job.limits.check()

    job = world.job(run)

    assert job.fence() is True
    assert job.run() is False
    with pytest.raises(RunFenced):
        job.limits.check()


def test_what_is_no_exception_fails_the_attempt_without_its_text(world):
    def leave():
        raise SystemExit("the token is 12345")

    job = world.job(leave)
    job.run()
    job.deliver()
    ((kind, error),) = world.delivery.passed

    assert (kind, type(error), error.failure.type) == ("failed", AttemptFailed, "SystemExit")
    assert error.failure.retryable
    assert "12345" not in error.failure.message


def test_an_error_of_ours_comes_as_it_is_and_keeps_no_frames(world):
    job = world.job(lambda: 1 / 0)
    job.run()
    job.deliver()
    ((kind, error),) = world.delivery.passed

    assert (kind, type(error)) == ("failed", ZeroDivisionError)
    assert error.__traceback__ is None


def test_limits_begin_with_the_run_and_not_with_the_wait_for_it(world, clock):
    def run():
        clock.now += 2
        seen.append((job.overdue(clock.now), job.limits.soft_passed))
        clock.now += 2
        seen.append((job.overdue(clock.now), job.limits.soft_passed))
        with pytest.raises(SoftTimeLimitExceeded):
            job.limits.check()
        clock.now += 6
        seen.append((job.overdue(clock.now), job.limits.soft_passed))  # raised once

    seen = []
    job = world.job(run, soft=3.0)
    job.accept(clock.now)
    clock.now += 100

    assert not job.overdue(clock.now)

    job.run()

    assert seen == [(False, False), (False, True), (True, False)]
    assert [each for each in world.delivery.passed if each[0] == "limit"] == [("limit", True, 3.0)]


def test_a_run_without_limits_is_never_overdue(world, clock):
    job = world.job(lambda: None, hard=None)
    job.run()

    assert not job.overdue(clock.now + 1e9)


def test_the_hard_limit_is_passed_on_as_if_the_process_had_been_killed(world):
    world.job(lambda: None).time_out()
    (_, error), limit = world.delivery.passed

    assert (type(error), error.args) == (TimeLimitExceeded, (10.0,))
    assert limit == ("limit", False, 10.0)


def test_a_worker_that_ends_gives_it_up(world):
    world.job(lambda: None).give_up()

    assert [(kind, type(error)) for kind, error in world.delivery.passed] == [("failed", Terminated)]
