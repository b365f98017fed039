"""The line of deliveries: only what can start now is claimed, and what can't start after all keeps its place and no claim."""

import types

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.store.claims import ClaimAnswer, Claimed
from dispatch.worker.pace import Pace
from dispatch.worker.starter import Starter

RUN = Claimed(ClaimAnswer.RUN)


class Delivery:
    """A request that notes what happens to it."""

    def __init__(self, name, world):
        self.name, self._world = name, world
        self.wire = types.SimpleNamespace(type="echo")
        self.deliverable, self.undoing, self.seconds, self.keys = True, False, 0.0, ()

    def to_claim(self):
        return self.name

    def claimed(self):
        self._world.note("claimed", self)

    def not_claimed(self, _answer):
        self._world.note("not claimed", self)

    def unclaim(self):
        self._world.note("unclaimed", self)

    def take_keys(self, done):
        self._world.keyed.append(done)

    def not_keyed(self, others):
        self._world.note(f"not keyed: {others}", self)

    def hold(self, held_by):
        self._world.note(f"held by {held_by}", self)


class World:
    """A starter, `free` places of one job each, and a Redis that answers when the test has it do so."""

    def __init__(self, free=2):
        self.free, self.did, self.asked, self.kicks = free, [], [], 0
        self.keyed, self.pause = [], None
        self.starter = Starter(self, Pace(), lambda _: self.pause)
        self.starter.places = self

    def note(self, what, request):
        self.did.append((what, request.name))

    def line(self, *names):
        made = [Delivery(name, self) for name in names]
        for each in made:
            self.starter.add(each)
        self.starter.turn()
        return made

    def ask(self, step, done):
        self.asked.append((step, done))

    def kick(self):
        self.kicks += 1

    def answer(self, answer=RUN):
        asked, self.asked = self.asked, []
        for _, done in asked:
            done(answer)
        self.starter.turn()
        return [step for step, _ in asked]

    # the places
    def take(self, _seconds):
        if not self.free:
            return None
        self.free -= 1
        return "place"

    def leave(self, _place, _seconds):
        self.free += 1

    def start(self, _place, requests):
        for each in requests:
            self.note("started", each)

    def recall(self):
        self.did.append("recalled")


@pytest.fixture
def world():
    return World()


def test_only_what_has_a_place_is_claimed_and_it_starts_when_it_is(world):
    world.line("a", "b", "c")
    claimed = world.answer()
    world.free = 1
    world.starter.turn()

    assert claimed == ["a", "b"]
    assert world.did == [("claimed", "a"), ("claimed", "b"), ("started", "a"), ("started", "b")]
    assert [step for step, _ in world.asked] == ["c"]


@pytest.mark.parametrize("answer", [Claimed(ClaimAnswer.BUSY), Claimed(ClaimAnswer.LOST), StoreUnavailable()])
def test_what_may_not_run_leaves_its_place_to_the_next(world, answer):
    world.line("a", "b", "c")
    world.answer(answer)

    assert world.did == [("not claimed", "a"), ("not claimed", "b")]
    assert [step for step, _ in world.asked] == ["c"]


def test_what_is_given_back_has_no_claim_and_is_the_first_in_the_line_in_its_order(world):
    a, b = world.line("a", "b")
    world.answer()
    world.starter.add(Delivery("c", world))
    world.starter.give_back([a])
    world.starter.give_back([b])
    world.free = 3
    world.starter.turn()

    assert world.did[-2:] == [("unclaimed", "a"), ("unclaimed", "b")]
    assert [step for step, _ in world.asked] == ["a", "b", "c"]


def test_a_delivery_whose_channel_is_gone_is_not_claimed(world):
    gone = Delivery("gone", world)
    gone.deliverable = False
    world.starter.add(gone)
    world.line("a")

    assert [step for step, _ in world.asked] == ["a"]


def test_a_delivery_whose_channel_is_lost_during_its_claim_gives_it_back(world):
    (a,) = world.line("a")
    a.deliverable = False
    world.answer()

    assert world.did == [("claimed", "a"), ("unclaimed", "a")]
    assert world.free == 2


def test_a_lost_connection_empties_the_line_and_what_has_not_begun_gives_its_claim_back(world):
    a, *_ = world.line("a", "b", "c")
    for _, done in world.asked:
        done(RUN)
    world.asked.clear()
    world.starter.give_back([a])
    world.starter.forget()
    world.starter.turn()

    assert world.did == [
        ("claimed", "a"), ("claimed", "b"), ("unclaimed", "a"), "recalled", ("unclaimed", "a"), ("unclaimed", "b")
    ]  # fmt: skip
    assert (world.asked, world.free) == ([], 2)


def test_a_worker_that_ends_starts_nothing_and_gives_back_what_it_claims(world):
    world.line("a")
    world.starter.close()
    world.starter.add(Delivery("b", world))
    world.answer()

    assert world.did == ["recalled", ("claimed", "a"), ("unclaimed", "a")]
    assert world.asked == []


def keyed(world, **changes):
    """A delivery whose keys are being taken."""
    delivery = Delivery("keyed", world)
    vars(delivery).update(keys=("robot-1",), **changes)
    world.starter.add(delivery)
    world.starter.turn()
    (done,) = world.keyed
    return done


def test_a_delivery_is_claimed_once_its_keys_are_taken():
    world = World()
    keyed(world)(None)

    assert world.answer() == ["keyed"]
    assert world.did == [("claimed", "keyed"), ("started", "keyed")]


def test_what_is_paused_while_its_keys_are_taken_is_held_and_leaves_its_place():
    world = World()
    taken = keyed(world)
    world.pause = "type:echo"
    taken(None)

    assert (world.did, world.asked, world.free) == (
        [("not keyed: None", "keyed"), ("held by type:echo", "keyed")], [], 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "others", "did"),
    [
        ({"undoing": True}, None, []),  # no pause holds what undoes
        ({}, "robot-1", [("not keyed: robot-1", "keyed")]),
        ({"deliverable": False}, None, [("not keyed: None", "keyed")]),
    ],
)
def test_a_pause_adds_nothing_where_it_does_not_hold(changes, others, did):
    world = World()
    taken = keyed(world)
    world.pause = "type:echo"
    delivery = taken.args[0]
    vars(delivery).update(changes)
    taken(others)

    assert (world.did, len(world.asked)) == (did, not did)
