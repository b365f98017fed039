"""The router: record the decision, publish the copy, hand over; an outage repeats only what is not done."""

import dataclasses
import time
import types

import pytest

from dispatch.errors import NotSent, StoreUnavailable
from dispatch.protocol import delays
from dispatch.protocol.copies import parked_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import CHECKPOINT, Message
from dispatch.protocol.retry import Dead, Failure, FailureKind, Park, Retry, parse_ladder
from dispatch.protocol.sealing import Sealing
from dispatch.protocol.waits import AskedWait
from dispatch.store.claims import Ticket
from dispatch.store.handovers import Decided, DecisionAnswer
from dispatch.tasktypes.ladders import Ladders
from dispatch.worker.handover import describe
from dispatch.worker.pace import Pace
from dispatch.worker.router import Router
from support.cases import each
from support.handover_fakes import FakeHandovers
from support.unit_fakes import Failing, task_message

LADDER = parse_ladder("1m=60,5m=300,30m=1800")
TICKET = Ticket("owner", "f" * 16, "w@test")
FAILURE = Failure(FailureKind.RETRYABLE, "upstream-timeout", "no answer")
HOPELESS = Failure(FailureKind.PERMANENT, "bad-order", "no")


class World:
    """A router and the fakes that it is made of."""

    def __init__(self):
        self.handovers = FakeHandovers()
        self.publish, self.release = Failing(result=0.01), Failing()
        self.later = Failing(result=0.01)
        self.as_it_came = Failing(result=0.01)
        self.jobs, self.dropped, self.on_loop = [], [], []
        self.ahead = 0.0  #: seconds by which this process's clock is before the server's
        self.router = Router(
            claims=types.SimpleNamespace(release=self.release),
            handovers=self.handovers,
            publisher=types.SimpleNamespace(publish=self.publish, publish_as_it_came=self.as_it_came),
            later=types.SimpleNamespace(publish=self.later),
            longest_wait=4_095,
            batcher=types.SimpleNamespace(),
            pace=Pace(),
            lost_runs=3,
            cancel_grace=30.0,
            leases=types.SimpleNamespace(drop=self.dropped.append),
            ladders=Ladders(LADDER, {"own.ladder": LADDER.subset(["5m"])}),
            executor=types.SimpleNamespace(submit=self.jobs.append),
            loop=types.SimpleNamespace(call=self.on_loop.append),
            deadline=3_600.0,
            clock=lambda: time.time() - self.ahead,
        )

    def decide(self, failure=FAILURE, **headers):
        return self.router.decide(task_message(**headers), TICKET, failure)

    def wait(self, asked, **headers):
        return self.router.wait(task_message(**headers), TICKET, asked)

    def carry_out(self, handover):
        self.router.carry_out(handover)
        return handover

    @property
    def published(self):
        return [(message.seq, message.attempt, exchange) for message, exchange, _ in self.publish.calls]


@pytest.fixture
def world():
    return World()


def test_a_failed_attempt_is_decided_published_and_handed_over(world):
    world.carry_out(world.decide())

    assert world.handovers.decisions == [(TICKET.fence, Retry(LADDER.rungs[1]), 4)]
    assert world.published == [(4, 3, "robot.retry")]
    assert world.handovers.handed_over == [("robot.retry.q.5m", "owner", 300)]


def test_a_type_with_its_own_ladder_has_its_own_number_of_attempts(world):
    handover = world.decide(task="own.ladder")
    world.carry_out(handover)

    assert handover.decision == Dead(Reason.RETRIES_EXHAUSTED)
    assert [attempts for _, _, attempts in world.handovers.decisions] == [2]


def test_a_publish_that_fails_is_repeated_with_the_same_copy_and_no_new_decision(world):
    world.publish.errors = [NotSent(), NotSent()]
    handover = world.decide()
    for _ in range(2):
        with pytest.raises(NotSent):
            world.carry_out(handover)
    world.carry_out(handover)
    first, *others = (message for message, _, _ in world.publish.calls)

    assert len(world.handovers.decisions) == 1
    assert all(message is first for message in others)
    assert len(world.handovers.handed_over) == 1


def test_nothing_is_published_before_the_decision_is_recorded(world):
    world.handovers.failing.errors = [StoreUnavailable()]
    handover = world.decide()
    with pytest.raises(StoreUnavailable):
        world.carry_out(handover)

    assert world.publish.calls == []

    world.carry_out(handover)

    assert world.published == [(4, 3, "robot.retry")]


def test_a_refused_decision_parks_the_copy_as_it_is(world):
    world.handovers.answer = Decided(DecisionAnswer.REFUSED, None)
    world.carry_out(world.decide())

    assert world.published == [(3, 2, "robot.retry")]
    assert world.handovers.handed_over == [("robot.retry.q.lease", "owner", 0.0)]


def test_a_decision_that_was_recorded_before_publishes_the_copy_of_then(world):
    then = parked_copy(task_message(**{"x-seq": 9}))
    world.handovers.answer = Decided(DecisionAnswer.ROUTE, then)
    world.carry_out(world.decide())

    assert [message for message, _, _ in world.publish.calls] == [then.message]


def test_an_outage_after_the_confirm_does_not_hold_the_ack_up(world):
    world.handovers.failing.errors = [StoreUnavailable()]
    copy = parked_copy(task_message())
    world.router.hand_over(copy, "owner")

    assert world.handovers.handed_over == []


def test_a_permanent_failure_goes_to_the_dlq_and_is_final(world):
    handover = world.decide(HOPELESS)
    world.carry_out(handover)

    assert handover.final
    assert world.published == [(4, 2, "robot.task.dlx")]
    assert world.handovers.handed_over == [("robot.task.dlq", "owner", 0.0)]


def test_a_task_waits_for_its_deadline_from_its_acceptance_on(world):
    throttled = Failure(FailureKind.THROTTLED, "throttled", "busy")
    late, fresh = world.decide(throttled), world.decide(throttled, **{"x-accepted-at": 0})

    assert late.decision == Dead(Reason.DEADLINE_EXCEEDED)
    assert isinstance(fresh.decision, Park)


def test_the_deadline_of_a_delayed_task_begins_when_it_wakes(world):
    throttled = Failure(FailureKind.THROTTLED, "throttled", "busy")
    decided = world.decide(throttled, **{"x-wakes-at": int((time.time() - 60) * 1_000)})

    assert isinstance(decided.decision, Park)


@each(("seconds", "dies"), [(299, True), (360, False)])
def test_an_attempt_that_would_begin_after_the_tasks_own_deadline_is_not_waited_for(seconds, dies):
    world = World()
    handover = world.decide(**{"x-deadline-at": int((time.time() + seconds) * 1_000)})
    world.carry_out(handover)

    assert (handover.decision == Dead(Reason.DEADLINE_EXCEEDED)) is dies
    assert [exchange for _, _, exchange in world.published] == ["robot.task.dlx" if dies else "robot.retry"]


@each("error", [None, StoreUnavailable()])
def test_a_released_lease_is_renewed_no_longer_whatever_redis_answers(error):
    world = World()
    world.release.errors = [error] if error else []
    world.router.release(task_message(), TICKET, "robot.task.q")

    assert world.dropped == [TICKET]


def test_a_dead_letter_is_published_by_a_job_and_acked_on_the_loop(world):
    done = object()
    world.router.dead_letter(Message(b"{", {"task": 7}), Reason.MALFORMED, "no task message", done)

    assert world.as_it_came.calls == []

    world.jobs[0]()
    message, exchange, key = world.as_it_came.calls[0]

    assert (exchange, key) == ("robot.task.dlx", "robot.task.dispatch")
    assert message.headers["x-dead-reason"] == "malformed"
    assert message.headers["x-dead-id"] == message.task_id
    assert world.on_loop == [done]


def test_a_dead_letter_that_cannot_be_published_is_not_acked(world):
    world.as_it_came.errors = [NotSent()]
    world.router.dead_letter(task_message(), Reason.UNKNOWN_TYPE, "unknown", lambda: None)
    with pytest.raises(NotSent):
        world.jobs[0]()

    assert world.on_loop == []

    world.jobs[0]()

    assert len(world.on_loop) == 1
    assert [message.headers.get("x-dead-id") for message, _, _ in world.as_it_came.calls] == [None, None]


@each(
    ("decision", "text"),
    [
        (Retry(LADDER.rungs[0]), "retry 1m"),
        (Park(LADDER.rungs[1]), "park 5m"),
        (Dead(Reason.PERMANENT), "dead: permanent"),
    ],
)
def test_a_decision_in_log_lines(decision, text):
    assert describe(decision) == text


def test_with_keys_an_errors_message_is_sealed_in_record_and_copy(monkeypatch, world):
    sealing = Sealing.parse("A" * 43 + "=")
    monkeypatch.setattr(world.router, "sealing", sealing)
    world.carry_out(world.decide(dataclasses.replace(FAILURE, message="KeyError: 'Ada' " * 200)))
    (copy, *_), *_ = world.publish.calls
    sealed = copy.text("x-last-error")

    assert "'Ada'" not in sealed  # with the quotes, which no sealed text has: three letters may come up in any
    assert sealing.open_text(sealed).startswith("KeyError: 'Ada'")
    assert copy.text("x-error-fingerprint") == sealing.error_fingerprint("KeyError: 'Eve' " * 200)


def test_a_step_that_waits_is_recorded_published_to_the_levels_and_handed_over(world):
    world.carry_out(world.wait(AskedWait(60.0, ("go",), '{"a":1}')))
    (message, exchange, key), *_ = world.later.calls

    assert world.handovers.waits == [(TICKET.fence, ("go",), 64, 4)]
    assert (exchange, key) == ("robot.delay.6", "robot.task.dispatch.echo")
    assert (message.seq, message.attempt, message.step, message.text(CHECKPOINT)) == (4, 1, 1, '{"a":1}')
    assert world.handovers.handed_over == [("robot.delay.q.6", "owner", 64)]
    assert not world.publish.calls


def test_a_wait_begins_a_new_ladder_unless_it_belongs_to_the_attempt(world):
    for same_attempt in (False, True):
        world.carry_out(world.wait(AskedWait(2.0, same_attempt=same_attempt), **{"x-attempt": 3}))

    assert [(message.attempt, message.headers["retries"]) for message, *_ in world.later.calls] == [(1, 0), (3, 2)]


def test_a_wait_is_a_second_at_least_and_its_slack_keeps_within_the_levels(world):
    for seconds in (0, 0.5, 4_095):
        world.carry_out(world.wait(AskedWait(float(seconds))))

    assert [seconds for _, _, seconds, _ in world.handovers.waits] == [1, 1, 4_095]


def test_a_refused_wait_parks_the_copy_as_it_is(world):
    world.handovers.answer = Decided(DecisionAnswer.REFUSED, None)
    world.carry_out(world.wait(AskedWait(60.0)))

    assert world.published == [(3, 2, "robot.retry")]


def test_with_keys_a_state_is_sealed_in_record_and_copy(world):
    world.router.sealing = Sealing((b"k" * 32,))
    world.carry_out(world.wait(AskedWait(60.0, (), '{"a":1}')))
    (message, *_), *_ = world.later.calls

    assert world.router.sealing.unsealed(message.text(CHECKPOINT)) == '{"a":1}'
    assert message.text(CHECKPOINT).startswith("sealed:")


def test_a_throttled_step_has_its_deadline_from_the_end_of_its_wait_on(world):
    late, now = Failure(FailureKind.THROTTLED, "busy", "later", 60), int(time.time() * 1_000)
    old = {"x-accepted-at": now - 90 * 86_400_000, "x-step": 1}

    assert isinstance(world.decide(late, **old).decision, Dead)
    assert isinstance(world.decide(late, **old, **{"x-step-at": now - 1_000}).decision, Park)


def test_a_wait_ends_at_the_deadline(world):
    now = int(time.time() * 1_000)
    for left in (20_000, -5_000, 600_000):
        world.carry_out(world.wait(AskedWait(60.0), **{"x-deadline-at": now + left}))

    near, past, far = (seconds for _, _, seconds, _ in world.handovers.waits)
    assert 15 <= near <= 22
    assert (past, far) == (1, 64)


def test_deadlines_go_by_the_servers_clock_and_not_by_the_workers_which_may_be_ahead():
    decided, waits = [], []
    for ahead in (0.0, 3_000.0):
        world = World()
        world.ahead = ahead
        soon = int((time.time() + 30) * 1_000)
        decided.append(world.decide(**{"x-deadline-at": soon}).decision)
        ended = world.wait(AskedWait(600.0), **{"x-deadline-at": soon}).end()
        waits.append(delays.seconds_of(ended.next.copy.message.headers))

    assert decided == [Dead(Reason.DEADLINE_EXCEEDED), Retry(LADDER.rungs[1])]
    assert waits[0] <= 32
    assert waits[1] >= 600
