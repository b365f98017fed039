"""The hold of a copy, against every state that its record may be in."""

import dataclasses

import pytest

from dispatch.protocol.copies import held_copy, next_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import MAX_UNRECORDED, Message
from dispatch.protocol.record import ErrorInfo, State
from dispatch.protocol.retry import Failure, FailureKind, Retry
from dispatch.store.claims import ClaimAnswer, Ticket
from dispatch.store.holds import HoldAnswer, Holds
from dispatch.store.pauses import HeldTasks
from support.stores import Stores

FAILURE = Failure(FailureKind.RETRYABLE, "boom", "it failed")


@pytest.fixture
def stores(settings):
    made = Stores(settings)
    yield made
    made.close()


@pytest.fixture
def message(stores):
    headers = {"id": new_task_id(), "task": "echo", "x-principal": "p", "x-cycle": 0, "x-seq": 0, "x-attempt": 1}
    made = Message(b"[[{}],{},{}]", headers, routing_key="robot.task.dispatch.echo")
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    return made


def hold(stores, message, by="type:echo"):
    return Holds(stores.redis).hold(message, held_copy(message, 600), by, 4)


def ticket(name="w"):
    return Ticket(f"owner-{name}", f"fence-{name}", name)


def test_a_copy_is_held_and_its_next_one_may_run(stores, message):
    held = hold(stores, message)
    stores.handovers.hand_over(held.copy, wait=600)
    record = stores.tasks.get(message.task_id)
    run = stores.claims.claim(held.copy.message, ticket(), 4)

    assert held.answer is HoldAnswer.HELD
    assert (record.state, record.held_by, record.seq, record.attempt) == (State.HELD, "type:echo", 1, 0)
    assert (record.queue, record.next_attempt_at) == ("robot.hold.q", None)
    assert run.answer is ClaimAnswer.RUN
    assert list(HeldTasks(stores.redis).holders()) == ["type:echo"]


def test_the_copy_that_was_held_finds_its_decision_and_then_is_stale(stores, message):
    held = hold(stores, message)
    again, claimed = hold(stores, message, by="all"), stores.claims.claim(message, ticket(), 4)
    stores.handovers.hand_over(held.copy, wait=600)

    assert (again.answer, again.copy) == (HoldAnswer.ROUTE, held.copy)
    assert (claimed.answer, claimed.copy) == (ClaimAnswer.ROUTE, held.copy)
    assert hold(stores, message).answer is HoldAnswer.STALE
    assert stores.claims.claim(message, ticket(), 4).answer is ClaimAnswer.STALE


def test_what_runs_is_not_held(stores, message):
    stores.claims.claim(message, ticket(), 4)

    assert hold(stores, message).answer is HoldAnswer.BUSY
    assert stores.tasks.get(message.task_id).state is State.RUNNING


def test_a_run_whose_worker_is_gone_is_held_and_counts_as_lost(stores, message):
    stores.claims.claim(message, ticket(), 4)
    stores.redis.run(("DEL", stores.redis.keys.task(message.task_id).lease))
    held = hold(stores, message)
    stores.handovers.hand_over(held.copy, wait=600)
    record = stores.tasks.get(message.task_id)

    assert (held.answer, record.state, record.lost_runs) == (HoldAnswer.HELD, State.HELD, 1)
    assert stores.claims.complete(message, ticket(), {}, 4) is False


def test_what_has_ended_is_not_held(stores, message):
    stores.claims.claim(message, ticket(), 4)
    stores.claims.complete(message, ticket(), {}, 4)

    assert hold(stores, message).answer is HoldAnswer.DONE


def test_what_was_refused_is_not_held(stores, message):
    stores.tasks.reject(message, error=ErrorInfo("x", "y", retryable=True), idempotency_key=None)

    assert hold(stores, message).answer is HoldAnswer.CANCELLED


def test_an_attempt_that_was_decided_is_routed(stores, message, settings):
    stores.claims.claim(message, ticket(), 4)
    decision = Retry(settings.ladder.rungs[0])
    planned = next_copy(message, FAILURE, decision, 1)
    stores.handovers.decide(message, ticket(), planned, FAILURE, decision, max_attempts=4)
    held = hold(stores, message)

    assert (held.answer, held.copy) == (HoldAnswer.ROUTE, planned)


@pytest.mark.parametrize(("seq", "answer"), [(3, HoldAnswer.HELD), (100, HoldAnswer.FOREIGN)])
def test_a_copy_that_is_ahead_of_its_record(stores, message, seq, answer):
    assert hold(stores, message.with_headers(**{"x-seq": seq})).answer is answer


def test_without_a_record_it_is_rebuilt_from_the_message(stores, message):
    lost = dataclasses.replace(message, headers={**message.headers, "id": new_task_id()})
    held = hold(stores, lost)
    stores.handovers.hand_over(held.copy, wait=600)

    assert (held.answer, stores.tasks.get(lost.task_id).state) == (HoldAnswer.HELD, State.HELD)
    assert lost.task_id in [item.task_id for item in stores.tasks.list(principal="p").items]


def test_a_message_without_a_record_that_claims_too_much_is_foreign(stores, message):
    wild = {**message.headers, "id": new_task_id(), "x-seq": MAX_UNRECORDED + 1}

    assert hold(stores, dataclasses.replace(message, headers=wild)).answer is HoldAnswer.FOREIGN


def test_a_task_that_is_held_again_is_listed_as_of_then_and_an_old_reader_does_not_drop_it(stores, message):
    tasks = HeldTasks(stores.redis)
    hold(stores, message)
    ((_, since),) = tasks.first("type:echo", 5)
    stores.redis.run(("ZADD", stores.redis.keys.held_by("type:echo"), since + 1, message.task_id))
    tasks.drop("type:echo", [(message.task_id, since)])
    kept = tasks.counts(["type:echo"])
    tasks.drop("type:echo", [(message.task_id, since + 1)])

    assert kept == {"type:echo": 1}
    assert tasks.counts(["type:echo", "all"]) == {"type:echo": 0, "all": 0}
