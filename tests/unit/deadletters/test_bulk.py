"""Bulk redrives: as text in Redis, what is left of one that was interrupted, what one takes out of the DLQ."""

import dataclasses

import pytest

from dispatch.deadletters import bulk as module
from dispatch.deadletters.bulk import (
    MOST_JOBS,
    BulkRedrive,
    BulkRedrives,
    discard_matching,
    find_unauthentic,
    redrive_matching,
)
from dispatch.deadletters.service import NoSuchDeadLetter, RedriveOutcome
from dispatch.deadletters.walk import StopWalk
from dispatch.errors import StoreUnavailable
from dispatch.protocol.copies import dead_copy
from dispatch.protocol.dead_letters import CLAIMS_TOO_MUCH, DeadLetterFilter, Reason
from dispatch.protocol.message import Message
from dispatch.protocol.signatures import MessageKeys
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
    redis = FakeRedis(LRANGE=[[]], LINDEX=[BULK.to_json(), None])
    bulks = BulkRedrives(redis)
    assert bulks.add(BULK)
    found = [bulks.next(), bulks.next()]
    bulks.finish(BULK)

    assert found == [BULK, None]
    assert redis.commands == [
        ("LRANGE", LIST, 0, MOST_JOBS),
        ("RPUSH", LIST, BULK.to_json()),
        ("LINDEX", LIST, 0),
        ("LINDEX", LIST, 0),
        ("LREM", LIST, 1, BULK.to_json()),
    ]


def test_no_more_jobs_wait_than_are_read_as_a_whole():
    redis = FakeRedis(LRANGE=[["{}"] * MOST_JOBS])

    assert not BulkRedrives(redis).add(BULK)
    assert redis.commands == [("LRANGE", LIST, 0, MOST_JOBS)]


def test_what_is_left_of_an_interrupted_one_comes_first_before_the_whole_goes():
    redis = FakeRedis()
    BulkRedrives(redis).shorten(BULK, 40)
    rest = dataclasses.replace(BULK, limit=60)

    assert redis.commands == [("replace_entry", (LIST,), BULK.to_json(), rest.to_json())]


def test_one_that_a_former_release_stored_has_no_id():
    text = '{"filter": {"type": "echo", "error_type": null, "task_id": null}, "limit": 100, "rate": 2.5, "by": "ada"}'

    assert BulkRedrive.from_json(text) == BULK


def test_a_stopped_one_ends_before_the_next_dead_letter(taken):
    service, asked = FakeService(), iter([True, False])
    sent = redrive_matching("amqp://", service, object(), BULK, wanted=lambda: next(asked))

    assert (sent, taken) == (1, ["a"])


class FakeService:
    """Redrives with the outcomes of the test, `SENT` by default."""

    def __init__(self, **outcomes):
        self.outcomes, self.redriven, self.discarded, self.failure = outcomes, [], [], None

    def redrive_message(self, dead_letter, *, by, **_mend):
        self.redriven.append((dead_letter.task_id, by))
        return self.outcomes.get(dead_letter.task_id, RedriveOutcome.SENT)

    def discard(self, task_id, *, by):
        if self.failure:
            raise self.failure
        self.discarded.append((task_id, by))


def walking(monkeypatch, letters, out):
    """Let walks go through these letters; what they take out is added."""

    def walk_side_by_side(_url, _lock, work, settle, *, at_once, rate):
        assert rate in (0.0, BULK.rate)
        for letter in letters:
            assert rate == 0 or at_once() == 1
            try:
                if settle(letter, work(letter)):
                    out.append(letter.headers.get("id"))
            except StopWalk:
                break
        return len(out)

    def walk(url, lock, visit):
        return walk_side_by_side(url, lock, visit, lambda _, taken: taken, at_once=lambda: 1, rate=0.0)

    monkeypatch.setattr(module, "walk_side_by_side", walk_side_by_side)
    monkeypatch.setattr(module, "walk", walk)


@pytest.fixture
def taken(monkeypatch):
    """What a walk through `DEAD_LETTERS` took out."""
    out = []
    walking(monkeypatch, DEAD_LETTERS, out)
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
    walking(monkeypatch, [nameless], [])
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


KEYS = MessageKeys.parse(f"one:{'k' * 32}")


def test_with_keys_only_what_they_signed_is_redriven(monkeypatch):
    letters = [task_message(id="a"), KEYS.sign(task_message(id="b"))]
    taken, outcomes, service = [], [], FakeService()
    walking(monkeypatch, letters, taken)
    redrive_matching(
        "amqp://", service, object(), BULK, keys=KEYS, on_outcome=lambda _, outcome: outcomes.append(outcome)
    )

    assert outcomes == [RedriveOutcome.UNAUTHENTIC, RedriveOutcome.SENT]
    assert (service.redriven, taken) == ([("b", "ada")], ["b"])


def test_what_no_key_signed_is_discarded_without_the_task_whose_id_it_has(taken):
    service = FakeService()
    discard_matching("amqp://", service, object(), DeadLetterFilter(type="echo"), by="ada", keys=KEYS)

    assert (taken, service.discarded) == (["a", "c", "d"], [])


def test_what_nothing_of_ours_wrote_is_found_in_the_dlq_itself(monkeypatch):
    told = dead_copy(KEYS.sign(task_message(id="c")), Reason.UNAUTHENTIC, CLAIMS_TOO_MUCH).message
    letters = [task_message(id="a"), KEYS.sign(task_message(id="b")), told, task_message(id="d", task="other")]
    walking(monkeypatch, letters, [])
    found = find_unauthentic("amqp://", object(), DeadLetterFilter(type="echo"), KEYS, limit=9)

    assert [(letter.task_id, fault) for letter, fault in found] == [("a", "it is not signed"), ("c", CLAIMS_TOO_MUCH)]
