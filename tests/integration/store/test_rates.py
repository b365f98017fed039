"""A rate's script: how many runs begin, in which order, and who is called when."""

import dataclasses
import time

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dispatch.protocol.copies import step_copy
from dispatch.protocol.message import Message
from dispatch.protocol.rates import Rate, RateLimit
from dispatch.store.rates import LOOK_INTERVAL, RateAnswer, Rates
from dispatch.store.scripts import scripts
from support.stores import Stores
from support.waiting import eventually

HOURLY = RateLimit("echo", Rate(2, 3_600))
LEASE = 60.0


@pytest.fixture
def stores(settings):
    made = Stores(settings)
    yield made
    made.close()


@pytest.fixture
def rates(stores):
    return Rates(stores.redis, lease=LEASE)


def copy(number, rank=None):
    at = 1_795_487_760_000 + (number if rank is None else rank)
    return Message(b"", {"id": _id(number), "task": "echo", "x-accepted-at": at})


def _id(number):
    return f"00000000-0000-7000-8000-{number:012}"


def _take(rates, *numbers, limit=HOURLY):
    return [rates.take(limit, copy(number), f"delivery-{number}") for number in numbers]


TAKEN, FREE, WAIT = RateAnswer.TAKEN, RateAnswer.FREE, RateAnswer.WAIT


def test_as_many_begin_as_the_rate_allows_and_the_others_wait_by_their_rank(rates):
    assert _take(rates, 1, 2, 5, 4, 3) == [TAKEN, TAKEN, WAIT, WAIT, WAIT]

    view = rates.view(HOURLY)

    assert (view.name, view.rate, view.begun, view.waiting) == ("rate:echo", Rate(2, 3_600), 2, 3)
    assert view.first == (_id(3), _id(4), _id(5))
    assert rates.waiting([HOURLY]) == 3
    assert rates.waiting([]) == 0


def test_a_place_gets_free_one_unit_after_the_run_that_had_it_began(rates):
    quick = RateLimit("echo", Rate(2, 1))
    _take(rates, 1, 2, 3, limit=quick)
    began = time.monotonic()
    look = rates.look(quick, "w")
    eventually(lambda: rates.look(quick, "w").unsent, 5, "it is called")
    waited = time.monotonic() - began

    assert look.unsent == ()
    assert 0 < look.pause <= 1
    assert waited > 0.9
    assert _take(rates, 3, limit=quick) == [TAKEN]


def test_the_called_keep_their_places_from_those_that_came_later(rates):
    _take(rates, 1, 2, 3)
    rates.refund(HOURLY, "delivery-1")
    called = rates.look(HOURLY, "w").unsent

    assert called == (_id(3),)
    assert _take(rates, 4) == [WAIT]
    assert _take(rates, 3) == [TAKEN]


def test_one_that_came_earlier_goes_before_the_called(rates):
    _take(rates, 1, 2, 4)
    rates.refund(HOURLY, "delivery-1")
    rates.look(HOURLY, "w")

    assert _take(rates, 3, 4) == [TAKEN, WAIT]


def test_a_delivery_that_takes_again_has_one_place_and_another_delivery_of_its_copy_takes_its_own(rates):
    assert _take(rates, 1, 1, 1) == [TAKEN] * 3
    assert rates.view(HOURLY).begun == 1
    assert rates.take(HOURLY, copy(1), "redelivered") is TAKEN  # its first run may have begun
    assert _take(rates, 2) == [WAIT]


def test_the_unit_of_a_place_begins_anew_when_its_run_has_begun(stores):
    rates = ClockedRates(stores.redis, lease=LEASE)
    _take(rates, 1, 2)
    rates.now += 3_000_000
    rates.begun(HOURLY, "delivery-1")
    rates.begun(HOURLY, "has no place")
    rates.now += 600_000
    after_one, then = _take(rates, 3), _take(rates, 4)
    rates.now += 2_999_999
    still = _take(rates, 4)
    rates.now += 1

    assert [*after_one, *then, *still, *_take(rates, 4)] == [TAKEN, WAIT, WAIT, TAKEN]


def test_what_did_not_begin_gives_its_place_back_and_only_its_own(rates):
    _take(rates, 1, 2)
    rates.refund(HOURLY, "delivery-1")
    rates.refund(HOURLY, "never took one")

    assert _take(rates, 3, 4) == [TAKEN, WAIT]


def test_a_step_after_a_wait_begins_at_any_time_and_uses_up_nothing(rates):
    _take(rates, 1, 2)
    step = step_copy(copy(3), None, 60, 1_795_487_770_000).message

    assert rates.take(HOURLY, step, "d") is FREE
    assert rates.view(HOURLY).begun == 2
    assert rates.view(HOURLY).waiting == 0


def test_a_retry_that_was_listed_counts_whatever_its_next_copy_looks_like(rates):
    _take(rates, 1, 2)
    rates.wait(HOURLY, copy(3))
    step = step_copy(copy(3), None, 60, 1_795_487_770_000).message

    assert rates.take(HOURLY, step, "d") is WAIT


def test_a_task_is_called_again_until_its_copy_is_sent_and_when_it_is_held_only_now(rates):
    for number in (1, 2):
        rates.wait(HOURLY, copy(number))
    named = [rates.look(HOURLY, "w").unsent for _ in range(2)]
    rates.sent(HOURLY, [_id(1), _id(2), _id(3)])
    sent = rates.look(HOURLY, "w").unsent
    rates.wait(HOURLY, copy(2))  # its record was not HELD yet

    assert [sorted(each) for each in named] == [[_id(1), _id(2)]] * 2
    assert sent == ()
    assert rates.look(HOURLY, "w").unsent == (_id(2),)


def test_a_called_task_that_never_comes_makes_room_after_a_lease(stores):
    quick = Rates(stores.redis, lease=0.5)
    for number in (1, 2, 3):
        quick.wait(HOURLY, copy(number))
    quick.sent(HOURLY, quick.look(HOURLY, "w").unsent)

    assert eventually(lambda: quick.look(HOURLY, "w").unsent, 10, "the next is called") == (_id(3),)
    assert quick.view(HOURLY).first == (_id(3),)


def test_one_worker_calls_and_another_one_when_that_is_gone(rates, monkeypatch):
    monkeypatch.setattr("dispatch.store.rates.LOOK_INTERVAL", 0.5)
    _take(rates, 1, 2, 3)
    rates.look(HOURLY, "first")
    rates.refund(HOURLY, "delivery-1")
    other = rates.look(HOURLY, "second")

    assert other.unsent == ()
    assert 0 < other.pause <= 1
    assert eventually(lambda: rates.look(HOURLY, "second").unsent, 5, "the other calls") == (_id(3),)


def test_a_rate_for_which_nothing_waits_needs_no_turn_and_leaves_only_its_begins(rates, stores):
    _take(rates, 1, 2, 3)
    rates.look(HOURLY, "first")
    rates.drop(HOURLY, _id(3))

    assert rates.look(HOURLY, "first").pause is None
    assert rates.look(HOURLY, "second").pause is None
    assert stores.redis.run(("EXISTS", *stores.redis.keys.begun("echo")[1:])) == [0]
    begun = stores.redis.keys.begun("echo")[0]
    assert 0 < stores.redis.run(("PTTL", begun))[0] <= 3_600_000


def test_many_are_called_in_several_looks(rates):
    wide = RateLimit("echo", Rate(150, 3_600))
    for number in range(160):
        rates.wait(wide, copy(number))
    first = rates.look(wide, "w")
    rates.sent(wide, first.unsent)
    second = rates.look(wide, "w")

    assert (len(first.unsent), first.pause, len(second.unsent)) == (100, 0, 50)
    assert {*first.unsent, *second.unsent} == {_id(number) for number in range(150)}
    assert second.pause == LOOK_INTERVAL


def test_redis_without_its_data_lets_one_more_burst_begin(rates, stores):
    before = _take(rates, 1, 2, 3)
    stores.redis.run(("DEL", *stores.redis.keys.begun("echo")))

    assert before + _take(rates, 3, 4, 5) == [TAKEN, TAKEN, WAIT, TAKEN, TAKEN, WAIT]


class ClockedRates(Rates):
    """Rates whose script has its time from here."""

    def __init__(self, redis, **options):
        super().__init__(redis, **options)
        self.now = 1_795_487_760_000
        asked = "redis.call('TIME')"
        source = scripts()["begin_rate"].source
        assert source.count(asked) == 1
        self._source = "local NOW = table.remove(ARGV, 1)\n" + source.replace(
            asked, "{math.floor(NOW / 1000), (NOW % 1000) * 1000}"
        )

    def _command(self, op, limit, **options):
        _, _, count, *words = super()._command(op, limit, **options)
        return ("EVAL", self._source, count, *words[:count], self.now, *words[count:])


def test_a_clock_that_is_set_back_blocks_a_rate_for_one_unit_at_most(stores):
    rates = ClockedRates(stores.redis, lease=LEASE)
    _take(rates, 1, 2)
    rates.now -= 86_400_000
    blocked = _take(rates, 3)
    rates.now += 3_599_999
    still = _take(rates, 3)
    rates.now += 1

    assert [*blocked, *still, *_take(rates, 3)] == [WAIT, WAIT, TAKEN]


@dataclasses.dataclass
class Window:
    """What a rate is, in plain words: which have begun within the unit, which wait, which are called."""

    runs: int
    unit: int
    begun: dict[int, int] = dataclasses.field(default_factory=dict)
    waiting: set[int] = dataclasses.field(default_factory=set)
    called: set[int] = dataclasses.field(default_factory=set)

    def take(self, task, now):
        self._forget(now)
        self.begun.pop(task, None)
        self.called.discard(task)
        self.waiting.add(task)
        if len(self.begun) + sum(other < task for other in self.waiting) >= self.runs:
            return WAIT
        self.waiting.discard(task)
        self.begun[task] = now
        return TAKEN

    def look(self, now):
        """Who is called, and the time until a place is free for the next; None where nothing waits, or no run has it."""
        self._forget(now)
        if not self.waiting:
            return set(), None
        self.called &= self.waiting
        free = max(0, self.runs - len(self.begun) - len(self.called))
        self.called |= set(sorted(self.waiting - self.called)[:free])
        return self.called, min(self.begun.values(), default=0) + self.unit - now if self.begun else None

    def _forget(self, now):
        self.begun = {task: at for task, at in self.begun.items() if at > now - self.unit}


ACTS = st.tuples(
    st.sampled_from(["take", "take", "take", "look", "refund", "pass"]), st.integers(0, 12), st.integers(0, 600)
)


def test_the_script_agrees_with_the_window_and_no_unit_has_more_begins_than_the_rate(stores):
    @hypothesis_settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 4), st.lists(ACTS, max_size=40))
    def holds(runs, acts):
        stores.redis.run(("DEL", *stores.redis.keys.begun("echo")))
        rates, limit, window = (
            ClockedRates(stores.redis, lease=LEASE),
            RateLimit("echo", Rate(runs, 1)),
            Window(runs, 1_000),
        )
        begins, running = [], set()
        for act, task, milliseconds in acts:
            if act == "take":
                answer = rates.take(limit, copy(task), f"delivery-{task}")
                running.discard(task)

                assert answer == window.take(task, rates.now)
                if answer is TAKEN:
                    begins = [(at, one) for at, one in begins if one != task]  # it had not begun
                    begins.append((rates.now, task))
            elif act == "look":
                look, (called, pause) = rates.look(limit, "w"), window.look(rates.now)

                assert set(look.unsent) == {_id(one) for one in called}
                if pause is not None and len(window.waiting) > len(window.called):
                    assert look.pause == min(LOOK_INTERVAL, pause / 1_000)
            elif act == "refund":
                rates.refund(limit, f"delivery-{task}")
                window.begun.pop(task, None)
                begins = [(at, one) for at, one in begins if one != task]
            rates.now += milliseconds
            for at, _ in begins:
                assert sum(at <= other < at + 1_000 for other, _ in begins) <= runs

    holds()
