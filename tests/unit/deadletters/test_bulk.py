"""Bulk redrives: as text in Redis, what is left of one that was interrupted, what one takes out of the DLQ."""

import dataclasses

import pytest

from dispatch.deadletters import bulk as module
from dispatch.deadletters.bulk import BulkRedrive, BulkRedrives, discard_matching, redrive_matching
from dispatch.deadletters.service import NoSuchDeadLetter, RedriveOutcome
from dispatch.deadletters.walk import StopWalk
from dispatch.errors import StoreUnavailable
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.message import Message
from support.cases import each
from support.unit_fakes import FakeRedis, task_message

BULK = BulkRedrive(DeadLetterFilter(type="echo"), limit=100, rate=2.5, by="ada")
LIST = "robot:dead:jobs"
DEAD_LETTERS = [task_message(id="a"), task_message(id="b", task="other"), task_message(id="c"), task_message(id="d")]


@each(
    "bulk", [BULK, BulkRedrive(DeadLetterFilter("t", "e", "i"), 1, 0, "ü"), BulkRedrive(DeadLetterFilter(), 1, 0.1, "")]
)
def test_a_bulk_redrive_survives_redis(bulk):
    assert BulkRedrive.from_json(bulk.to_json()) == bulk


def test_the_oldest_one_is_next_and_stays_until_it_is_done():
    redis = FakeRedis(LINDEX=[BULK.to_json(), None])
    bulks = BulkRedrives(redis)
    bulks.add(BULK)
    found = [bulks.next(), bulks.next()]
    bulks.finish(BULK)

    assert found == [BULK, None]
    assert redis.commands == [
        ("RPUSH", LIST, BULK.to_json()),
        ("LINDEX", LIST, 0),
        ("LINDEX", LIST, 0),
        ("LREM", LIST, 1, BULK.to_json()),
    ]


def test_what_is_left_of_an_interrupted_one_comes_first_before_the_whole_goes():
    redis = FakeRedis()
    BulkRedrives(redis).shorten(BULK, 40)
    rest = dataclasses.replace(BULK, limit=60)

    assert redis.trips == [(("LPUSH", LIST, rest.to_json()), ("LREM", LIST, -1, BULK.to_json()))]


class FakeService:
    """Redrives with the outcomes of the test, `SENT` by default."""

    def __init__(self, **outcomes):
        self.outcomes, self.redriven, self.discarded, self.failure = outcomes, [], [], None

    def redrive_message(self, dead_letter, *, by):
        self.redriven.append((dead_letter.task_id, by))
        return self.outcomes.get(dead_letter.task_id, RedriveOutcome.SENT)

    def discard(self, task_id, *, by):
        if self.failure:
            raise self.failure
        self.discarded.append((task_id, by))


@pytest.fixture
def taken(monkeypatch):
    """What a walk through `DEAD_LETTERS` took out."""
    out = []

    def walk(_url, _lock, visit, *, rate=0.0):
        assert rate in (0.0, BULK.rate)
        for dead_letter in DEAD_LETTERS:
            try:
                if visit(dead_letter):
                    out.append(dead_letter.headers.get("id"))
            except StopWalk:
                break
        return len(out)

    monkeypatch.setattr(module, "walk", walk)
    return out


def redrive(service, bulk=BULK):
    return redrive_matching("amqp://", service, object(), bulk)


def test_what_matches_is_redriven_and_leaves(taken):
    service = FakeService()

    assert redrive(service) == 3
    assert service.redriven == [("a", "ada"), ("c", "ada"), ("d", "ada")]
    assert taken == ["a", "c", "d"]


def test_only_what_was_sent_counts_and_only_what_is_over_leaves(taken):
    service = FakeService(a=RedriveOutcome.STALE, c=RedriveOutcome.LIVE, d=RedriveOutcome.TOO_LARGE)

    assert redrive(service) == 0
    assert taken == ["a"]


def test_a_walk_ends_at_its_limit(taken):
    service = FakeService(a=RedriveOutcome.STALE)

    assert redrive(service, dataclasses.replace(BULK, limit=1)) == 1
    assert taken == ["a", "c"]


def test_a_dead_letter_without_an_id_is_redriven_under_one(monkeypatch):
    nameless = Message(b"{", {})
    monkeypatch.setattr(module, "walk", lambda _url, _lock, visit, **_: visit(nameless))
    service = FakeService()
    redrive(service, dataclasses.replace(BULK, filter=DeadLetterFilter()))

    assert service.redriven == [(nameless.dead_letter_id, "ada")]


def discard(service):
    return discard_matching("amqp://", service, object(), DeadLetterFilter(type="echo"), by="ada")


def test_what_is_discarded_leaves_with_or_without_a_record(taken):
    service = FakeService()
    service.failure = NoSuchDeadLetter()

    assert discard(service) == 3
    assert taken == ["a", "c", "d"]


def test_nothing_leaves_while_its_record_cannot_be_written(taken):
    service = FakeService()
    service.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        discard(service)

    assert taken == []
