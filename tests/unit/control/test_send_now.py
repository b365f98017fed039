"""A task's wait is ended: recorded first, then published, then handed over; and every step may be repeated."""

import dataclasses

import pytest

from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.control.send_now import SendNow
from dispatch.errors import InDoubt, Nacked
from dispatch.protocol import names
from dispatch.protocol.message import Copy
from dispatch.protocol.record import Record, State
from dispatch.store.handovers import Decided, DecisionAnswer
from support.cases import each
from support.unit_fakes import Failing, task_message

WAITS = Record(
    "t-1", "echo", "ada", State.RETRY_WAIT, 0, 4, 1, 4, 7, 0, 0, rung="5m", copy_attempt=2, message=task_message()
)
STATES = {State.RETRY_WAIT}


class WaitingTask:
    """A task store and hand-overs that have one record; they note what they are asked for, in order."""

    def __init__(self, record, *answers):
        self.record = record
        self.answers = list(answers)
        self.did = []
        self.publish = Failing(result=0.01)
        self.send_now_verb = SendNow(self, self, self)

    def whole(self, task_id):
        return self.record if self.record and task_id == self.record.task_id else None

    get = whole

    def send_now(self, copy, states, kind, **details):
        assert State.RETRY_WAIT in states
        self.did.append(("recorded", copy.message.seq, kind, details))
        answer = self.answers.pop(0) if self.answers else DecisionAnswer.OK
        return answer if isinstance(answer, Decided) else Decided(answer, copy if answer == "OK" else None)

    def hand_over(self, copy):
        self.did.append(("handed over", copy.message.seq))

    def send(self):
        return self.send_now_verb.send("t-1", STATES, "sent-now", by="op")


def test_it_is_recorded_published_to_the_task_exchange_and_handed_over():
    task = WaitingTask(WAITS)
    task.send()
    message, exchange, key = task.publish.calls[0]

    assert (message.seq, message.attempt, exchange, key) == (
        5,
        2,
        names.TASK_EXCHANGE,
        "robot.task.dispatch.echo",
    )
    assert task.did == [("recorded", 5, "sent-now", {"by": "op"}), ("handed over", 5)]


def test_a_call_that_was_cut_off_is_gone_on_with():
    recorded = Copy(task_message(**{"x-seq": 9}), names.TASK_EXCHANGE, "a key", names.WORK_QUEUE)
    cut_off = dataclasses.replace(WAITS, state=State.QUEUED, decided_seq=4, decision=recorded.to_json())
    task = WaitingTask(cut_off, Decided(DecisionAnswer.ROUTE, recorded))
    task.send()

    assert task.publish.calls == [(recorded.message, recorded.exchange, "a key")]
    assert task.did[-1] == ("handed over", 9)


def test_a_decision_that_leads_elsewhere_is_not_published_here():
    dead = Copy(task_message(), names.DEAD_EXCHANGE, "a key", names.DEAD_QUEUE)
    cut_off = dataclasses.replace(WAITS, state=State.QUEUED, decided_seq=4, decision=dead.to_json())
    task = WaitingTask(cut_off, *[Decided(DecisionAnswer.ROUTE, dead)] * 9)
    with pytest.raises(NotWaiting):
        task.send()

    assert task.publish.calls == []


def test_a_record_that_changes_meanwhile_is_read_again():
    task = WaitingTask(WAITS, DecisionAnswer.REFUSED, DecisionAnswer.OK)
    task.send()

    assert [what for what, *_ in task.did] == ["recorded", "recorded", "handed over"]


@each(
    ("record", "error"),
    [
        (None, UnknownTask),
        (dataclasses.replace(WAITS, state=State.SUCCEEDED), TaskTerminal),
        (dataclasses.replace(WAITS, state=State.RUNNING), NotWaiting),
        (dataclasses.replace(WAITS, state=State.QUEUED), NotWaiting),
        (dataclasses.replace(WAITS, state=State.QUEUED, decision="{}", before_redrive=State.EXPIRED), NotWaiting),
        (dataclasses.replace(WAITS, message=None), NotWaiting),
    ],
    ids=["gone", "ended", "runs", "queued", "redriven", "without its message"],
)
def test_what_does_not_wait_is_refused_and_nothing_is_recorded(record, error):
    task = WaitingTask(record)
    with pytest.raises(error):
        task.send()

    assert task.did == []


@each("error", [Nacked(), InDoubt()])
def test_what_is_recorded_and_not_published_stays_recorded(error):
    task = WaitingTask(WAITS)
    task.publish.errors = [error]
    with pytest.raises(type(error)):
        task.send()

    assert [what for what, *_ in task.did] == ["recorded"]
