"""What a child's submission leaves behind in Redis when the broker, a quota, or the handler itself stands in its way."""

import contextlib

import pytest

from celery_app import create_celery
from dispatch.errors import InDoubt, Nacked, NotSent, PermanentError, Throttled, Unroutable
from dispatch.protocol.ids import is_task_id, issued_at
from dispatch.protocol.message import PARENT_ID, PRINCIPAL
from dispatch.protocol.record import State
from dispatch.store.children import ChildEntries
from dispatch.submission.children import ChildSubmitter, ChildTask
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submitter
from dispatch.tasktypes.ladders import Ladders
from support.case import Case
from support.cases import each

TRACE = f"00-{'c' * 32}-{'d' * 16}-01"


class Verdicts:
    """A publisher whose first verdicts are errors."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.sent = []

    def publish(self, message, exchange, routing_key):
        self.sent.append((message, exchange, routing_key))
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return 0.001


class Nursery:
    """A parent, and what submits its children."""

    def __init__(self, settings, *errors):
        self.case = Case(settings)
        self.publisher = Verdicts(*errors)
        celery, stores = create_celery(settings), self.case.stores
        ladders = Ladders.of_types(settings.ladder, celery.dispatch_types.values())
        submitter = Submitter(stores.tasks, stores.idempotency, self.publisher, celery.tasks, ladders)
        entries = ChildEntries(stores.redis)
        once = OnceSubmitter(submitter, stores.tasks, entries, settings)
        self.submitter = ChildSubmitter(once, celery.dispatch_types, max_body=settings.max_body, longest_delay=1_000)
        self.case.accept()

    def submit(self, key="k", message="x", parent=None, **more):
        child = ChildTask(**{"type": "echo", "payload": {"message": message}, "key": key, **more})
        return self.submitter.submit(parent or self.case.message, TRACE, child)

    def state(self, task_id):
        return self.case.store.get(task_id).state

    @property
    def children(self):
        return self.case.store.list(parent_id=self.case.task_id).items


@pytest.fixture
def nursery(settings):
    with contextlib.ExitStack() as stack:

        def make(*errors, **more):
            made = Nursery(settings.model_copy(update=more), *errors)
            stack.callback(made.case.close)
            return made

        yield make


def test_the_same_key_is_the_same_task_and_another_key_or_cycle_another_one(nursery):
    family = nursery()
    first = family.submit("a")
    ids = [first, family.submit("a", "other"), family.submit("b"), family.submit("a", parent=family.case.copy(cycle=1))]
    message, exchange, key = family.publisher.sent[0]

    assert len(set(ids)) == 3
    assert ids[0] == ids[1]
    assert len(family.publisher.sent) == 3
    assert (exchange, key) == ("robot.task.topic", "robot.task.dispatch.echo")
    assert (message.headers[PARENT_ID], message.headers[PRINCIPAL]) == (family.case.task_id, "ada")
    assert message.headers["traceparent"] == TRACE
    assert all(is_task_id(each) for each in ids)
    assert issued_at(first) == issued_at(family.case.task_id)
    assert family.case.store.get(first).to_json()["parentId"] == family.case.task_id


@each(
    ("error", "type"),
    [
        (Nacked(), "queue-depth-exceeded"), (NotSent(), "broker-unavailable"), (Unroutable(), "publish-unroutable"),
    ],
)  # fmt: skip
def test_what_the_broker_refused_never_runs_and_the_repeated_step_submits_another(nursery, error, type):
    family = nursery(error)
    with pytest.raises(Throttled) as raised:
        family.submit()
    refused = family.publisher.sent[0][0].task_id
    again = [family.submit(), family.submit()]

    assert raised.value.type == type
    assert family.state(refused) is State.REJECTED
    assert again[0] == again[1] != refused
    assert family.state(again[0]) is State.QUEUED
    assert [child.task_id for child in family.children] == [again[0]]


def test_an_unconfirmed_child_goes_on_as_it_was(nursery):
    family = nursery(InDoubt())
    with pytest.raises(Throttled) as raised:
        family.submit(message="first", delay=100)
    again = family.submit(message="second", delay=50)
    (first, *_), (second, exchange, _) = family.publisher.sent

    assert raised.value.type == "publish-unconfirmed"
    assert first.task_id == second.task_id == again
    assert (first.body, first.headers["x-wakes-at"]) == (second.body, second.headers["x-wakes-at"])
    assert exchange.startswith("robot.delay.")
    assert family.state(again) is State.DELAYED


def test_a_child_that_has_ended_and_whose_record_is_gone_is_not_submitted_again(nursery):
    family = nursery()
    child = family.submit()
    family.case.redis.delete(*family.case.stores.redis.keys.task(child))

    assert family.submit() == child
    assert len(family.publisher.sent) == 1


def test_a_quota_that_is_used_up_refuses_a_new_child_and_no_repeated_one(nursery):
    family = nursery(quota_open_tasks=2)
    child = family.submit("a")
    with pytest.raises(Throttled) as raised:
        family.submit("b")

    assert raised.value.type == "quota-exceeded"
    assert family.submit("a") == child


@each(
    "changed",
    [
        {"type": "no.such"}, {"type": "robot.schedule"}, {"payload": {"message": 1}}, {"payload": {"massage": "x"}}, {"payload": {"message": "x" * 300_000}},
        {"payload": {"message": float("nan")}}, {"payload": {"message": object()}}, {"key": ""}, {"key": "k" * 201}, {"delay": -1},
        {"delay": 1_001}, {"delay": float("nan")}, {"labels": {"Bad Key": "x"}}, {"labels": {str(n): "x" for n in range(9)}},
    ],
)  # fmt: skip
def test_what_can_never_be_submitted_is_a_permanent_error_and_leaves_nothing(nursery, changed):
    family = nursery()
    with pytest.raises(PermanentError) as raised:
        family.submit(**changed)

    assert raised.value.type == "invalid-child"
    assert family.publisher.sent == family.children == []
