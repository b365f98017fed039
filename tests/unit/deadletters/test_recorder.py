"""The recorder: each copy of a dead letter is acked once its record is FAIL, and recorded again while it cannot be."""

import itertools
import types

import pytest

from dispatch.broker.decoding import decode
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
    channel = types.SimpleNamespace(connection=object())
    numbers = itertools.count(1)

    def __init__(self, **headers):
        self.delivery_tag = next(self.numbers)
        self.headers = {"id": "t-1", "task": "short", "x-dead-reason": "permanent", **headers}
        self.properties, self.delivery_info = {}, {}
        self._state = "RECEIVED"

    @property
    def ended(self):
        return [] if self._state == "RECEIVED" else [self._state]

    def ack_log_error(self, *_, **__):
        self._state = "ACK"

    def requeue(self):
        self._state = "REQUEUED"


class FakeRecords:
    """Answers with `answer`, or with that of the task id; an error is raised."""

    def __init__(self):
        self.recorded, self.answer, self.answers, self.trips = [], DeadLetterAnswer.OK, {}, 0

    def record_many(self, deaths):
        self.trips += 1
        found = [self.answers.get(death.message.task_id, self.answer) for death in deaths]
        self.recorded += [(death.message.task_id, death.reason, death.max_attempts) for death in deaths]
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return found


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "log", Log())
    return clock


def take(recorder, *messages):
    for message in messages:
        recorder._arrives(message)
    recorder._record_arrived()


def made(keys=NO_KEYS):
    records = FakeRecords()
    return DeadLetterRecorder("amqp://", records, Ladders(WHOLE, {"short": WHOLE.subset(["5m"])}), keys), records


@each("answer", [answer for answer in DeadLetterAnswer if answer is not DeadLetterAnswer.BUSY])
def test_a_dead_letter_that_is_recorded_is_acked(answer):
    recorder, records = made()
    records.answer, message = answer, FakeMessage()
    take(recorder, message)

    assert message.ended == ["ACK"]
    assert records.recorded == [("t-1", "permanent", 2)]


def test_a_dead_letter_that_no_key_of_ours_signed_changes_no_record():
    recorder, records = made(MessageKeys.parse(f"one:{'k' * 32}"))
    message = FakeMessage()
    take(recorder, message)

    assert message.ended == ["ACK"]
    assert records.recorded == []


@each("answer", [DeadLetterAnswer.BUSY, StoreUnavailable()])
def test_a_dead_letter_that_cannot_be_recorded_yet_waits_unacked(clock, answer):
    recorder, records = made()
    records.answer, message = answer, FakeMessage()
    take(recorder, message)
    clock.now += RECORD_AGAIN / 2
    recorder._record_waiting()

    assert (message.ended, len(records.recorded)) == ([], 1)

    clock.now += RECORD_AGAIN
    records.answer = DeadLetterAnswer.OK
    recorder._record_waiting()

    assert message.ended == ["ACK"]
    assert recorder._waiting == []


@pytest.mark.usefixtures("clock")
def test_a_dead_letter_that_can_never_be_recorded_holds_up_no_other():
    recorder, records = made()
    records.answer, message = ValueError("a mistake"), FakeMessage()
    take(recorder, message)

    assert message.ended == ["ACK"]
    assert recorder._waiting == []


def test_dead_letters_that_come_together_are_recorded_together():
    recorder, records = made()
    records.answers = {"t-2": DeadLetterAnswer.BUSY}
    messages = [FakeMessage(id=f"t-{number}") for number in range(4)]
    take(recorder, *messages)

    assert records.trips == 1
    assert [message.ended for message in messages] == [["ACK"], ["ACK"], [], ["ACK"]]
    assert [message for _, message in recorder._waiting] == messages[2:3]
    assert recorder._arrived == []


@pytest.mark.usefixtures("clock")
def test_one_that_can_never_be_recorded_costs_those_that_came_with_it_nothing():
    recorder, records = made()
    records.answers = {"t-1": ValueError("a mistake")}
    messages = [FakeMessage(id=f"t-{number}") for number in range(3)]
    take(recorder, *messages)

    assert records.trips == 1 + 3
    assert [message.ended for message in messages] == [["ACK"]] * 3


def test_while_redis_is_away_all_that_came_together_wait():
    recorder, records = made()
    records.answer = StoreUnavailable("gone")
    messages = [FakeMessage(id=f"t-{number}") for number in range(3)]
    take(recorder, *messages)

    assert records.trips == 1
    assert [message.ended for message in messages] == [[]] * 3
    assert [message for _, message in recorder._waiting] == messages


def test_one_that_no_key_of_ours_signed_is_passed_over_among_others():
    keys = MessageKeys.parse(f"one:{'k' * 32}")
    recorder, records = made(keys)
    signed = FakeMessage(id="t-2")
    signed.headers |= keys.sign(decode(signed)).headers
    messages = [FakeMessage(), signed]
    take(recorder, *messages)

    assert [task_id for task_id, _, _ in records.recorded] == ["t-2"]
    assert [message.ended for message in messages] == [["ACK"]] * 2


def test_of_too_many_that_wait_the_oldest_goes_to_the_back_of_the_queue():
    recorder, records = made()
    records.answer = DeadLetterAnswer.BUSY
    recorder.pause = lambda _seconds: None
    messages = [FakeMessage() for _ in range(MAX_WAITING + 2)]
    for message in messages:
        take(recorder, message)

    assert [message.ended for message in messages[:3]] == [["REQUEUED"], ["REQUEUED"], []]
    assert len(recorder._waiting) == MAX_WAITING


def test_a_dead_letter_that_was_never_checked_gets_an_id_and_a_reason():
    recorder, records = made()
    recorder._take([FakeMessage(id="a b", task=7, **{"x-dead-reason": None, "x-death": [{"reason": "expired"}]})])
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
