"""Waits and signals against a real Redis: what is recorded, what ends a wait, and what is refused."""

import dataclasses

import pytest

from dispatch.protocol import names
from dispatch.protocol.copies import resent_copy, step_copy
from dispatch.protocol.record import State
from dispatch.protocol.waits import MAX_SIGNALS
from dispatch.store.cancellations import CancelAnswer
from dispatch.store.claims import ClaimAnswer
from dispatch.store.handovers import DecisionAnswer
from dispatch.store.scripts import MAX_HOPS
from dispatch.store.signals import NewSignal, SignalAnswer

GO, STOP = (NewSignal(name, '{"a":1}', "ada") for name in ("go", "stop"))


def handed_over(case, decided):
    case.handovers.hand_over(decided.copy, owner=f"owner-{case._owners}", wait=60)
    return decided.copy.message


def waiting(case, until=("go",), message=None):
    """A task that waits, and its copy in the levels."""
    return handed_over(case, case.wait(case.run(message), message, until))


def add(case, signal, *, ends=True):
    """Record a signal as a gateway does that has just read the record."""
    return case.stores.signals.add(case.task_id, signal, resent_copy(case.store.whole(case.task_id)) if ends else None)


# --- waits -------------------------------------------------------------------------------------------
def test_a_wait_is_recorded_with_its_state_and_uses_up_no_attempt(case):
    ticket = case.run(case.copy(attempt=3, seq=4))
    decided = case.wait(ticket, case.copy(attempt=3, seq=4), until=("go",))
    before = case.store.whole(case.task_id)
    case.handovers.hand_over(decided.copy, owner=ticket.owner, wait=60)
    record = case.store.whole(case.task_id)

    assert (decided.answer, decided.copy.exchange) == (DecisionAnswer.OK, names.delay_exchange(5))
    assert (before.state, before.decided_seq, before.step, before.checkpoint) == (State.WAITING, 4, 1, "{}")
    assert (record.state, record.seq, record.copy_attempt, record.waiting_for) == (State.WAITING, 5, 1, ("go",))
    assert 55_000 < record.wakes_at - record.updated_at <= 60_000
    assert not case.claims.leased(case.task_id)


def test_the_next_steps_claim_ends_the_wait_and_keeps_the_progress(case):
    ticket = case.run()
    case.claims.progress(case.task_id, ticket.fence, {"percent": 40, "message": "area 2"})
    following = handed_over(case, case.wait(ticket))
    case.run(following)
    record = case.record()

    assert (record.state, record.step, record.attempt) == (State.RUNNING, 1, 1)
    assert record.progress == {"percent": 40, "message": "area 2"}
    assert case.claim(case.copy()).answer is ClaimAnswer.STALE


def test_a_wait_whose_answer_was_lost_is_the_same_when_it_is_asked_for_again(case):
    ticket = case.run()
    first, again = case.wait(ticket), case.wait(ticket)

    assert (first.answer, again.answer) == (DecisionAnswer.OK, DecisionAnswer.ROUTE)
    assert again.copy == first.copy
    assert case.claim(case.copy()).copy == first.copy
    assert case.kinds().count("waiting") == 1


def test_a_run_that_was_taken_over_records_no_wait(case):
    old = case.run()
    case.lapse()
    case.run()

    assert case.wait(old).answer is DecisionAnswer.REFUSED


def test_a_record_that_redis_lost_is_rebuilt_by_a_wait_and_by_the_claim_of_its_copy(case):
    ticket = case.run()
    case.wipe()
    decided = case.wait(ticket)
    rebuilt = case.store.whole(case.task_id)
    case.wipe()
    case.run(decided.copy.message)
    record = case.store.whole(case.task_id)

    assert (rebuilt.state, rebuilt.step, rebuilt.checkpoint) == (State.WAITING, 1, "{}")
    assert (record.state, record.step, record.checkpoint, record.started_at) == (State.RUNNING, 1, "{}", 1)
    assert case.store.list(principal="ada").items[0].task_id == case.task_id


def test_a_copy_ahead_of_a_redis_that_lost_its_last_second_brings_its_state_along(case):
    following = waiting(case)
    later = step_copy(following, '{"later":1}', 60, 1).message
    case.run(later)
    record = case.store.whole(case.task_id)

    assert (record.seq, record.step, record.checkpoint) == (2, 2, '{"later":1}')


def test_a_wait_without_a_state_leaves_none(case):
    following = waiting(case)
    decided = case.wait(case.run(following), following, checkpoint=None)

    assert "x-checkpoint" not in decided.copy.message.headers
    assert case.store.whole(case.task_id).checkpoint is None


def test_the_hops_of_a_task_that_polls_for_hours_are_those_of_its_beginning_and_its_last_steps(case):
    case.accept()
    message = case.message
    for _ in range(MAX_HOPS):
        ticket = case.run(message)
        case.claims.progress(case.task_id, ticket.fence, {"percent": 1, "message": "polls"})
        message = handed_over(case, case.wait(ticket, message))
    kinds = case.kinds()

    assert kinds[:3] == ["accepted", "published", "started"]
    assert kinds[-3:] == ["started", "progress", "waiting"]
    assert len(kinds) <= MAX_HOPS / 2 + 3
    assert case.store.hops(case.task_id)[-1]["step"] == MAX_HOPS


def test_a_task_that_is_to_be_stopped_has_one_more_step_to_undo_what_it_has_begun(case):
    ticket = case.run()
    asked = case.stores.cancellations.cancel(case.task_id, by="ada")
    first = case.wait(ticket)
    message = handed_over(case, first)
    second_ticket = case.run(message)
    stops = case.claims.progress(case.task_id, second_ticket.fence, None)
    second = case.wait(second_ticket, message)

    assert asked is CancelAnswer.REQUESTED
    assert (first.answer, first.copy.queue, stops) == (DecisionAnswer.OK, names.WORK_QUEUE, True)
    assert (second.answer, case.record().state) == (DecisionAnswer.CANCELLED, State.CANCELLED)


# --- signals -----------------------------------------------------------------------------------------
def test_a_signal_ends_the_wait_that_is_for_it_and_the_copy_in_the_levels_is_stale(case):
    delayed = waiting(case)
    recorded = add(case, GO)
    case.handovers.hand_over(recorded.copy)
    state = case.record().state
    case.run(recorded.copy.message)
    answer = case.claim(delayed).answer

    assert (recorded.answer, recorded.copy.queue, state) == (SignalAnswer.SENT, names.WORK_QUEUE, State.QUEUED)
    assert answer is ClaimAnswer.STALE
    assert recorded.copy.message.text("x-checkpoint") == "{}"
    assert [(signal.name, signal.payload) for signal in case.stores.signals.read(case.task_id)] == [("go", {"a": 1})]


@pytest.mark.parametrize("ends", ["success", "cancel", "discard"])
def test_a_record_outlives_the_copy_whose_wait_a_signal_has_ended(case, ends):
    month = 30 * 86_400
    decided = case.wait(case.run(), until=("go",), seconds=month)
    case.handovers.hand_over(decided.copy, owner=f"owner-{case._owners}", wait=month)
    recorded = add(case, GO)
    case.handovers.hand_over(recorded.copy)
    message = recorded.copy.message
    if ends == "success":
        case.claims.complete(message, case.run(message), {}, 4)
    elif ends == "cancel":
        ticket = case.run(message)
        case.stores.cancellations.cancel(case.task_id, by="op")
        case.decide(ticket, message=message)
    else:
        case.die(message)
        case.dead_letters.discard(case.task_id, by="op")

    assert case.record().state.terminal
    assert case.redis.pttl(case.stores.redis.keys.task(case.task_id).record) > month * 1_000
    assert case.claim(decided.copy.message).answer in (ClaimAnswer.DONE, ClaimAnswer.CANCELLED)


def test_a_signal_takes_the_place_of_a_copy_that_is_decided_and_not_published(case):
    decided = case.wait(case.run(), until=("go",))
    recorded = add(case, GO)
    late = case.handovers.hand_over(decided.copy, wait=60)  # by the worker that decided
    case.handovers.hand_over(recorded.copy)
    case.run(recorded.copy.message)

    assert late is None
    assert recorded.copy.message.seq == decided.copy.message.seq + 1
    assert case.claim(decided.copy.message).answer is ClaimAnswer.STALE


@pytest.mark.parametrize("signal", [STOP, dataclasses.replace(GO, name="g")])
def test_another_signal_is_kept_and_ends_no_wait(case, signal):
    waiting(case)

    assert add(case, signal).answer is SignalAnswer.KEPT
    assert case.record().state is State.WAITING


def test_a_signal_that_comes_before_the_wait_ends_it_once(case):
    ticket = case.run()
    add(case, STOP, ends=False)
    add(case, GO, ends=False)
    first = case.wait(ticket, until=("go",))
    message = handed_over(case, first)
    second = case.wait(case.run(message), message, until=("go",))
    message = handed_over(case, second)
    third = case.wait(case.run(message), message, until=("go", "stop"))

    assert [each.copy.queue == names.WORK_QUEUE for each in (first, second, third)] == [True, False, True]
    assert [hop.get("seconds") for hop in case.store.hops(case.task_id) if hop["kind"] == "waiting"] == [0, 60, 0]


def test_a_signal_that_has_ended_a_wait_ends_no_other_one(case):
    waiting(case)
    recorded = add(case, GO)
    case.handovers.hand_over(recorded.copy)
    message = recorded.copy.message

    assert case.wait(case.run(message), message, until=("go",)).copy.queue != names.WORK_QUEUE


def test_a_repeated_key_records_nothing_and_brings_the_decided_copy_along_until_it_is_handed_over(case):
    waiting(case)
    keyed = dataclasses.replace(GO, key="k-1")
    first, cut_off = add(case, keyed), add(case, keyed, ends=False)
    case.handovers.hand_over(first.copy)
    again, other = add(case, keyed, ends=False), add(case, dataclasses.replace(keyed, payload="{}"), ends=False)
    another = add(case, dataclasses.replace(keyed, by="eve"), ends=False)

    assert (cut_off.answer, cut_off.copy) == (SignalAnswer.REPLAYED, first.copy)
    assert (again.answer, again.copy) == (SignalAnswer.REPLAYED, None)
    assert (other.answer, another.answer) == (SignalAnswer.REUSED, SignalAnswer.KEPT)
    assert len(case.stores.signals.read(case.task_id)) == 2


def test_a_copy_made_from_a_record_that_has_changed_is_not_recorded(case):
    waiting(case)
    record = case.store.whole(case.task_id)
    stale = resent_copy(dataclasses.replace(record, seq=record.seq - 1))

    assert case.stores.signals.add(case.task_id, GO, stale).answer is SignalAnswer.AGAIN
    assert case.stores.signals.read(case.task_id) == ()


def test_a_signal_of_a_task_that_waits_since_its_record_was_read_is_not_only_recorded(case):
    ticket = case.run()
    before = case.store.whole(case.task_id)
    handed_over(case, case.wait(ticket, until=("go",)))
    seen = case.stores.signals.add(case.task_id, GO, None)
    read = case.stores.signals.read(case.task_id)
    last = case.stores.signals.add(case.task_id, GO, None, last=True)

    assert before.state is State.RUNNING
    assert (seen.answer, read) == (SignalAnswer.AGAIN, ())
    assert last.answer is SignalAnswer.KEPT


def test_a_task_has_a_bounded_number_of_signals(case):
    case.run()
    answers = {add(case, STOP, ends=False).answer for _ in range(MAX_SIGNALS)}

    assert answers == {SignalAnswer.KEPT}
    assert add(case, STOP, ends=False).answer is SignalAnswer.FULL
    assert len(case.stores.signals.read(case.task_id)) == MAX_SIGNALS


def test_a_task_that_has_ended_or_has_no_record_takes_no_signal(case):
    missing = case.stores.signals.add(case.task_id, GO, None).answer
    ticket, keyed = case.run(), dataclasses.replace(GO, key="k-1")
    add(case, keyed, ends=False)
    case.claims.complete(case.message, ticket, {}, 4)

    assert missing is SignalAnswer.MISSING
    assert add(case, GO, ends=False).answer is SignalAnswer.TERMINAL
    assert add(case, keyed, ends=False).answer is SignalAnswer.REPLAYED


def test_a_decision_by_a_signal_is_found_by_the_sweeper_soon(case):
    waiting(case)
    case.redis.zadd(f"{case.prefix}due", {case.task_id: 9e9})
    add(case, GO)

    assert case.redis.zscore(f"{case.prefix}due", case.task_id) < 9e9
