"""The operator's verbs on one dead letter: recorded first, published, then finished, or undone where nothing was stored."""

import dataclasses

import pytest

from dispatch.deadletters.service import (
    DeadLetterService,
    NoSuchDeadLetter,
    NotDead,
    RedriveOutcome,
    TooLarge,
    without_secrets,
)
from dispatch.errors import InDoubt, Nacked, NotSent, StoreUnavailable, Unroutable
from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.mending import Mend
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import parse_ladder
from dispatch.store.handovers import Decided, DecisionAnswer
from dispatch.store.index import Page
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import Payload, Secret
from dispatch.tasktypes.registry import TaskType
from support.cases import each
from support.unit_fakes import Failing, task_message

WHOLE = parse_ladder("1m=60,5m=300,30m=1800")
LADDERS = Ladders(WHOLE, {"short": WHOLE.subset(["5m"])})
DEAD = Record("t-1", "echo", "ada", State.DEAD_LETTERED, 1, 5, 4, 4, 7, 0, 0, message=task_message())


class World:
    """A service, the records it reads, and what it did, in order."""

    def __init__(self, *records):
        self.held = {record.task_id: record for record in records}
        self.did, self.answer, self.attempts = [], None, None
        self.pages, self.cursors = [list(records)], []
        self.publish = Failing(result=0.01)
        self.service = DeadLetterService(self, self, self, LADDERS)

    # the task store
    def whole(self, task_id):
        return self.held.get(task_id)

    def get(self, task_id):
        record = self.held.get(task_id)
        return record and dataclasses.replace(record, message=None)

    def hops(self, task_id):
        return [] if task_id in self.held else None

    # the records of dead letters
    def redrive(self, dead_letter, copy, *, by, max_attempts, **_mend):
        self.did.append(("recorded", dead_letter.cycle, dead_letter.seq, by))
        self.attempts = max_attempts
        return self.answer or Decided(DecisionAnswer.OK, copy)

    def finish_redrive(self, copy):
        self.did.append(("finished", copy.message.cycle))

    def undo_redrive(self, copy):
        self.did.append(("undone", copy.message.cycle))

    def discard(self, task_id, *, by):
        self.did.append(("discarded", task_id, by))
        return task_id in self.held

    def list(self, _wanted, *, cursor, **_more):
        self.cursors.append(cursor)
        number = int(cursor or 0)
        return Page(self.pages[number], str(number + 1) if number + 1 < len(self.pages) else None)


def test_a_redrive_is_recorded_published_and_finished():
    world = World(DEAD)
    world.service.redrive("t-1", by="op")
    message, exchange, key = world.publish.calls[0]

    assert world.did == [("recorded", 1, 5, "op"), ("finished", 2)]
    assert (message.cycle, message.seq, message.attempt) == (2, 6, 1)
    assert (exchange, key) == ("robot.task.topic", "robot.task.dispatch.echo")


def test_a_mended_redrive_publishes_the_new_payload_and_one_that_was_recorded_before_wins():
    world = World(DEAD)
    mend = Mend({"message": "mended"})
    assert world.service.redrive_message(task_message(), by="op", mend=mend) is RedriveOutcome.SENT
    (message, *_), *_ = world.publish.calls
    world.answer = Decided(DecisionAnswer.ROUTE, redriven_copy(task_message()))
    overtaken = world.service.redrive_message(task_message(), by="op", mend=mend)

    assert b"mended" in message.body
    assert overtaken is RedriveOutcome.OVERTAKEN
    assert [step for step, *_ in world.did] == ["recorded", "finished"] * 2
    with pytest.raises(NotDead):
        world.service.redrive("t-1", by="op", mend=mend)


def test_a_redrive_allows_the_attempts_of_its_type():
    world = World(DEAD)
    world.service.redrive_message(task_message(task="short"), by="op")

    assert world.attempts == 2


@each("error", [NotSent(), Nacked(), Unroutable()])
def test_a_copy_that_is_stored_nowhere_makes_it_a_dead_letter_again(error):
    world = World(DEAD)
    world.publish.errors = [error]
    with pytest.raises(type(error)):
        world.service.redrive("t-1", by="op")

    assert [step for step, *_ in world.did] == ["recorded", "undone"]


def test_a_copy_in_doubt_leaves_the_redrive_as_it_was_recorded():
    world = World(DEAD)
    world.publish.errors = [InDoubt()]
    with pytest.raises(InDoubt):
        world.service.redrive("t-1", by="op")

    assert [step for step, *_ in world.did] == ["recorded"]


def test_a_redrive_that_was_cut_off_publishes_the_copy_of_then():
    then = redriven_copy(task_message(**{"x-cycle": 1, "x-seq": 5, "x-request-id": "then"}))
    cut_off = dataclasses.replace(
        DEAD, state=State.SCHEDULED, cycle=2, before_redrive=State.DEAD_LETTERED, decided_seq=5, seq=9
    )
    world = World(cut_off)
    world.answer = Decided(DecisionAnswer.ROUTE, then)
    world.service.redrive("t-1", by="op")

    assert world.did[0] == ("recorded", 1, 5, "op")
    assert world.publish.calls[0][0] == then.message


@each(
    ("answer", "outcome"),
    [(DecisionAnswer.REFUSED, RedriveOutcome.STALE), (DecisionAnswer.BUSY, RedriveOutcome.LIVE)],
)
def test_what_is_no_dead_letter_any_more_is_not_sent(answer, outcome):
    world = World(DEAD)
    world.answer = Decided(answer, None)

    assert world.service.redrive_message(task_message(), by="op") is outcome
    assert world.publish.calls == []
    with pytest.raises(NotDead):
        world.service.redrive("t-1", by="op")


def test_what_no_worker_could_take_is_not_even_recorded():
    large = task_message(**{"x-too-large": "5 MB"})
    world = World(dataclasses.replace(DEAD, message=large))

    assert world.service.redrive_message(large, by="op") is RedriveOutcome.TOO_LARGE
    with pytest.raises(TooLarge):
        world.service.redrive("t-1", by="op")
    assert world.did == []


@each(
    "record",
    [None, dataclasses.replace(DEAD, discarded=True), dataclasses.replace(DEAD, message=None)],
    ids=["unknown", "discarded", "without its message"],
)
def test_without_a_dead_letter_there_is_nothing_to_redrive(record):
    world = World(*[record] if record else [])
    with pytest.raises(NoSuchDeadLetter):
        world.service.redrive("t-1", by="op")


def test_a_live_task_is_not_redriven():
    with pytest.raises(NotDead, match="the task is RUNNING, not a dead letter"):
        World(dataclasses.replace(DEAD, state=State.RUNNING)).service.redrive("t-1", by="op")


@each("state", [State.SUCCEEDED, State.RUNNING])
def test_only_a_dead_letter_is_found(state):
    world = World(DEAD, dataclasses.replace(DEAD, task_id="t-2", state=state))

    assert world.service.find("t-1") == DEAD
    for task_id in ("t-2", "t-3"):
        with pytest.raises(NoSuchDeadLetter):
            world.service.find(task_id)


def test_what_a_filter_matches_is_read_page_by_page():
    world = World()
    world.pages = [[DEAD, DEAD], [], [DEAD]]

    assert len(list(world.service.matching(DeadLetterFilter(type="echo")))) == 3
    assert world.cursors == [None, "1", "2"]


def test_a_count_ends_at_its_most():
    world = World()
    world.pages = [[DEAD, DEAD], [DEAD]]

    assert world.service.count(DeadLetterFilter(), most=2) == 2
    assert world.cursors == [None]


def test_a_filter_for_one_task_reads_its_record_alone():
    world = World(DEAD, dataclasses.replace(DEAD, task_id="t-2", state=State.QUEUED))

    assert list(world.service.matching(DeadLetterFilter(task_id="t-1"))) == [dataclasses.replace(DEAD, message=None)]
    assert world.service.count(DeadLetterFilter(task_id="t-2"), most=9) == 0
    assert world.cursors == []


def test_a_discarded_dead_letter_must_have_been_there():
    world = World(DEAD)
    world.service.discard("t-1", by="op")
    with pytest.raises(NoSuchDeadLetter):
        world.service.discard("t-2", by="op")

    assert world.did == [("discarded", "t-1", "op"), ("discarded", "t-2", "op")]


def test_an_outage_at_the_end_of_a_redrive_is_reported():
    world = World(DEAD)
    world.finish_redrive = Failing(StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        world.service.redrive("t-1", by="op")

    assert len(world.publish.calls) == 1


class Order(Payload):
    name: str = ""
    token: Secret = ""


ORDER = TaskType("order", Order, lambda _order, _ctx: None, None, 300.0, "Order.")


def test_a_body_is_shown_without_its_secrets_wherever_they_stand():
    body = [[{"name": "ada", "token": "hush-hush"}], {}, {"chain": [{"args": ["hush-hush"]}]}]
    shown = without_secrets(body, ORDER)

    assert "hush" not in repr(shown)
    assert shown[0][0]["name"] == "ada"
    assert body[0][0]["token"] == "hush-hush"


@each("known", [ORDER, None])
def test_a_body_without_secrets_is_shown_as_it_is(known):
    body = [[{"name": "ada"}], {}, {}]

    assert without_secrets(body, known) is body


def test_of_a_type_that_is_not_known_what_has_a_name_that_secrets_have_is_not_shown():
    body = [[{"name": "ada", "deep": [{"apiKey": "hush-hush"}]}], {}, {"chain": [{"args": ["hush-hush"]}]}]
    shown = without_secrets(body, None)

    assert shown == [[{"name": "ada", "deep": [{"apiKey": "[secret]"}]}], {}, {"chain": [{"args": ["[secret]"]}]}]


@each("body", [None, 7, {}, [], [[], {}, {}]])
def test_what_is_no_body_is_an_error_that_callers_expect(body):
    with pytest.raises((ValueError, TypeError)):
        without_secrets(body, ORDER)
