"""The recorder: each copy of a dead letter is acked once its record is FAIL, and recorded again while it cannot be."""

import types

import pytest

from dispatch.deadletters import recorder as module
from dispatch.deadletters.recorder import MAX_WAITING, RECORD_AGAIN, DeadLetterRecorder
from dispatch.errors import StoreUnavailable
from dispatch.protocol.retry import parse_ladder
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.store.dead_letters import DeadLetterAnswer
from dispatch.tasktypes.ladders import Ladders
from support.cases import each
from support.unit_fakes import Log, ManualClock

WHOLE = parse_ladder("1m=60,5m=300,30m=1800")


class FakeMessage:
    """A dead letter as kombu delivers it."""

    content_type = content_encoding = None
    body = b"{"

    def __init__(self, **headers):
        self.headers = {"id": "t-1", "task": "short", "x-dead-reason": "permanent", **headers}
        self.properties, self.delivery_info = {}, {}
        self.ended = []

    def ack(self):
        self.ended.append("acked")

    def requeue(self):
        self.ended.append("requeued")


class FakeRecords:
    """Answers with `answer`; an error is raised."""

    def __init__(self):
        self.recorded, self.answer = [], DeadLetterAnswer.OK

    def record(self, dead_letter, *, reason, max_attempts):
        self.recorded.append((dead_letter.task_id, reason, max_attempts))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "log", Log())
    return clock


def made(keys=NO_KEYS):
    records = FakeRecords()
    return DeadLetterRecorder("amqp://", records, Ladders(WHOLE, {"short": WHOLE.subset(["5m"])}), keys), records


@each("answer", [answer for answer in DeadLetterAnswer if answer is not DeadLetterAnswer.BUSY])
def test_a_dead_letter_that_is_recorded_is_acked(answer):
    recorder, records = made()
    records.answer, message = answer, FakeMessage()
    recorder._on_message(message)

    assert message.ended == ["acked"]
    assert records.recorded == [("t-1", "permanent", 2)]


def test_a_dead_letter_that_no_key_of_ours_signed_changes_no_record():
    recorder, records = made(MessageKeys.parse(f"one:{'k' * 32}"))
    message = FakeMessage()
    recorder._on_message(message)

    assert message.ended == ["acked"]
    assert records.recorded == []


@each("answer", [DeadLetterAnswer.BUSY, StoreUnavailable()])
def test_a_dead_letter_that_cannot_be_recorded_yet_waits_unacked(clock, answer):
    recorder, records = made()
    records.answer, message = answer, FakeMessage()
    recorder._on_message(message)
    clock.now += RECORD_AGAIN / 2
    recorder._record_waiting()

    assert (message.ended, len(records.recorded)) == ([], 1)

    clock.now += RECORD_AGAIN
    records.answer = DeadLetterAnswer.OK
    recorder._record_waiting()

    assert message.ended == ["acked"]
    assert recorder._waiting == []


@pytest.mark.usefixtures("clock")
def test_a_dead_letter_that_can_never_be_recorded_holds_up_no_other():
    recorder, records = made()
    records.answer, message = ValueError("a mistake"), FakeMessage()
    recorder._on_message(message)

    assert message.ended == ["acked"]
    assert recorder._waiting == []


def test_of_too_many_that_wait_the_oldest_goes_to_the_back_of_the_queue():
    recorder, records = made()
    records.answer = DeadLetterAnswer.BUSY
    recorder.pause = lambda _seconds: None
    messages = [FakeMessage() for _ in range(MAX_WAITING + 2)]
    for message in messages:
        recorder._on_message(message)

    assert [message.ended for message in messages[:3]] == [["requeued"], ["requeued"], []]
    assert len(recorder._waiting) == MAX_WAITING


def test_a_dead_letter_that_was_never_checked_gets_an_id_and_a_reason():
    recorder, records = made()
    recorder._on_message(FakeMessage(id="a b", task=7, **{"x-dead-reason": None, "x-death": [{"reason": "expired"}]}))
    ((task_id, reason, attempts),) = records.recorded

    assert task_id != "a b"
    assert (reason, attempts) == ("expired", 4)


def test_after_a_reconnect_what_waited_is_the_brokers_again(monkeypatch):
    class Refused:
        def __init__(self, *_args, **_options):
            raise ConnectionRefusedError

    monkeypatch.setattr(module.connections, "connection", Refused)
    recorder, _ = made()
    recorder._waiting.append((0.0, types.SimpleNamespace()))
    with pytest.raises(ConnectionRefusedError):
        recorder.step()

    assert recorder._waiting == []
