"""The batcher: what a turn asks for is one round trip; each step gets its own answer, whatever Redis does to the others."""

import pytest

from dispatch.errors import StoreError, StoreUnavailable, Trouble
from dispatch.store.claims import Ticket, ToClaim
from dispatch.worker import batcher as module
from dispatch.worker.batcher import Batcher
from support.unit_fakes import Log, task_message
from support.waiting import eventually

SILENT = StoreUnavailable(trouble=Trouble("Redis", "no answer", "here", ""))
REFUSED = StoreError("Redis refused a command")


def step(name):
    return ToClaim(task_message(), Ticket(name, "f", "w"), 4)


class World:
    """A batcher whose steps are answered by their tickets' owners, and whose loop is the test."""

    def __init__(self):
        self.turns, self.failures, self.bad, self.answers, self.calls = [], [], set(), {}, []
        self.batcher = Batcher(self, self.calls.append)

    def turn(self, steps):
        owners = [each.ticket.owner for each in steps]
        self.turns.append(owners)
        if self.failures:
            raise self.failures.pop(0)
        if self.bad.intersection(owners):
            raise REFUSED
        return [f"answer to {owner}" for owner in owners]

    def ask(self, name, until=0.0):
        self.batcher.ask(step(name), lambda answer: self.answers.update({name: answer}), until)

    def answered(self, *names):
        def all_there():
            while self.calls:
                self.calls.pop(0)()
            return set(names) <= set(self.answers)

        self.batcher.kick()
        eventually(all_there, 10, "answers to all")
        eventually(lambda: self.batcher.idle, 10)


@pytest.fixture
def world():
    made = World()
    made.batcher.start()
    yield made
    made.batcher.stop()


def test_what_a_turn_asks_for_is_one_round_trip_and_answered_on_the_loop(world):
    world.ask("a")
    world.ask("b")
    before = (world.batcher.idle, list(world.turns))
    world.answered("a", "b")

    assert before == (False, [])
    assert world.turns == [["a", "b"]]
    assert world.answers == {"a": "answer to a", "b": "answer to b"}


def test_a_silent_redis_is_an_unknown_outcome_for_all_and_asked_once(world):
    world.failures = [SILENT]
    world.ask("a")
    world.ask("b")
    world.answered("a", "b")

    assert world.turns == [["a", "b"]]
    assert set(world.answers.values()) == {SILENT}


def test_a_step_that_redis_refuses_costs_no_other_its_answer(world):
    world.bad = {"b"}
    for name in "abc":
        world.ask(name)
    world.answered(*"abc")

    assert world.turns == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert world.answers == {"a": "answer to a", "b": REFUSED, "c": "answer to c"}


def test_a_mistake_of_ours_costs_no_other_step_its_answer_either(world, monkeypatch):
    monkeypatch.setattr(module, "log", log := Log())
    world.failures = [ValueError("oops"), ValueError("oops")]
    world.ask("a")
    world.ask("b")
    world.answered("a", "b")

    assert isinstance(world.answers["a"], StoreError)
    assert (world.answers["b"], log.events) == ("answer to b", ["a run's transition failed"])


def test_a_step_with_time_left_is_tried_again(world, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    world.failures = [SILENT, SILENT]
    world.ask("a", until=float("inf"))
    world.ask("b")
    world.answered("a", "b")

    assert (world.answers["a"], world.answers["b"]) == ("answer to a", SILENT)
    assert world.turns == [["a", "b"], ["a"], ["a"]]


def test_what_follows_an_answer_and_fails_costs_no_other_step_what_follows_its_own(world, monkeypatch):
    monkeypatch.setattr(module, "log", log := Log())
    world.batcher.ask(step("bad"), lambda _: 1 // 0)
    world.ask("good")
    world.answered("good")

    assert log.events == ["what follows a run's transition failed"]
