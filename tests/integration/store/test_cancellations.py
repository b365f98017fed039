"""A cancellation in each state of a task, and what it leaves in every index."""

import time

import pytest

from dispatch.protocol import names
from dispatch.protocol.copies import held_copy, redriven_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import WEBHOOK, Copy
from dispatch.protocol.record import State
from dispatch.protocol.retry import Dead
from dispatch.protocol.webhooks import Webhook
from dispatch.store.cancellations import CancelAnswer, Cancellations
from dispatch.store.claims import ClaimAnswer
from dispatch.store.dead_letters import DeadLetterAnswer
from dispatch.store.handovers import DecisionAnswer
from dispatch.store.holds import HoldAnswer, Holds
from dispatch.store.usage import Held


def _cancel(case):
    return case.stores.cancellations.cancel(case.task_id, by="op")


def _indexes(case):
    """The indexes that a task which has ended leaves."""
    return [name for name in ("due", "waiting") if case.redis.zscore(f"{case.prefix}{name}", case.task_id) is not None]


def _scheduled(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)


def _delayed(case):
    _scheduled(case)
    case.store.mark_published(case.message, queue="q", max_attempts=4, idempotency_key=None, state=State.DELAYED)


def _retry_wait(case):
    case.accept()
    ticket = case.run()
    case.handovers.hand_over(case.decide(ticket).copy, owner=ticket.owner, wait=60)


def _decided(case):
    """A worker has recorded its decision and has not published the copy."""
    case.accept()
    case.decide(case.run())


def _lapsed(case):
    """A worker that ran it is gone."""
    case.accept()
    case.run()
    case.lapse()


def _redriven(case):
    """A redrive is recorded, and its copy is not published."""
    case.accept()
    letter = case.die()
    case.dead_letters.redrive(letter, redriven_copy(letter), by="op", max_attempts=4)


NOT_RUNNING = {
    State.SCHEDULED: _scheduled, State.DELAYED: _delayed, State.QUEUED: lambda case: case.accept(),
    State.RETRY_WAIT: _retry_wait, "decided": _decided, "lapsed": _lapsed, "redriven": _redriven,
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_RUNNING)
def test_a_task_that_does_not_run_ends_at_once_and_leaves_no_index(case, name):
    NOT_RUNNING[name](case)
    answer, again = _cancel(case), _cancel(case)
    record = case.store.whole(case.task_id)

    assert (answer, again) == (CancelAnswer.CANCELLED, CancelAnswer.CANCELLED)
    assert (record.state, record.error.type, record.error.message) == (
        State.CANCELLED,
        "cancelled",
        "cancelled by op",
    )
    assert (record.message, record.decision, record.before_redrive, record.next_attempt_at) == (None,) * 4
    assert record.finished_at is not None
    assert case.kinds().count("cancelled") == 1
    assert case.store.usage.read("ada") == Held(0, 0, 0)
    assert (_indexes(case), case.listed()) == ([], [])
    assert not case.claims.leased(case.task_id)
    assert 0 < case.redis.pttl(f"{case.prefix}task:{{{case.task_id}}}") <= case.settings.result_ttl * 1_000 + 60_000


@pytest.mark.parametrize("name", NOT_RUNNING)
def test_no_copy_of_a_cancelled_task_runs(case, name):
    NOT_RUNNING[name](case)
    cycle = case.record().cycle
    _cancel(case)
    answers = {case.claim(case.copy(cycle=cycle, seq=seq)).answer for seq in (0, 1, 2, 5)}

    assert answers == {ClaimAnswer.CANCELLED}


def test_the_record_of_a_delayed_task_is_kept_until_its_copy_must_have_come(case):
    later = int((time.time() + 40 * 86_400) * 1_000)
    case.message = case.message.with_headers(**{"x-wakes-at": later})
    _delayed(case)
    _cancel(case)

    left = case.redis.pttl(f"{case.prefix}task:{{{case.task_id}}}")
    assert left > 40 * 86_400_000


def test_a_running_task_is_asked_to_stop_and_its_failure_ends_it_without_a_retry(case):
    case.accept()
    ticket = case.run()
    answers = [_cancel(case), _cancel(case)]
    asked = case.record()
    handler = case.claims.progress(case.task_id, ticket.fence, None)
    renewed = case.claims.renew({ticket: (case.message, 4)})
    decided = case.decide(ticket)
    record = case.record()

    assert answers == [CancelAnswer.REQUESTED] * 2
    assert (asked.state, asked.cancel_requested, handler) == (State.RUNNING, True, True)
    assert (renewed.lost, [*renewed.to_stop]) == ([], [ticket])
    assert 0 <= renewed.to_stop[ticket] < 10
    assert (decided.answer, decided.copy) == (DecisionAnswer.CANCELLED, None)
    assert record.state is State.CANCELLED
    assert case.kinds() == ["accepted", "published", "started", "cancel-requested", "failed", "cancelled"]
    assert case.store.usage.read("ada") == Held(0, 0, 0)
    assert _indexes(case) == []


def test_a_success_that_comes_first_wins(case):
    case.accept()
    ticket = case.run()
    _cancel(case)
    done = case.claims.complete(case.message, ticket, {"a": 1}, 4)

    assert done
    assert case.record().state is State.SUCCEEDED
    assert _cancel(case) is CancelAnswer.TERMINAL


def test_a_run_that_is_given_back_after_the_request_ends(case):
    case.accept()
    ticket = case.run()
    _cancel(case)
    case.claims.release(case.message, ticket, "q")

    assert case.record().state is State.CANCELLED
    assert case.claim().answer is ClaimAnswer.CANCELLED


def test_a_run_that_is_lost_after_the_request_ends_at_the_next_claim(case):
    case.accept()
    case.run()
    _cancel(case)
    case.lapse()

    assert case.claim().answer is ClaimAnswer.CANCELLED
    assert case.record().state is State.CANCELLED
    assert case.kinds()[-2:] == ["lost", "cancelled"]


def test_a_death_that_was_decided_first_wins(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket, Dead(Reason.PERMANENT)).copy
    answer = _cancel(case)
    case.handovers.hand_over(copy, owner=ticket.owner)

    assert answer is CancelAnswer.REQUESTED
    assert case.record().state is State.DEAD_LETTERED
    assert _cancel(case) is CancelAnswer.TERMINAL


def test_a_dead_letter_of_a_cancelled_task_is_stale(case):
    case.accept()
    _cancel(case)
    answer = case.dead_letters.record(case.message, reason=Reason.EXPIRED, max_attempts=4)

    assert answer is DeadLetterAnswer.OLD
    assert case.record().state is State.CANCELLED
    assert case.task_id in case.dead_letters.flagged()


def test_a_redrive_forgets_the_request_of_the_cycle_before(case):
    case.accept()
    ticket = case.run()
    letter = case.decide(ticket, Dead(Reason.PERMANENT)).copy
    _cancel(case)
    case.handovers.hand_over(letter, owner=ticket.owner)
    again = redriven_copy(letter.message)
    case.dead_letters.redrive(letter.message, again, by="me", max_attempts=4)
    case.dead_letters.finish_redrive(again)
    ticket = case.run(again.message)

    assert not case.record().cancel_requested
    assert case.decide(ticket, message=again.message).answer is DecisionAnswer.OK


def test_a_step_that_ends_in_a_wait_after_the_request_is_followed_by_one_at_once_in_which_it_undoes(case):
    case.accept()
    ticket = case.run()
    _cancel(case)
    copy = case.wait(ticket).copy
    case.handovers.hand_over(copy, owner=ticket.owner)
    undoing = case.run(copy.message)
    asked = case.claims.progress(case.task_id, undoing.fence, None)
    again = case.wait(undoing, copy.message)
    record = case.record()

    assert (copy.exchange, copy.message.step, asked) == (names.TASK_EXCHANGE, 1, True)
    assert (again.answer, record.state) == (DecisionAnswer.CANCELLED, State.CANCELLED)


def _undoing(case):
    """Its type undoes what a cancelled task has begun."""
    return Cancellations(case.stores.redis, case.settings, ["other", "echo"]).cancel(case.task_id, by="op")


@pytest.mark.parametrize("name", ["lapsed", State.RETRY_WAIT, "decided"])
def test_a_task_whose_type_undoes_and_that_has_begun_runs_once_more(case, name):
    NOT_RUNNING[name](case)
    answer = _undoing(case)
    if name == "decided":  # its worker hands it over after all
        case.handovers.hand_over(Copy.from_json(case.store.whole(case.task_id).decision), owner="owner-1", wait=60)
    record = case.record()
    seq = 1 if name != "lapsed" else 0
    ticket = case.run(case.copy(seq=seq, attempt=1 + seq))
    asked = case.claims.progress(case.task_id, ticket.fence, None)

    assert answer is (CancelAnswer.REQUESTED if name == "lapsed" else CancelAnswer.WAKE)
    assert (record.cancel_requested, asked) == (True, True)


@pytest.mark.parametrize("name", [State.SCHEDULED, State.DELAYED, State.QUEUED])
def test_a_task_whose_type_undoes_and_that_has_not_begun_ends_at_once(case, name):
    NOT_RUNNING[name](case)

    assert _undoing(case) is CancelAnswer.CANCELLED
    assert case.record().state is State.CANCELLED


def test_an_attempt_that_fails_in_the_middle_of_its_cancellation_is_undone_by_the_next_one_and_no_further(case):
    case.accept()
    ticket = case.run()
    _undoing(case)
    first = case.decide(ticket)
    case.handovers.hand_over(first.copy, owner=ticket.owner, wait=1)
    ticket = case.run(first.copy.message)
    second = case.decide(ticket, message=first.copy.message)

    assert [first.answer, second.answer] == [DecisionAnswer.OK, DecisionAnswer.CANCELLED]
    assert case.record().state is State.CANCELLED


def _held_between_steps(case):
    """It has waited, and a pause holds its next step."""
    case.accept()
    ticket = case.run()
    step = case.wait(ticket).copy
    case.handovers.hand_over(step, owner=ticket.owner)
    held = _hold(case, step.message)
    case.handovers.hand_over(held.copy, wait=600)
    return held.copy.message


def _hold(case, message):
    return Holds(case.stores.redis).hold(message, held_copy(message, 600), "all", 4)


def test_a_task_that_is_held_between_two_steps_is_woken_and_nothing_holds_it_again(case):
    held = _held_between_steps(case)
    answers = [_cancel(case), _cancel(case)]
    again = _hold(case, held)
    undoing = case.run(held)
    asked = case.claims.progress(case.task_id, undoing.fence, None)

    assert (answers, again.answer, asked) == ([CancelAnswer.WAKE] * 2, HoldAnswer.UNDO, True)


def test_a_task_that_is_held_before_it_has_begun_ends_at_once(case):
    case.accept()
    case.handovers.hand_over(_hold(case, case.message).copy, wait=600)

    assert _undoing(case) is CancelAnswer.CANCELLED


def test_the_end_of_a_cancelled_task_that_the_sweeper_finds_is_announced_by_it(case):
    case.message = case.message.with_headers(**{WEBHOOK: Webhook("https://example.org/").written()})
    case.accept()
    case.run()
    _cancel(case)
    case.lapse()
    announced = []
    quick = case.settings.model_copy(update={"queue_ttl": 0.0, "sweep_margin": 0.0, "lease": 0.0})
    sweeper = case.stores.sweeper(None, quick, ended=announced.append)
    case.stores.reminders.set(case.task_id, 0)
    time.sleep(0.01)
    sweeper.sweep()

    assert [(one.task_id, one.state) for one in announced] == [(case.task_id, State.CANCELLED)]
    assert (_indexes(case), case.store.usage.read("ada")) == ([], Held(0, 0, 0))


@pytest.mark.parametrize("webhook", [True, False])
def test_the_sweeper_is_reminded_of_a_cancelled_task_that_has_a_webhook(case, webhook):
    if webhook:
        case.message = case.message.with_headers(**{WEBHOOK: Webhook("https://example.org/").written()})
    case.accept()
    _cancel(case)

    assert _indexes(case) == (["due"] if webhook else [])


def test_a_task_without_a_record_cannot_be_cancelled(case):
    assert _cancel(case) is CancelAnswer.MISSING
    assert case.record() is None
