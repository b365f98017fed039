"""What a handler is given: progress is throttled, cancellation is polled, an outage costs neither."""

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from dispatch.config.settings import load
from dispatch.errors import StoreUnavailable
from dispatch.protocol.ids import new_task_id
from dispatch.store.claims import Ticket
from dispatch.worker import context as module
from dispatch.worker.context import PROGRESS_PAUSE, RunContext
from dispatch.worker.limits import RunFenced, ThreadLimits
from support.unit_fakes import ManualClock, task_message

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


class FakeClaims:
    """Keeps the progress, and answers whether a client has asked for the task to stop."""

    def __init__(self):
        self.recorded, self.cancel, self.failure = [], False, None

    def progress(self, task_id, fence, progress):
        if self.failure:
            raise self.failure
        self.recorded.append((task_id, fence, progress))
        return self.cancel


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def claims():
    return FakeClaims()


@pytest.fixture
def context(claims, clock):
    clock.now += 60
    settings = load({}).handlers()
    return RunContext(task_message(traceparent=TRACE), Ticket("o", "fence", "w"), claims, settings)


def test_a_mended_task_has_another_key_for_the_other_side(claims):
    task_id = new_task_id()
    message = task_message(**{"id": task_id, "x-effect-key": f"{task_id}.3"})

    assert RunContext(message, Ticket("o", "f", "w"), claims, load({}).handlers()).idempotency_key == f"{task_id}.3"


def percents(claims):
    return [progress["percent"] for _, _, progress in claims.recorded if progress]


def test_a_handler_sees_its_task(context):
    assert (context.task_id, context.idempotency_key, context.attempt) == ("t-1", "t-1", 2)
    assert context.trace_id == "a" * 32
    assert context.traceparent != TRACE


def test_a_run_in_a_thread_ends_at_its_next_use_of_its_context(claims, clock):
    clock.now += 60
    limits = ThreadLimits(soft=5)
    settings = load({}).handlers()
    context = RunContext(task_message(), Ticket("o", "fence", "w"), claims, settings, limits)
    context.progress(1)
    limits.soft_passed = True
    with pytest.raises(SoftTimeLimitExceeded):
        context.progress(2)

    assert context.cancelled() is False  # raised once: the handler may tidy up

    limits.fenced = True
    for use in (context.cancelled, lambda: context.progress(3)):
        with pytest.raises(RunFenced):
            use()
    assert percents(claims) == [1]


def test_progress_is_recorded_twice_a_second_at_most(context, claims, clock):
    for percent in range(5):
        context.progress(percent)
        clock.now += PROGRESS_PAUSE / 2

    assert percents(claims) == [0, 2, 4]


def test_the_end_is_always_recorded(context, claims):
    context.progress(1)
    context.progress(100)

    assert percents(claims) == [1, 100]


def test_progress_is_kept_in_its_bounds(context, claims, clock):
    context.progress(-5, "x" * 600)
    clock.now += 1
    context.progress(250)

    assert claims.recorded[0] == ("t-1", "fence", {"percent": 0, "message": "x" * 500})
    assert percents(claims) == [0, 100]


def test_cancellation_is_asked_for_twice_a_second_at_most(context, claims, clock):
    answers = []
    for _ in range(5):
        answers.append(context.cancelled())
        clock.now += PROGRESS_PAUSE / 2

    assert answers == [False] * 5
    assert [progress for _, _, progress in claims.recorded] == [None, None, None]


def test_a_cancelled_task_stays_cancelled_without_asking_again(context, claims, clock):
    claims.cancel = True
    answers = [context.cancelled()]
    claims.cancel = False
    clock.now += 60
    answers.append(context.cancelled())

    assert answers == [True, True]
    assert len(claims.recorded) == 1


def test_progress_brings_the_answer_to_cancelled(context, claims):
    claims.cancel = True
    context.progress(5)

    assert context.cancelled()
    assert len(claims.recorded) == 1


def test_an_outage_drops_progress_and_cancels_nothing(context, claims, clock):
    claims.failure = StoreUnavailable()
    context.progress(5)
    clock.now += 1
    answer = context.cancelled()

    assert (answer, claims.recorded) == (False, [])


def test_an_outage_does_not_take_a_cancellation_back(context, claims, clock):
    claims.cancel = True
    context.progress(5)
    clock.now, claims.failure = clock.now + 1, StoreUnavailable()
    context.progress(6)

    assert context.cancelled()
