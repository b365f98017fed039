"""The chaos checker on facts made by hand: a clean run breaks nothing, each rule sees what it is for."""

import dataclasses
import itertools

import pytest

from support.chaos import schedule
from support.chaos.checker import check
from support.chaos.facts import DeadLetter, Delivery, Facts, Fault, Happened, Poison, Sample
from support.chaos.meters import slopes
from support.chaos_facts import (
    CLEAN,
    DEAD,
    DEAD_LETTER,
    GOOD,
    LADDER,
    LOST,
    QUIET,
    answer,
    broken,
    climb,
    hop,
    order,
    task,
    tasks,
    with_hops,
    with_view,
)


def test_a_clean_run_breaks_nothing():
    assert check(CLEAN) == []


def test_facts_survive_their_file(tmp_path):
    facts = dataclasses.replace(
        CLEAN, faults=[Happened(Fault(1, "kill", "redis"), 1, 2)], noise=[(1, 0.5)], samples=[Sample(1, "gateway", 2, 3, 4)]
    )  # fmt: skip
    facts.save(tmp_path / "facts.json")

    assert Facts.load(tmp_path / "facts.json") == facts


def test_an_accepted_task_that_does_not_end_is_seen():
    assert "P1 accepted means done" in broken(tasks=tasks(with_view(GOOD, state="RUNNING", status="RUNNING")))
    assert "P1 accepted means done" in broken(tasks=[DEAD, LOST])
    assert "P1 accepted means done" in broken(tasks=tasks(with_view(GOOD, state="REJECTED", status="FAIL")))


def test_two_tasks_of_one_order_are_seen():
    again = answer("good", task_id="t9")

    assert "P2 one order, one task" in broken(answers=[*CLEAN.answers, again])


def test_a_refused_order_that_runs_is_seen():
    ran = task("t3", "no", "SUCCEEDED", [hop(2, "started", attempt=1), hop(9, "succeeded")])

    assert "P2 refused means never" in broken(tasks=tasks(ran), effects={"t1": 1, "t3": 1})
    assert "P2 refused means never" in broken(deliveries=[*CLEAN.deliveries, Delivery("t3", "no", 1, 2, "failed")])


@pytest.mark.parametrize(
    "doubt", [{"problem": "publish-unconfirmed", "status": 503}, {"status": None, "error": "ReadError"}]
)
def test_an_unknown_order_may_run_or_not(doubt):
    ran = task("t3", "no", "SUCCEEDED", [hop(2, "started", attempt=1), hop(9, "succeeded")])
    answers = [*CLEAN.answers[:2], answer("no", **doubt)]
    delivered = [*CLEAN.deliveries, Delivery("t3", "no", 1, 2, "applied")]

    assert broken(answers=answers) == set()
    assert broken(answers=answers, tasks=tasks(ran), deliveries=delivered, effects={"t1": 1, "t3": 1}) == set()


def test_a_request_that_was_never_sent_is_a_refusal():
    ran = task("t3", "no", "SUCCEEDED", [hop(2, "started", attempt=1), hop(9, "succeeded")])
    unsent = answer("no", None, error="ConnectError", unsent=True)

    assert "P2 refused means never" in broken(answers=[*CLEAN.answers[:2], unsent], tasks=tasks(ran))


def test_a_delayed_task_that_starts_too_soon_is_seen():
    until = {"until": "1970-01-01T00:00:05.000Z"}
    late = [hop(1, "accepted"), hop(2, "published", **until), hop(5_000, "started", attempt=1), hop(9_000, "succeeded")]
    early = [*late[:2], hop(4_998, "started", attempt=1), late[3]]
    orders = [dataclasses.replace(CLEAN.orders[0], delay=5), *CLEAN.orders[1:]]

    assert broken(tasks=tasks(with_hops(GOOD, late)), orders=orders) == set()
    assert broken(tasks=tasks(with_hops(GOOD, early)), orders=orders) == {"P5 delays"}
    assert broken(tasks=tasks(with_hops(GOOD, late))) == {"P5 delays"}


@pytest.mark.parametrize("effects", [{}, {"t1": 2}])
def test_an_effect_that_is_missing_or_applied_twice_is_seen(effects):
    assert "P3 applied once" in broken(effects=effects)


def test_a_second_success_or_a_run_after_it_is_seen():
    twice = [*GOOD.hops, hop(10, "succeeded")]
    after = [*GOOD.hops, hop(10, "started", attempt=1)]

    assert "P3 succeeded once" in broken(tasks=tasks(with_hops(GOOD, twice)))
    assert "P3 succeeded once" in broken(tasks=tasks(with_hops(GOOD, after)))


def test_a_run_without_a_claim_is_seen():
    deliveries = [*CLEAN.deliveries, Delivery("t1", "good", 3, 4, "repeat")]
    killed = [Happened(Fault(5, "kill", "redis"), 5.0, 5.0)]

    assert broken(deliveries=deliveries) == {"P3 never unclaimed"}
    assert broken(deliveries=deliveries, faults=killed) == set()  # which may have lost the claim


@pytest.mark.parametrize(
    "dead_letters",
    [
        [],
        [DEAD_LETTER, DEAD_LETTER],
        [DeadLetter("t2", 1, 4, "retries-exhausted")],
        [DeadLetter("t2", 0, 4, "")],
        [DEAD_LETTER, DeadLetter("t1", 0, 0, "permanent")],
        [DEAD_LETTER, DeadLetter("t8", 0, 0, "permanent")],
    ],
)
def test_dead_letters_that_are_missing_double_wrong_or_of_others_are_seen(dead_letters):
    assert broken(dead_letters=dead_letters) == {"P4 one dead letter a death"}


@pytest.mark.parametrize("reasons", [[], ["malformed", "malformed"], ["undecodable"]])
def test_poison_that_is_lost_double_or_misjudged_is_seen(reasons):
    dead_letters = [DEAD_LETTER, *(DeadLetter("p", 0, 0, reason, "mark") for reason in reasons)]

    assert broken(poison=[Poison("mark", "malformed")], dead_letters=dead_letters) == {"P4 poison is buried"}


def test_a_failure_without_a_cause_is_seen():
    orders = [order("good"), order("dead"), order("no")]
    lost = [{**each, "errorType": "worker-lost"} if each["kind"] == "failed" else each for each in DEAD.hops]

    assert broken(orders=orders) == {"P4 no failure without a cause"}
    assert broken(orders=orders, tasks=tasks(with_hops(DEAD, lost))) == set()


def test_a_success_that_was_ordered_to_fail_is_seen():
    assert broken(orders=[order("good", "permanent", permanent=True), *CLEAN.orders[1:]]) == {
        "P4 no failure without a cause"
    }


def test_a_rung_that_is_early_wrong_or_left_out_is_seen():
    hops = DEAD.hops
    early = [{**each, "at": each["at"] - 100} if each["kind"] == "started" else each for each in hops]
    wrong = [{**each, "queue": LADDER[0][0]} if each["kind"] == "delayed" else each for each in hops]

    assert broken(tasks=tasks(with_hops(DEAD, early))) == {"P5 the ladder"}
    assert broken(tasks=tasks(with_hops(DEAD, wrong))) == {"P5 the ladder"}
    assert "P5 the ladder" in broken(tasks=tasks(with_hops(DEAD, hops[:3] + hops[-3:])))


def test_each_cycle_climbs_the_ladder_anew():
    again = task("t2", "dead", "DEAD_LETTERED", [*climb(), hop(20_000, "redriven"), *climb()], cycle=1, deadReason="retries-exhausted")  # fmt: skip

    assert broken(tasks=tasks(again), dead_letters=[DeadLetter("t2", 1, 9, "retries-exhausted")]) == set()


def test_a_late_answer_is_seen_unless_the_machine_was_late_or_the_gateway_stopped():
    late = [answer("good", task_id="t1", seconds=5.8), *CLEAN.answers[1:]]
    stopped = [Happened(Fault(1, "stop", "gateway", 5), 101.0, 104.0)]

    assert broken(answers=late) == {"P7 answered in time"}
    assert broken(answers=late, noise=[(50.0, 9.0), (102.0, 0.5), (103.0, 0.5)]) == set()
    assert broken(answers=late, noise=[(50.0, 9.0), (102.0, 0.5)]) == {"P7 answered in time"}
    assert broken(answers=late, faults=stopped) == set()


@pytest.mark.parametrize("change", [{"drained": False}, {"seconds": 91.0}])
def test_a_system_that_does_not_drain_in_time_is_seen(change):
    assert broken(left=dataclasses.replace(QUIET, **change)) == {"drains by itself"}


@pytest.mark.parametrize("change", [{"queues": {"robot.task.q": 1}}, {"claims": ["t1"]}, {"stale": ["t2"]}, {"due": ["t7"]}])  # fmt: skip
def test_what_is_left_is_seen(change):
    assert broken(left=dataclasses.replace(QUIET, **change)) == {"nothing is left"}


@pytest.mark.parametrize("listed", [[], ["t1", "t2"]])
def test_a_list_of_dead_letters_that_lacks_one_or_has_one_too_many_is_seen(listed):
    assert broken(left=dataclasses.replace(QUIET, listed=listed)) == {"P6 dead letters are listed"}


@pytest.mark.parametrize("inner", ["decision", "fence", "owner", "before"])
def test_a_terminal_record_that_is_not_finished_is_seen(inner):
    half = dataclasses.replace(GOOD, inner={**GOOD.inner, inner: "x"})

    assert broken(tasks=tasks(half)) == {"records are consistent"}


def test_numbers_that_do_not_add_up_are_seen():
    assert "conservation" in broken(tasks=[DEAD, LOST])


def test_a_seed_is_a_schedule():
    first, again, other = (schedule.make(seed, 300, 2) for seed in (7, 7, 8))

    assert first == again
    assert first != other
    assert {fault.name for fault in first} == {recipe.name for recipe in schedule.RECIPES}


def test_faults_begin_in_order_end_in_time_and_never_meet_on_one_target():
    faults = schedule.make(3, 600, 2)

    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(schedule.FIRST[0] <= fault.at and fault.at + fault.seconds <= 600 for fault in faults)
    for target in {fault.target for fault in faults}:
        own = [fault for fault in faults if fault.target == target]
        assert all(a.at + a.seconds <= b.at + 0.01 for a, b in itertools.pairwise(own))


def test_memory_that_grows_with_the_tasks_has_a_slope_and_a_short_life_has_none():
    steady = [Sample(float(at), "gateway", 1, 50_000 + at, at * 10) for at in range(0, 60, 2)]
    brief = [Sample(float(at), "worker child", 2, 90_000, at) for at in range(0, 20, 2)]

    assert slopes([*steady, *brief]) == {
        "gateway": {"processes": 1, "medianSlope": 100.0, "greatestSlope": 100.0, "greatestKb": 50_058}
    }
