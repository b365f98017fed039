"""What a refused submission leaves behind, by how certain it is that no copy of it is stored."""

import itertools
import time
from types import SimpleNamespace

import pytest

from dispatch.errors import Nacked, NotSent, Unroutable
from dispatch.protocol.record import State
from dispatch.protocol.retry import parse_ladder
from dispatch.store.idempotency import KeyState, Reservation
from dispatch.submission.submitter import Submission, Submitter
from dispatch.tasktypes.ladders import Ladders
from support.cases import each


class EchoTask:
    """Publishes as Celery's `apply_async` does."""

    def apply_async(self, args, task_id, headers, producer, **_):
        producer.publish([args, {}, {}], routing_key="robot.task.dispatch.echo", headers={**headers, "id": task_id})


class RefusedTasks:
    """The records; keeps how tasks were refused."""

    def __init__(self, reserves):
        self.reserves = reserves
        self.refused = []

    def accept(self, *_, **__):
        return State.SCHEDULED

    def refuse(self, *_, error, idempotency_key, stored_nowhere):
        self.refused.append((error.type, idempotency_key, stored_nowhere))
        return True


class FreeKeys:
    """No Idempotency-Key is in use."""

    def reserve(self, _principal, _key, _fingerprint, task_id, _rider, *, delay):
        assert delay >= 0
        return Reservation(KeyState.NEW, task_id)


def refused(error, key, reserves):
    def publish(*_):
        raise error()

    tasks = RefusedTasks(reserves)
    ladders = Ladders.of_types(parse_ladder("1m=60"), [])
    submitter = Submitter(tasks, FreeKeys(), SimpleNamespace(publish=publish), {"echo": EchoTask()}, ladders)
    echo = SimpleNamespace(name="echo", deadline=None, key_of=lambda _: "")
    with pytest.raises(error):
        submitter.submit(Submission("ada", echo, {}, "print", key, "rq-1", f"00-{'a' * 32}-{'b' * 16}-01"))
    return tasks.refused


@each(("error", "key", "reserves"), list(itertools.product((NotSent, Unroutable, Nacked), (None, "k"), (False, True))))
def test_only_the_record_of_what_no_late_copy_can_follow_soon_expires(error, key, reserves):
    slug = {NotSent: "broker-unavailable", Unroutable: "publish-unroutable", Nacked: "queue-depth-exceeded"}[error]

    assert refused(error, key, reserves) == [(slug, key, error is not Nacked and key is None)]


class Sent:
    """Two publishers, which note what they publish, and the records, which note where it waits."""

    def __init__(self):
        self.now, self.later, self.marked = [], [], []

    def accept(self, message, **_):
        self.message = message
        return State.SCHEDULED

    def mark_published(self, _message, *, queue, state, until, **_):
        self.marked.append((queue, state, until is not None))
        return True


def submitted(wakes_at, *, own=None, **more):
    sent = Sent()
    publishers = [
        SimpleNamespace(publish=lambda *copy, to=to: to.append(copy) or 0.001) for to in (sent.now, sent.later)
    ]
    ladders = Ladders.of_types(parse_ladder("1m=60"), [])
    submitter = Submitter(sent, FreeKeys(), publishers[0], {"echo": EchoTask()}, ladders, later=publishers[1])
    echo = SimpleNamespace(name="echo", deadline=own, key_of=lambda _: "")
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    given = Submission("ada", echo, {}, "", None, "rq-1", trace, wakes_at=wakes_at, **more)
    return sent, submitter.submit(given).record


def test_a_delayed_task_goes_to_the_level_of_its_highest_bit_on_a_connection_of_its_own():
    wakes_at = int((time.time() + 100) * 1_000)
    sent, record = submitted(wakes_at)
    ((message, exchange, key),) = sent.later

    assert sent.now == []
    assert (exchange, key) == ("robot.delay.6", "robot.task.dispatch.echo")
    assert [message.headers[f"delay-{level}"] for level in (6, 5, 2)] == ["1", "1", "1"]
    assert (message.headers["x-wakes-at"], message.headers["x-queued-at"]) == (wakes_at, wakes_at)
    assert not any(
        header.startswith("delay-") for header in sent.message.headers
    )  # what may be sent again is not delayed
    assert sent.marked == [("robot.delay.q.6", State.DELAYED, True)]
    assert (record.state, record.queue, record.wakes_at) == (State.DELAYED, "robot.delay.q.6", wakes_at)


@each("wakes_at", [0, 1, 1_700_000_000_000])
def test_a_task_whose_time_has_come_goes_to_the_work_queue(wakes_at):
    sent, record = submitted(wakes_at)

    assert [(exchange, key) for _, exchange, key in sent.now] == [("robot.task.topic", "robot.task.dispatch.echo")]
    assert sent.later == []
    assert sent.marked == [("robot.task.q", State.QUEUED, False)]
    assert record.state is State.QUEUED


@each(("given", "own", "seconds"), [(60, None, 60), (0, 90, 90), (60, 90, 60)])
def test_a_deadline_is_the_submissions_or_that_of_its_type(given, own, seconds):
    sent, record = submitted(0, own=own, deadline=given)
    headers = sent.message.headers

    assert headers["x-deadline"] == seconds * 1_000
    assert headers["x-deadline-at"] == headers["x-accepted-at"] + seconds * 1_000 == record.deadline_at


def test_the_deadline_of_a_task_for_later_counts_from_its_time():
    wakes_at = int((time.time() + 100) * 1_000)
    sent, record = submitted(wakes_at, deadline=60)

    assert sent.message.headers["x-deadline-at"] == wakes_at + 60_000 == record.deadline_at


def test_a_task_without_a_deadline_has_no_header_of_one():
    sent, record = submitted(0)

    assert not any("deadline" in header for header in sent.message.headers)
    assert record.deadline_at is None


class Begun(Sent):
    """A task that an earlier request with the key has published, and that waits between two steps."""

    reserves = False

    def accept(self, message, **_):
        self.message = message
        return State.WAITING

    def get(self, _task_id):
        return SimpleNamespace(state=State.WAITING, wakes_at=int((time.time() + 100) * 1_000), deadline_at=0)

    def mark_published(self, _message, *, sent_before, queue, until, **_):
        self.marked.append((sent_before, queue, until))
        return True


class InterruptedKeys:
    """Each Idempotency-Key belongs to a request that was cut off."""

    def reserve(self, _principal, _key, _fingerprint, task_id, _rider, *, delay):
        assert delay == 0
        return Reservation(KeyState.ADOPT, task_id)


def test_a_repeated_request_does_not_take_the_wait_of_its_task_for_a_delay():
    begun, ladders = Begun(), Ladders.of_types(parse_ladder("1m=60"), [])
    submitter = Submitter(begun, InterruptedKeys(), SimpleNamespace(), {"echo": EchoTask()}, ladders)
    echo = SimpleNamespace(name="echo", deadline=None, key_of=lambda _: "")
    accepted = submitter.submit(Submission("ada", echo, {}, "", "k", "rq-1", f"00-{'a' * 32}-{'b' * 16}-01"))

    assert accepted.replayed
    assert "x-wakes-at" not in begun.message.headers
    assert begun.marked == [(True, "robot.task.q", None)]
