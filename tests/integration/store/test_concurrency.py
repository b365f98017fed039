"""A concurrency key's script: who gets it, in which order, and what an old copy may not do."""

import random
import time

import pytest

from dispatch.protocol.concurrency import KeyLimit
from dispatch.protocol.message import Message
from dispatch.store.concurrency import ConcurrencyKeys, KeyAnswer
from support.stores import Stores
from support.waiting import eventually

KEY, PAIR = KeyLimit("k", 1), KeyLimit("k", 2)


@pytest.fixture
def stores(settings):
    made = Stores(settings)
    yield made
    made.close()


@pytest.fixture
def keys(stores):
    return ConcurrencyKeys(stores.redis, lease=60)


def copy(name, rank=None, seq=0, cycle=0):
    at = 1_795_487_760_000 + (ord(name[-1]) if rank is None else rank)
    return Message(b"", {"id": _id(name), "x-accepted-at": at, "x-seq": seq, "x-cycle": cycle})


def _id(name):
    return f"00000000-0000-7000-8000-{name:0>12}"


def _release(keys, name, fence=0):
    return [each[-1] for each in keys.release("k", _id(name), fence).unsent]


def test_one_holds_it_and_the_next_is_called_when_it_is_given_back(keys):
    first, second = keys.take(KEY, copy("a")), keys.take(KEY, copy("b"))
    called = _release(keys, "a")
    again = keys.take(KEY, copy("b"))

    assert (first.answer, second.answer, second.unsent) == (KeyAnswer.TAKEN, KeyAnswer.WAIT, ())
    assert (called, again.answer) == (["b"], KeyAnswer.TAKEN)


def test_all_keys_in_use_are_read_in_two_round_trips(monkeypatch, stores, keys):
    trips = []
    for number in range(20):
        assert keys.take(KeyLimit(f"k{number:02}", 1), copy("a")).answer is KeyAnswer.TAKEN
        assert keys.take(KeyLimit(f"k{number:02}", 1), copy("b")).answer is KeyAnswer.WAIT
    for name in ("run", "gather"):
        whole = getattr(stores.redis, name)
        monkeypatch.setattr(stores.redis, name, lambda *commands, whole=whole: trips.append(1) or whole(*commands))
    views = keys.in_use(15)

    assert len(trips) == 2
    assert len(views) == 15
    assert {(view.limit, [task for task, _ in view.holders] == [_id("a")], view.first) for view in views} == {
        (1, True, (_id("b"),))
    }
    assert keys.views(["k00", "free"])[1] is None


def test_the_waiting_come_by_their_rank_and_not_as_they_asked(keys):
    keys.take(KEY, copy("a"))
    for name in "dbc":
        keys.take(KEY, copy(name))
    order = []
    for holder in "abcd":
        order += _release(keys, holder)
        keys.take(KEY, copy(order[-1]))

    assert order == ["b", "c", "d", *order[3:]]


def test_a_later_task_does_not_overtake_one_that_is_called(keys):
    keys.take(KEY, copy("a"))
    keys.take(KEY, copy("b"))
    _release(keys, "a")

    assert keys.take(KEY, copy("c")).answer is KeyAnswer.WAIT
    assert keys.take(KEY, copy("b")).answer is KeyAnswer.TAKEN


def test_an_earlier_task_that_was_not_called_goes_before_the_one_that_is(keys):
    keys.take(KEY, copy("b"))
    keys.take(KEY, copy("c"))
    _release(keys, "b")

    assert keys.take(KEY, copy("a")).answer is KeyAnswer.TAKEN
    assert keys.take(KEY, copy("c")).answer is KeyAnswer.WAIT


def test_a_called_task_that_never_comes_makes_room_after_a_lease(stores):
    quick = ConcurrencyKeys(stores.redis, lease=0.5)
    quick.take(KEY, copy("a"))
    quick.take(KEY, copy("b"))
    quick.release("k", _id("a"), 0)
    quick.sent("k", _id("b"))
    blocked = quick.take(KEY, copy("c"))
    eventually(lambda: quick.take(KEY, copy("c")).answer is KeyAnswer.TAKEN, 10, "it gets the key")

    assert blocked.answer is KeyAnswer.WAIT


def test_a_called_task_to_which_no_copy_was_sent_is_named_again_and_not_once_it_was(keys):
    keys.take(KEY, copy("a"))
    keys.take(KEY, copy("b"))
    _release(keys, "a")
    named = [keys.look("k").unsent, keys.take(KEY, copy("c")).unsent]
    keys.sent("k", _id("b"))

    assert named == [(_id("b"),)] * 2
    assert keys.look("k").unsent == ()


def test_a_called_task_that_is_held_only_now_is_named_again(keys):
    keys.take(KEY, copy("a"))
    keys.take(KEY, copy("b"))
    _release(keys, "a")
    keys.sent("k", _id("b"))  # its record was not HELD yet

    assert keys.wait(KEY, copy("b")).unsent == (_id("b"),)


def test_the_same_task_keeps_its_key_and_an_old_copy_gives_nothing_back(keys):
    keys.take(KEY, copy("a", seq=2))
    same = keys.take(KEY, copy("a", seq=1))
    keys.take(KEY, copy("b"))

    assert same.answer is KeyAnswer.SAME
    assert _release(keys, "a", fence=1) == []
    assert _release(keys, "a", fence=2) == ["b"]


def test_a_holder_that_is_not_renewed_lapses_and_one_that_is_does_not(stores):
    quick = ConcurrencyKeys(stores.redis, lease=0.4)
    quick.take(KeyLimit("x", 1), copy("a"))
    quick.take(KEY, copy("a"))
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert quick.renew([(KEY, copy("a"))]) == []
        assert quick.take(KEY, copy("b")).answer is KeyAnswer.WAIT
        time.sleep(0.05)

    assert quick.take(KeyLimit("x", 1), copy("b")).answer is KeyAnswer.TAKEN
    assert quick.renew([(KeyLimit("x", 1), copy("a"))]) == [("x", _id("a"))]


def test_a_lapsed_lease_whose_key_is_free_is_the_holders_again(stores):
    quick = ConcurrencyKeys(stores.redis, lease=0.2)
    quick.take(KEY, copy("a"))
    eventually(lambda: not (quick.view("k") and quick.view("k").holders), 10, "it lapses")

    assert quick.renew([(KEY, copy("a"))]) == []
    assert [holder for holder, _ in quick.view("k").holders] == [_id("a")]


def test_a_key_is_kept_through_a_wait_and_an_old_copy_shortens_it_not(stores):
    quick = ConcurrencyKeys(stores.redis, lease=0.2)
    quick.take(KEY, copy("a"))
    quick.keep(KEY, copy("a", seq=1), 60)
    before = quick.view("k").holders
    quick.take(KEY, copy("a"))
    quick.release("k", _id("a"), 0)

    assert quick.view("k").holders == before


def test_the_step_after_a_wait_has_its_workers_lease_and_an_old_copy_does_not_shorten_it(stores):
    quick = ConcurrencyKeys(stores.redis, lease=0.4)
    quick.take(KEY, copy("a"))
    quick.keep(KEY, copy("a", seq=1), 600)
    old = quick.take(KEY, copy("a")).answer, quick.renew([(KEY, copy("a"))])
    kept = quick.take(KEY, copy("b")).answer
    signalled = quick.take(KEY, copy("a", seq=2)).answer  # an early signal sent it
    renewed = quick.renew([(KEY, copy("a", seq=2))])
    running = quick.take(KEY, copy("b")).answer
    eventually(
        lambda: quick.take(KEY, copy("b")).answer is KeyAnswer.TAKEN, 5, "its worker is gone: the next has the key"
    )

    assert (old, kept) == ((KeyAnswer.SAME, []), KeyAnswer.WAIT)
    assert (signalled, renewed, running) == (KeyAnswer.SAME, [], KeyAnswer.WAIT)


@pytest.mark.parametrize("again", ["renew", "keep"])
def test_holders_have_their_places_again_after_redis_lost_its_data(stores, keys, again):
    keys.take(PAIR, copy("a"))
    keys.take(PAIR, copy("b"))
    stores.redis.run(("DEL", *stores.redis.keys.concurrency("k")))
    for name in "ab":
        if again == "renew":
            assert keys.renew([(PAIR, copy(name))]) == []
        else:
            keys.keep(PAIR, copy(name), 60)
    view = keys.view("k")

    assert (view.limit, {holder for holder, _ in view.holders}) == (2, {_id("a"), _id("b")})
    assert keys.take(PAIR, copy("c")).answer is KeyAnswer.WAIT


def test_a_holder_whose_key_others_took_after_redis_lost_its_data_has_lost_it(stores, keys):
    keys.take(KEY, copy("a"))
    stores.redis.run(("DEL", *stores.redis.keys.concurrency("k")))
    keys.take(KEY, copy("b"))

    assert keys.renew([(KEY, copy("a"))]) == [("k", _id("a"))]
    assert [holder for holder, _ in keys.view("k").holders] == [_id("b")]


def test_a_waiting_task_that_has_ended_makes_room_for_the_next(keys):
    for name in "abc":
        keys.take(KEY, copy(name))
    _release(keys, "a")

    assert [each[-1] for each in keys.drop("k", _id("b")).unsent] == ["c"]


def test_a_key_that_nothing_holds_leaves_nothing_behind(stores, keys):
    keys.take(KEY, copy("a"))
    in_use = keys.view("k")
    _release(keys, "a")
    keys.looked(keys.view("k"), "k")

    assert (in_use.limit, in_use.waiting) == (1, 0)
    assert keys.view("k") is None
    assert stores.redis.run(("EXISTS", *stores.redis.keys.concurrency("k"), stores.redis.keys.keys_in_use)) == [0]


def test_a_key_is_due_when_tasks_wait_and_only_for_one_worker_at_a_time(keys):
    keys.take(KEY, copy("a"))
    none = keys.due(10)
    keys.wait(KEY, copy("b"))
    eventually(lambda: keys.due(10) == ["k"], 10, "it is due")

    assert none == []
    assert keys.due(10) == []


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_no_more_than_the_limit_hold_it_and_all_get_it(keys, seed):
    chance = random.Random(seed)
    names = [chr(ord("a") + number) for number in range(20)]
    seq, running, waiting, done = dict.fromkeys(names, 0), set(), set(names), set()
    while len(done) < len(names):
        act = chance.random()
        if running and act < 0.4:
            name = chance.choice(sorted(running))
            keys.release("k", _id(name), seq[name])
            running.discard(name)
            done.add(name)
        elif running and act < 0.5:  # an old copy, of a task that runs
            keys.release("k", _id(chance.choice(sorted(running))), -1)
        elif waiting:
            name = chance.choice(sorted(waiting))
            seq[name] += 1
            if keys.take(PAIR, copy(name, seq=seq[name])).answer is KeyAnswer.TAKEN:
                waiting.discard(name)
                running.add(name)

        assert len(running) <= 2
        view = keys.view("k")
        assert (
            {holder for holder, _ in view.holders if view} == {_id(name) for name in running} if view else not running
        )
