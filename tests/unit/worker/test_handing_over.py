"""Hand-overs: those that come together share each step; what keeps one from it costs the others nothing."""

import threading
import types

import pytest

from dispatch.errors import InDoubt, Nacked, NotSent, StoreError, StoreUnavailable
from dispatch.protocol import names
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.retry import Dead, Failure, FailureKind, Retry, parse_ladder
from dispatch.protocol.sealing import UNSEALED
from dispatch.protocol.waits import AskedWait
from dispatch.store.claims import Ticket
from dispatch.store.handovers import Decided, DecisionAnswer
from dispatch.worker import handing_over as module
from dispatch.worker.handing_over import HandingOver, HandOverBatcher
from dispatch.worker.handover import FailedHandOver, WaitingHandOver
from support.cases import each
from support.handover_fakes import FakeHandovers
from support.unit_fakes import Failing, task_message
from support.waiting import eventually

LADDER = parse_ladder("1m=60,5m=300,30m=1800")
FAILURE = Failure(FailureKind.RETRYABLE, "boom", "no")


class FakePublisher:
    """Confirms what it is given, but for tasks with an error."""

    def __init__(self):
        self.errors, self.together, self.alone = {}, [], []

    def publish_many(self, copies):
        self.together.append([copy.message.task_id for copy in copies])
        return [self.errors.pop(copy.message.task_id, None) for copy in copies]

    def publish(self, message, exchange, _routing_key):
        self.alone.append((message.task_id, exchange))
        if error := self.errors.pop(message.task_id, None):
            raise error
        return 0.01


class World:
    """The steps, the thread, and the fakes that they are made of."""

    def __init__(self):
        self.handovers, self.claims, self.jobs, self.ended = FakeHandovers(), Failing(result=True), [], []
        self.publisher, self.later = FakePublisher(), FakePublisher()
        claims = types.SimpleNamespace(claim_again=self.claims)
        self.steps = HandingOver(claims, self.handovers, self.publisher, self.later, LADDER)
        executor = types.SimpleNamespace(submit=self.jobs.append)
        self.batcher = HandOverBatcher(self.steps, executor)

    def failed(self, task_id, decision=None, **message):
        ticket = Ticket(f"owner of {task_id}", f"fence of {task_id}", "w@test")
        decision = decision or Retry(LADDER.rungs[0])
        return FailedHandOver(
            task_message(id=task_id, **message), ticket, 4, UNSEALED, failure=FAILURE, decision=decision
        )

    def waits(self, task_id):
        ticket = Ticket(f"owner of {task_id}", "f", "w@test")
        return WaitingHandOver(task_message(id=task_id), ticket, 4, UNSEALED, asked=AskedWait(5.0), seconds=5)

    def job(self, handover):
        """What follows a hand-over, as a request does it."""

        def whole():
            self.steps.one(handover)
            self.ended.append((handover.message.task_id, threading.current_thread().name))

        return whole

    def run(self, *handovers, brief=True):
        """Hand over together."""
        for each_one in handovers:
            self.batcher.submit(each_one, self.job(each_one), brief=brief)
        self.batcher.start()
        eventually(lambda: self.batcher.idle, 5)
        self.batcher.stop()

    @property
    def on_the_thread(self):
        return [task_id for task_id, thread in self.ended if thread == "hand-overs"]


@pytest.fixture
def world():
    return World()


def test_those_that_come_together_share_each_step(world):
    tasks = [world.failed("a"), world.failed("b", Dead(Reason.PERMANENT)), world.waits("c")]
    world.run(*tasks)

    assert world.handovers.trips == [("decide", 3), ("hand over", 3)]
    assert (world.publisher.together, world.later.together) == ([["a", "b"]], [["c"]])
    assert world.handovers.handed_over == [
        ("robot.retry.q.1m", "owner of a", 60.0),
        ("robot.task.dlq", "owner of b", 0.0),
        (names.delay_queue(2), "owner of c", 5.0),
    ]
    assert (world.on_the_thread, world.jobs) == (["a", "b", "c"], [])
    assert all(task.through for task in tasks)
    assert not world.publisher.alone


@each("error", [InDoubt("no confirm"), NotSent(), Nacked()])
def test_one_that_is_not_confirmed_goes_on_alone_and_is_decided_once(error):
    world = World()
    world.publisher.errors["b"] = error
    world.run(world.failed("a"), world.failed("b"))

    assert (world.on_the_thread, len(world.jobs)) == (["a"], 1)
    assert world.handovers.trips == [("decide", 2), ("hand over", 1)]

    world.jobs[0]()

    assert world.publisher.alone == [("b", names.RETRY_EXCHANGE)]
    assert world.handovers.trips[2:] == [("hand over", 1)]
    assert [queue for queue, _, _ in world.handovers.handed_over] == ["robot.retry.q.1m"] * 2


@each("error", [StoreUnavailable(), StoreError("refused"), ValueError("a mistake")])
def test_what_keeps_all_of_them_costs_none(monkeypatch, error):
    monkeypatch.setattr(module, "log", types.SimpleNamespace(exception=lambda *_: None))
    world = World()
    world.handovers.failing.errors = [error]
    world.run(world.failed("a"), world.failed("b"))

    assert (world.ended, len(world.jobs)) == ([], 2)

    for job in world.jobs:
        job()

    assert world.handovers.trips == [("decide", 2), *[("decide", 1), ("hand over", 1)] * 2]


def test_an_outage_after_the_confirms_holds_no_ack_up(world):
    answers = iter([None, StoreUnavailable()])

    def failing():
        if error := next(answers):
            raise error

    world.handovers.failing = failing
    world.run(world.failed("a"), world.failed("b"))

    assert (world.on_the_thread, world.handovers.handed_over) == (["a", "b"], [])


def test_a_cancelled_one_publishes_nothing_and_what_follows_may_wait(world):
    world.handovers.answers["b"] = Decided(DecisionAnswer.CANCELLED, None)
    cancelled = world.failed("b")
    world.run(world.failed("a"), cancelled)

    assert (world.publisher.together, world.on_the_thread, len(world.jobs)) == ([["a"]], ["a"], 1)
    assert (cancelled.cancelled, cancelled.through, cancelled.copy) == (True, True, None)

    world.jobs[0]()

    assert world.handovers.trips == [("decide", 2), ("hand over", 1)]


def test_what_may_wait_afterwards_holds_nothing_up(world):
    world.run(world.failed("a"), brief=False)
    (job,) = world.jobs
    job()

    assert world.handovers.trips == [("decide", 1), ("hand over", 1)]
    assert [task_id for task_id, _ in world.ended] == ["a"]


def test_what_follows_is_tried_again_where_it_fails(monkeypatch, world):
    monkeypatch.setattr(module, "log", types.SimpleNamespace(exception=lambda *_: None))
    handover, follows = world.failed("a"), Failing(StoreUnavailable(), result=None)
    world.batcher.submit(handover, follows, brief=True)
    world.run()

    assert (handover.through, world.jobs) == (True, [follows])


def test_a_batch_takes_no_more_than_redis_and_rabbitmq_can_answer_in_time(monkeypatch, world):
    monkeypatch.setattr(module, "_LARGEST", 2 * len(task_message().body))
    world.run(*(world.failed(task_id) for task_id in "abcde"))

    assert world.publisher.together == [["a", "b"], ["c", "d"], ["e"]]


@each(("claimed", "queue"), [(True, "robot.retry.q.1m"), (False, "robot.retry.q.lease")])
def test_a_run_whose_claim_redis_has_lost_claims_again_before_it_is_decided(claimed, queue):
    world = World()
    world.claims.result = claimed
    world.handovers.answers["a"] = Decided(DecisionAnswer.UNCLAIMED, None)
    world.run(world.failed("a"), world.failed("b"))

    assert len(world.claims.calls) == 1
    assert world.handovers.handed_over[0] == (queue, "owner of a", 60.0 if claimed else 0.0)
    assert world.on_the_thread == ["a", "b"]


def test_it_is_idle_when_all_is_through_or_the_executors(world):
    world.batcher.submit(world.failed("a"), lambda: None, brief=True)
    before = world.batcher.idle
    world.run()

    assert (before, world.batcher.idle) == (False, True)
