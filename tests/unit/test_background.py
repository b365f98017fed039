"""The base of the background threads: no error ends one, each is logged once, stop and wake are prompt."""

import threading

import pytest

from dispatch import background as module
from dispatch.background import Background
from dispatch.errors import StoreUnavailable
from support.unit_fakes import Log
from support.waiting import eventually


class Steps(Background):
    """Runs the functions of a test, one a step; afterwards its steps do nothing."""

    def __init__(self, *steps, interval=60.0):
        super().__init__("stepper", interval=interval)
        self.steps, self.count, self.finished = list(steps), 0, 0

    def step(self):
        self.count += 1
        return self.steps.pop(0)() if self.steps else None

    def finish(self):
        self.finished += 1


def fail(error):
    def step():
        raise error

    return step


@pytest.fixture
def log(monkeypatch):
    log = Log()
    monkeypatch.setattr(module, "log", log)
    return log


@pytest.fixture
def started():
    """Starts a thread, and ends it with the test."""
    running = []

    def start(background):
        running.append(background)
        background.start()
        return background

    yield start
    for background in running:
        background.stop(wait=5)


def quick(*steps):
    return Steps(*steps, interval=0.001)


def test_the_step_is_repeated(started):
    background = started(quick())

    assert eventually(lambda: background.count > 3)


def test_no_error_ends_the_thread(started, log):
    background = started(quick(fail(ValueError("a")), fail(StoreUnavailable()), fail(OSError("c"))))
    eventually(lambda: background.count > 4)

    assert log.events[:3] == ["background step failed"] * 3


def test_an_error_is_logged_once_while_it_stays_the_same_and_when_it_ends(log):
    background = Steps(*[fail(OSError("a"))] * 3, fail(OSError("b")), fail(OSError("a")), lambda: None, lambda: None)
    for _ in range(7):
        background._try_step()

    assert [(event, fields.get("reason")) for _, event, fields in log.lines] == [
        ("background step failed", "OSError: a"),
        ("background step failed", "OSError: b"),
        ("background step failed", "OSError: a"),
        ("background thread recovered", None),
    ]


def test_an_error_that_comes_back_is_logged_again(log):
    background = Steps(fail(OSError("a")), lambda: None, fail(OSError("a")))
    for _ in range(3):
        background._try_step()

    assert log.events == ["background step failed", "background thread recovered", "background step failed"]


def test_only_what_is_not_foreseen_comes_with_its_traceback(log):
    background = Steps(fail(StoreUnavailable()), fail(OSError("a")), fail(ValueError("b")))
    for _ in range(3):
        background._try_step()

    assert [fields["exc_info"] for _, _, fields in log.lines] == [False, False, True]


def test_a_step_may_choose_when_the_next_one_comes(started):
    background = started(Steps(lambda: 0.0, lambda: 0.001))

    assert eventually(lambda: background.count == 3)


def test_a_woken_thread_steps_at_once(started):
    background = started(Steps())
    eventually(lambda: background.count == 1)
    background.wake()

    assert eventually(lambda: background.count == 2)


def test_a_wake_during_a_step_is_not_lost(started):
    background = Steps()
    background.steps = [background.wake]
    started(background)

    assert eventually(lambda: background.count == 2)


def test_a_pause_inside_a_step_ends_with_stop(started):
    background = Steps()
    background.steps = [lambda: background.pause(60)]
    started(background)
    eventually(lambda: background.count == 1)
    background.stop(wait=5)

    assert background.stopping
    assert background.finished == 1


def test_stop_waits_for_the_step_that_runs_and_finish_comes_once(started):
    entered, go_on = threading.Event(), threading.Event()

    def step():
        entered.set()
        go_on.wait(5)

    background = started(Steps(step))
    entered.wait(5)
    background.stop(wait=0.01)
    before = background.finished
    go_on.set()
    background.stop(wait=5)

    assert (before, background.finished, background.count) == (0, 1, 1)


def test_stopping_what_never_started_is_no_error():
    background = Steps()
    background.stop(wait=5)

    assert (background.stopping, background.finished) == (True, 0)


def test_a_thread_that_was_stopped_before_its_start_takes_no_step():
    background = Steps()
    background.stop()
    background.start()
    background.stop(wait=5)

    assert (background.count, background.finished) == (0, 1)
