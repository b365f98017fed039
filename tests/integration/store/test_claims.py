"""The transitions of a run against a real Redis: DESIGN §3, the claim's table, the fence, the hand-over."""

import dataclasses

import pytest

from dispatch.protocol.copies import held_copy, redriven_copy, resent_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import MAX_AHEAD, MAX_UNRECORDED
from dispatch.protocol.record import ErrorInfo, State
from dispatch.protocol.retry import Dead, Park
from dispatch.store.claims import ClaimAnswer, Claimed, ToClaim, ToComplete, ToRelease
from dispatch.store.dead_letters import DeadLetterAnswer
from dispatch.store.handovers import DecisionAnswer
from dispatch.store.holds import HoldAnswer, Holds
from support.case import Case
from support.waiting import eventually


# --- the claim's table ---------------------------------------------------------------------------
def test_a_copy_without_a_record_runs_and_brings_its_record_back(case):
    case.run(case.copy(attempt=3, seq=4))
    record = case.store.whole(case.task_id)

    assert (record.state, record.seq, record.attempt, record.principal) == (State.RUNNING, 4, 3, "ada")
    assert record.trace_id == "a" * 32
    assert record.created_at == 1_700_000_000_000
    assert record.message.body == case.message.body
    assert case.store.list(principal="ada").items[0].task_id == case.task_id
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is not None


def test_an_accepted_copy_runs_and_its_record_names_the_worker(case):
    case.accept()
    ticket = case.run()

    assert case.record().worker == "w@test"
    assert case.redis.get(f"{case.prefix}claim:{{{case.task_id}}}") == ticket.owner
    assert 0 < case.redis.pttl(f"{case.prefix}claim:{{{case.task_id}}}") <= case.settings.lease * 1_000
    assert case.kinds() == ["accepted", "published", "started"]


def test_a_finished_task_answers_done_to_any_copy_of_its_cycle_or_an_earlier_one(case):
    case.accept()
    dead_letter = case.die()
    again = redriven_copy(dead_letter)
    case.dead_letters.redrive(dead_letter, again, by="me", max_attempts=4)
    case.dead_letters.finish_redrive(again)
    case.claims.complete(again.message, case.run(again.message), {"a": 1}, 4)

    answers = {case.claim(case.copy(seq=seq, cycle=cycle)).answer for seq in (0, 1, 2, 9) for cycle in (0, 1)}

    assert answers == {ClaimAnswer.DONE}
    assert case.record().state is State.SUCCEEDED


def test_a_dead_letter_answers_done_until_it_is_redriven(case):
    dead_letter = case.die()

    assert case.claim().answer is ClaimAnswer.DONE
    assert case.claim(dead_letter).answer is ClaimAnswer.DONE


def test_a_copy_of_a_later_cycle_than_the_record_runs_and_brings_the_cycle(case):
    case.accept()
    case.die()
    case.run(case.copy(cycle=1, seq=2))

    assert (case.record().cycle, case.record().state) == (1, State.RUNNING)


@pytest.mark.parametrize("arrives", ["claimed", "held", "dead"])
def test_a_copy_of_a_later_cycle_than_the_record_is_what_is_sent_again(case, arrives):
    """Redis lost its last second, and with it a redrive that had another payload and began anew."""
    case.accept()
    ticket = case.run()
    waits = case.wait(ticket).copy
    case.handovers.hand_over(waits, owner=ticket.owner, wait=60)
    case.die(waits.message)
    mended = dataclasses.replace(case.copy(cycle=1, seq=9), body=b'[[{"message":"mended"}],{},{}]')
    mended = mended.with_headers(
        **{"x-effect-key": "again", "x-concurrency-key": "other", "x-deadline-at": 1_900_000_000_000}
    )
    before = case.store.whole(case.task_id)
    if arrives == "claimed":
        case.run(mended)
    elif arrives == "held":
        held = Holds(case.stores.redis).hold(mended, held_copy(mended, 600), "type:echo", 4)
        assert held.answer is HoldAnswer.HELD
    else:
        assert case.dead_letters.record(mended, reason="permanent", max_attempts=4) is DeadLetterAnswer.OK
    record = case.store.whole(case.task_id)
    again = resent_copy(record).message

    assert (before.message.body, before.cycle, before.step) == (case.message.body, 0, 1)
    assert (record.message.body, record.cycle, record.step, record.checkpoint) == (mended.body, 1, 0, None)
    assert (record.concurrency_key, record.deadline_at) == ("other", 1_900_000_000_000)
    assert (again.body, again.headers["x-effect-key"], "x-checkpoint" in again.headers) == (mended.body, "again", False)


def test_a_rejected_task_never_runs(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    case.store.reject(case.message, error=ErrorInfo("x", "y", retryable=True), idempotency_key=None)

    assert case.claim().answer is ClaimAnswer.CANCELLED
    assert case.record().state is State.REJECTED


def test_an_older_copy_is_stale_once_a_later_one_has_taken_over(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket).copy
    case.handovers.hand_over(copy, owner=ticket.owner)

    assert case.claim().answer is ClaimAnswer.STALE
    assert case.claim(copy.message).answer is ClaimAnswer.RUN
    assert case.claim().answer is ClaimAnswer.STALE


def test_a_copy_whose_failure_is_decided_gets_the_decided_copy_also_while_the_lease_lives(case):
    case.accept()
    decided = case.decide(case.run()).copy

    for _ in range(2):
        claimed = case.claim()
        assert (claimed.answer, claimed.copy) == (ClaimAnswer.ROUTE, decided)
        case.lapse()


def test_another_owner_is_busy_while_the_lease_lives(case):
    case.accept()
    first = case.run()

    assert case.claim().answer is ClaimAnswer.BUSY
    assert case.record().state is State.RUNNING
    assert case.claims.complete(case.message, first, {}, 4)


def test_the_same_ticket_may_ask_again_and_again_and_nothing_is_counted(case):
    case.accept()
    ticket = case.ticket()

    answers = [case.claim(ticket=ticket).answer for _ in range(5)]

    assert answers == [ClaimAnswer.RUN] * 5
    assert (case.record().lost_runs, case.record().attempt) == (0, 1)
    assert case.kinds() == ["accepted", "published", "started"]


def test_a_claim_that_comes_again_has_its_whole_lease(case):
    case.accept()
    ticket = case.run()
    lease = f"{case.prefix}claim:{{{case.task_id}}}"
    case.redis.pexpire(lease, 50)
    again = case.claim(ticket=ticket).answer

    assert again is ClaimAnswer.RUN
    assert case.redis.pttl(lease) > case.settings.lease * 500


def test_a_claim_whose_answer_was_lost_counts_no_lost_run_even_after_its_lease(case):
    case.accept()
    owner = "the-delivery"
    for _ in range(4):  # held: Redis was away for longer than the lease, each time after the claim was written
        assert case.claim(ticket=case.ticket(owner)).answer is ClaimAnswer.RUN
        case.lapse()

    assert case.record().lost_runs == 0


def test_each_lapsed_lease_counts_and_the_third_is_a_failed_attempt(case):
    case.accept()
    case.run()
    answers = []
    for _ in range(3):
        case.lapse()
        ticket = case.ticket()
        answers.append(case.claim(ticket=ticket).answer)

    assert answers == [ClaimAnswer.RUN, ClaimAnswer.RUN, ClaimAnswer.LOST]
    assert case.decide(ticket).answer is DecisionAnswer.OK
    assert case.record().lost_runs == 0


def test_the_next_attempt_begins_with_no_lost_runs(case):
    case.accept()
    case.run()
    case.lapse()
    ticket = case.run()
    assert case.record().lost_runs == 1
    copy = case.decide(ticket).copy
    case.handovers.hand_over(copy, owner=ticket.owner)
    case.run(copy.message)

    assert case.record().lost_runs == 0


def test_the_handed_over_copy_is_busy_until_its_hand_over_or_the_lease_is_over(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket).copy

    assert case.claim(copy.message).answer is ClaimAnswer.BUSY
    case.handovers.hand_over(copy, owner=ticket.owner)
    assert case.claim(copy.message).answer is ClaimAnswer.RUN


def test_a_copy_mends_a_hand_over_that_was_never_recorded(case):
    case.accept()
    copy = case.decide(case.run()).copy
    case.lapse()
    case.run(copy.message)
    case.handovers.hand_over(copy)  # late

    assert (case.record().state, case.record().seq, case.record().decided_seq) == (State.RUNNING, 1, None)


# --- the fence -----------------------------------------------------------------------------------
def test_a_zombie_is_refused_in_every_transition(case):
    case.accept()
    zombie = case.run()
    case.lapse()
    holder = case.run()

    assert not case.claims.complete(case.message, zombie, {"from": "zombie"}, 4)
    assert case.decide(zombie).answer is DecisionAnswer.REFUSED
    case.claims.progress(case.task_id, zombie.fence, {"percent": 99, "message": "zombie"})
    case.claims.release(case.message, zombie, "q")
    assert case.claims.renew({zombie: (case.message, 4)}).lost == [zombie]
    assert case.record().progress is None
    assert case.claims.complete(case.message, holder, {"from": "holder"}, 4)
    assert case.record().result == {"from": "holder"}
    assert case.kinds().count("succeeded") == 1


def test_completion_may_be_recorded_twice_by_the_same_run_only(case):
    case.accept()
    ticket = case.run()

    assert case.claims.complete(case.message, ticket, {}, 4)
    assert case.claims.complete(case.message, ticket, {}, 4)
    assert not case.claims.complete(case.message, case.ticket(), {}, 4)
    assert case.kinds().count("succeeded") == 1


def test_completion_drops_the_lease_starts_the_clock_and_takes_the_reminder_away(case):
    case.accept()
    case.claims.complete(case.message, case.run(), {}, 4)
    keys = [f"{case.prefix}{name}:{{{case.task_id}}}" for name in ("task", "hops")]

    assert case.redis.exists(f"{case.prefix}claim:{{{case.task_id}}}") == 0
    assert all(0 < case.redis.pttl(key) <= case.settings.result_ttl * 1_000 for key in keys)
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is None


def test_a_living_task_and_a_dead_letter_never_expire(case):
    case.accept()
    key = f"{case.prefix}task:{{{case.task_id}}}"

    assert case.redis.pttl(key) == -1
    case.die()
    assert case.redis.pttl(key) == -1


def test_a_decision_is_made_once_and_a_repeat_gets_the_first_one(case):
    case.accept()
    ticket = case.run()
    first = case.decide(ticket)
    second = case.decide(ticket, Dead(Reason.PERMANENT))

    assert (first.answer, second.answer) == (DecisionAnswer.OK, DecisionAnswer.ROUTE)
    assert second.copy == first.copy
    assert case.kinds().count("failed") == 1


def test_a_decided_run_can_no_longer_succeed(case):
    case.accept()
    ticket = case.run()
    case.decide(ticket)

    assert not case.claims.complete(case.message, ticket, {}, 4)


def test_a_park_keeps_the_attempt_and_a_retry_raises_it(case):
    case.accept()
    rung = case.settings.ladder.rungs[1]
    parked = case.decide(case.run(), Park(rung)).copy.message

    assert (parked.seq, parked.attempt) == (1, 1)
    assert case.record().rung == "5m"


def test_the_wait_on_the_rung_begins_with_the_confirm(case):
    case.accept()
    copy = case.decide(case.run()).copy
    promised = case.record().next_attempt_at
    eventually(lambda: case.stores.reminders.clock() * 1_000 > promised - 900, 5, "a tenth of a second passes")
    case.handovers.hand_over(copy, wait=1)

    assert case.record().next_attempt_at > promised


# --- renewal and release ---------------------------------------------------------------------------
def test_renewal_keeps_a_lease_and_takes_up_one_that_lapsed_unnoticed(case):
    case.accept()
    ticket = case.run()
    case.lapse()

    assert case.claims.renew({ticket: (case.message, 4)}).lost == []
    assert case.claim().answer is ClaimAnswer.BUSY


def test_renewal_brings_back_a_record_that_redis_lost(case):
    case.accept()
    ticket = case.run()
    case.wipe()
    case.claims.renew({ticket: (case.message, 4)})

    assert case.record().state is State.RUNNING
    assert case.store.list(principal="ada").items[0].task_id == case.task_id
    assert case.claim().answer is ClaimAnswer.BUSY
    assert case.claims.complete(case.message, ticket, {"a": 1}, 4)


@pytest.mark.parametrize("settled", ["complete", "decide and hand over", "release"])
def test_renewal_takes_nothing_back_that_is_settled(case, settled):
    case.accept()
    ticket = case.run()
    if settled == "complete":
        case.claims.complete(case.message, ticket, {}, 4)
    elif settled == "release":
        case.claims.release(case.message, ticket, "q")
    else:
        case.handovers.hand_over(case.decide(ticket).copy, owner=ticket.owner)

    renewed = case.claims.renew({ticket: (case.message, 4)})

    assert [*renewed.lost, *renewed.unclaimed] == [ticket]
    assert case.redis.exists(f"{case.prefix}claim:{{{case.task_id}}}") == 0
    if settled != "release":  # which its renewal knows of
        assert not case.claims.claim_again(case.message, ticket, 4)


def _kept(case):
    """What Redis has on its disk now."""
    keys = list(case.redis.scan_iter(f"{case.prefix}*"))
    return [key for key in keys if case.redis.copy(key, f"kept:{key}")]


def _lose(case, kept):
    """Redis has lost what came since."""
    case.wipe()
    for key in kept:
        case.redis.rename(f"kept:{key}", key)


@pytest.mark.parametrize("ends", ["succeeds", "fails", "waits"])
@pytest.mark.parametrize("since", ["nothing", "another run", "a cancellation"])
def test_a_run_whose_claim_was_lost_ends_as_it_would_have_unless_another_has_taken_over(case, ends, since):
    case.accept()
    kept = _kept(case)
    ticket = case.run()
    _lose(case, kept)
    if since == "another run":
        case.run()
    elif since == "a cancellation":
        case.stores.cancellations.cancel(case.task_id, by="ada")
    if ends == "succeeds":
        answer = case.claims.complete(case.message, ticket, {"a": 1}, 4)
    else:
        answer = (case.decide if ends == "fails" else case.wait)(ticket).answer

    if since != "nothing":
        assert answer in (False, DecisionAnswer.REFUSED)
        return
    assert answer in (True, DecisionAnswer.UNCLAIMED)
    if ends != "succeeds":
        assert case.claims.claim_again(case.message, ticket, 4)
        assert (case.decide if ends == "fails" else case.wait)(ticket).answer is DecisionAnswer.OK
    assert case.kinds().count("started") == 1
    assert case.record().lost_runs == 0


def test_a_lease_whose_claim_was_lost_is_found_by_its_renewal(case):
    case.accept()
    kept = _kept(case)
    ticket = case.run()
    _lose(case, kept)

    assert case.claims.renew({ticket: (case.message, 4)}).unclaimed == [ticket]
    assert case.claims.claim_again(case.message, ticket, 4)
    assert case.claim().answer is ClaimAnswer.BUSY
    assert case.record().state is State.RUNNING


def test_a_released_run_is_no_lost_run_and_the_next_copy_need_not_wait(case):
    case.accept()
    case.claims.release(case.message, case.run(), "robot.task.q")

    assert case.record().state is State.QUEUED
    case.run()
    assert case.record().lost_runs == 0


def test_a_wiped_task_comes_back_with_its_result_and_its_attempt(case):
    case.accept()
    ticket = case.run()
    case.wipe()

    assert case.claims.complete(case.message, ticket, {"a": 1}, 4)
    record = case.record()
    assert (record.state, record.result, record.principal, record.attempt) == (State.SUCCEEDED, {"a": 1}, "ada", 1)
    assert case.store.list(principal="ada").items[0].task_id == case.task_id


def test_a_wiped_task_whose_attempt_fails_comes_back_decided(case):
    case.accept()
    ticket = case.run()
    case.wipe()
    decided = case.decide(ticket)

    assert decided.answer is DecisionAnswer.OK
    assert (case.record().state, case.record().attempt) == (State.RETRY_WAIT, 1)


def test_progress_of_a_long_run_does_not_push_out_how_the_task_came_here(case):
    case.accept()
    ticket = case.run()
    for percent in range(250):
        case.claims.progress(case.task_id, ticket.fence, {"percent": percent % 100, "message": str(percent)})
    hops = case.store.hops(case.task_id)

    assert [hop["kind"] for hop in hops[:3]] == ["accepted", "published", "started"]
    assert hops[-1]["message"] == "249"
    assert len(hops) <= 101
    assert [hop["seq"] for hop in hops] == sorted({hop["seq"] for hop in hops})


# --- what a copy may claim over its record ---------------------------------------------------------
def test_a_copy_is_a_few_steps_ahead_at_most_where_redis_may_have_lost_its_last_second(case):
    case.accept()
    case.run()
    before = case.redis.hgetall(f"{case.prefix}task:{{{case.task_id}}}")
    case.lapse()
    too_far = [{"seq": MAX_AHEAD + 1}, {"cycle": MAX_AHEAD + 1}, {"cycle": 1, "seq": 2**53 - 1}]
    answers = {case.claim(case.copy(**claims)).answer for claims in too_far}

    assert answers == {ClaimAnswer.FOREIGN}
    assert case.redis.hgetall(f"{case.prefix}task:{{{case.task_id}}}") == before
    case.run(case.copy(seq=MAX_AHEAD, cycle=1))


def test_an_outcome_has_no_next_cycle_that_a_copy_could_bring(case):
    case.accept()
    case.claims.complete(case.message, case.run(), {"a": 1}, 4)
    claimed = case.claim(case.copy(cycle=1, seq=1)).answer
    dead = case.dead_letters.record(case.copy(cycle=1, seq=1), reason="permanent", max_attempts=4)

    assert (claimed, dead) == (ClaimAnswer.FOREIGN, DeadLetterAnswer.FOREIGN)
    assert (case.record().state, case.record().cycle, case.record().result) == (State.SUCCEEDED, 0, {"a": 1})


def test_a_rejected_task_has_no_next_cycle_either(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    case.store.reject(case.message, error=ErrorInfo("x", "y", retryable=True), idempotency_key=None)

    assert case.claim(case.copy(cycle=1, seq=1)).answer is ClaimAnswer.FOREIGN


def test_a_record_is_not_rebuilt_from_numbers_that_nothing_of_ours_counted_to(case):
    endless = case.copy(cycle=MAX_UNRECORDED + 1)
    claimed = case.claim(endless).answer
    dead = case.dead_letters.record(endless, reason="permanent", max_attempts=4)
    redriven = case.dead_letters.redrive(endless, redriven_copy(endless), by="me", max_attempts=4)

    assert (claimed, dead) == (ClaimAnswer.FOREIGN, DeadLetterAnswer.FOREIGN)
    assert (redriven.answer, redriven.copy) == (DecisionAnswer.FOREIGN, None)
    assert case.record() is None
    assert case.dead_letters.flagged().keys() <= {case.task_id}
    assert case.listed() == []


def test_a_turn_that_was_cut_off_is_asked_again_and_nothing_happens_twice(case, settings):
    """The connection ended after some steps: the same turn comes once more, with the same tickets."""
    other, third = Case(settings), Case(settings)
    other.accept()
    third.accept()
    ran, began = case.run(), other.run()
    steps = [
        ToComplete(case.message, ran, 4, '{"a":1}'),
        ToRelease(other.message, began, "robot.task.q"),
        ToClaim(third.message, third.ticket(), 4),
    ]
    for part in (steps[:1], steps[:2], steps):
        case.claims.turn(part)
    answers = case.claims.turn(steps)

    assert answers == [True, None, Claimed(ClaimAnswer.RUN)]
    kinds = [[hop["kind"] for hop in each.store.hops(each.task_id)] for each in (case, other, third)]
    assert [each.count("succeeded") + each.count("stopped") for each in kinds] == [1, 1, 0]
    assert (case.record().result, other.record().state, third.record().state) == ({"a": 1}, State.QUEUED, State.RUNNING)
    assert {each.record().lost_runs for each in (case, other, third)} == {0}


def test_a_claim_that_follows_a_release_keeps_its_lease_though_redis_lacks_one_of_the_scripts(case):
    """Given back and claimed again in one turn, by one delivery: the claim must not be what the release gives back."""
    case.accept()
    owner = "the-delivery"
    first, second = case.ticket(owner), case.ticket(owner)
    assert case.claim(ticket=first).answer is ClaimAnswer.RUN
    case.redis.script_flush()
    case.redis.script_load(case.store._redis._scripts["claim"].source)
    claimed = case.claims.turn([ToRelease(case.message, first, "q"), ToClaim(case.message, second, 4)])[1]

    assert claimed == Claimed(ClaimAnswer.RUN)
    assert case.kinds() == ["accepted", "published", "started", "stopped", "started"]
    assert case.redis.get(f"{case.prefix}claim:{{{case.task_id}}}") == owner
    assert case.claim().answer is ClaimAnswer.BUSY


def test_a_release_that_comes_late_leaves_the_next_claim_of_its_delivery_alone(case):
    case.accept()
    owner = "the-delivery"
    first, second = case.ticket(owner), case.ticket(owner)
    assert [case.claim(ticket=ticket).answer for ticket in (first, second)] == [ClaimAnswer.RUN] * 2
    case.claims.release(case.message, first, "q")

    assert case.claim().answer is ClaimAnswer.BUSY
    assert case.claims.complete(case.message, second, {}, 4)


def test_a_turn_gives_each_step_its_own_answer(case, settings):
    others = [Case(settings) for _ in range(3)]
    for each in others:
        each.accept()
    taken, lost, fresh = others
    case.run()
    taken.run()
    steps = [
        ToComplete(case.message, case.ticket(), 4, "{}"),  # a zombie's
        ToClaim(taken.message, taken.ticket(), 4),
        ToComplete(lost.message, lost.run(), 4, '{"a":1}'),
        ToClaim(fresh.message, fresh.ticket(), 4),
    ]
    lost.redis.delete(*[f"{lost.prefix}{name}:{{{lost.task_id}}}" for name in ("task", "hops", "message")])

    assert case.claims.turn(steps) == [False, Claimed(ClaimAnswer.BUSY), True, Claimed(ClaimAnswer.RUN)]
    assert (lost.record().state, lost.record().result) == (State.SUCCEEDED, {"a": 1})
