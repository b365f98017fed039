"""The keeper of rates: whom it sends, when it looks again, and what becomes of those that can't be sent."""

import types

import pytest

from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.errors import NotSent, StoreUnavailable
from dispatch.maintenance.rate_keeper import LEAST_PAUSE, RateKeeper
from dispatch.protocol.rates import Rate, RateLimit
from dispatch.protocol.record import State
from dispatch.store.rates import LOOK_INTERVAL, RateLook

LIMIT = RateLimit("mow", Rate(5, 1))


class FakeRates:
    """Answers looks, and notes what is sent and dropped."""

    def __init__(self, *looks):
        self.looks, self.looked, self.sent_ids, self.dropped = list(looks), 0, [], []

    def look(self, _limit, _worker):
        self.looked += 1
        found = self.looks.pop(0) if self.looks else RateLook((), None)
        if isinstance(found, Exception):
            raise found
        return found

    def sent(self, _limit, task_ids):
        self.sent_ids += task_ids

    def drop(self, _limit, task_id):
        self.dropped.append(task_id)


def keeper(rates, outcomes=None, paused=()):
    def send(task_ids, _states, _kind, **_details):
        return {task_id: (outcomes or {}).get(task_id) for task_id in task_ids}

    return RateKeeper(rates, [LIMIT], types.SimpleNamespace(send=send), lambda: paused)


def _record(state, message="m"):
    return types.SimpleNamespace(state=state, message=message)


@pytest.mark.parametrize(
    ("pause", "seconds"), [(None, LOOK_INTERVAL), (0.0, LEAST_PAUSE), (0.5, 0.5), (LOOK_INTERVAL, LOOK_INTERVAL)]
)
def test_it_looks_again_when_a_place_may_be_free(pause, seconds):
    made = keeper(FakeRates(RateLook(("a",), pause)))

    assert made.step() == pytest.approx(seconds, abs=0.01)


def test_what_is_asked_for_is_looked_at_at_once():
    rates = FakeRates()
    made = keeper(rates)
    made.step()
    made.step()
    before = rates.looked
    made.look_at(LIMIT)
    made.step()

    assert (before, rates.looked) == (1, 2)


@pytest.mark.parametrize("paused", [("all",), ("type:mow",)])
def test_nothing_of_a_paused_type_is_called(paused):
    rates = FakeRates()

    assert keeper(rates, paused=paused).step() == pytest.approx(LOOK_INTERVAL, abs=0.01)
    assert rates.looked == 0
    assert keeper(rates, paused=("type:sow",)).step() is not None
    assert rates.looked == 1


def test_those_that_wait_no_more_leave_the_list_and_the_others_are_tried_again():
    outcomes = {
        "ended": TaskTerminal(_record(State.SUCCEEDED)),
        "gone": UnknownTask("x"),
        "lapsed": NotWaiting(_record(State.HELD, None)),
        "on its way": NotWaiting(_record(State.QUEUED)),
        "changed": NotWaiting(_record(State.HELD)),
        "unsent": NotSent("x"),
    }
    rates = FakeRates(RateLook(("sent", *outcomes), 0.1))
    pause = keeper(rates, outcomes).step()

    assert rates.sent_ids == ["sent", "on its way"]
    assert rates.dropped == ["ended", "gone", "lapsed"]
    assert pause == pytest.approx(LOOK_INTERVAL, abs=0.01)


@pytest.mark.parametrize("error", [StoreUnavailable("x"), RuntimeError("not foreseen")])
def test_an_error_costs_no_rate_more_than_the_time_to_the_next_look(monkeypatch, error):
    now = 1_000.0
    monkeypatch.setattr("dispatch.maintenance.rate_keeper.time.monotonic", lambda: now)
    rates = FakeRates(error)
    others = [RateLimit("sow", Rate(5, 1)), RateLimit("rest", Rate(5, 1))]
    made = RateKeeper(rates, [LIMIT, *others], types.SimpleNamespace(), lambda: ())
    with pytest.raises(type(error)):
        made.step()
    before = rates.looked
    now += LOOK_INTERVAL
    made.step()

    assert rates.looked - before == 3


def test_one_rate_that_cannot_be_read_holds_up_no_other():
    rates = FakeRates(StoreUnavailable("x"))
    made = RateKeeper(rates, [LIMIT, RateLimit("sow", Rate(5, 1))], types.SimpleNamespace(), lambda: ())
    with pytest.raises(StoreUnavailable):
        made.step()

    assert rates.looked == 2
