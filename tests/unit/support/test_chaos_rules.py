"""The chaos checker's rules about time and operators, on facts made by hand: each sees the lie that it is for."""

import dataclasses

import pytest

from support.chaos.facts import Act, Call, DeadLetter, Delivery, Fault, Happened, Hook, Order
from support.chaos_facts import CLEAN, GOOD, LOST, QUIET, answer, broken, hop, task, tasks, with_hops, with_view

WEBHOOK = {"webhook": {"url": "http://127.0.0.1:1/webhooks"}}


def walk(label="walk", kind="wait", **payload):
    return Order(label, kind, f"key-{label}", "chaos.walk", {"label": label, **payload})


def run_of(order, this, deliveries=(), effects=None, **more):
    """A clean run with one task more, and what of it is broken."""
    found = {
        "orders": [*CLEAN.orders, order], "answers": [*CLEAN.answers, answer(order.label, task_id=this.id)],
        "tasks": [*CLEAN.tasks, this], "deliveries": [*CLEAN.deliveries, *deliveries],
        "effects": {**CLEAN.effects, **(effects or {})},
    }  # fmt: skip
    return broken(**{**found, **more})


def act(verb, target, at=10.0, status=202, *, asked=None, answer=None, ended=None):
    return Act(
        verb,
        target,
        at,
        at + 0.1 if ended is None else ended,
        status,
        f"act-{verb}-{at}",
        "",
        asked or {},
        answer or {},
    )


def audited(*acts):
    return [{"verb": each.verb, "requestId": each.request_id, "result": "ok"} for each in acts]


def with_acts(*acts, **more):
    return {"acts": list(acts), "audit": audited(*acts), **more}


# --- steps ---------------------------------------------------------------------------------------
def walked(*, steps=1, label="walk", **changes):
    hops = [hop(0, "accepted"), hop(1_000, "started", attempt=1)]
    for step in range(1, steps + 1):
        hops += [
            hop(1_000 + step * 3_000 - 2_900, "waiting", seconds=2, step=step, signals=["go"]),
            hop(1_000 + step * 3_000, "started", attempt=1),
        ]
    this = task("w1", label, "SUCCEEDED", [*hops, hop(90_000, "succeeded")])
    return with_view(this, type="chaos.walk", step=steps, **changes)


def paces(steps=1, label="walk"):
    deliveries = [Delivery(f"w1/{step}", label, step + 1, step + 1.1, "applied") for step in range(steps + 1)]
    return deliveries, {each.key: 1 for each in deliveries}


def test_a_walk_in_steps_breaks_nothing():
    assert run_of(walk(), walked(steps=2), *paces(2)) == set()


def test_a_step_without_its_effect_is_seen():
    deliveries, effects = paces(2)

    assert run_of(walk(), walked(steps=2), deliveries[:2], dict(list(effects.items())[:2])) == {"P3 applied once"}


def test_a_wait_that_ends_early_without_a_signal_is_seen():
    early = [{**each, "at": each["at"] - 2_000} if each["at"] == 4_000 else each for each in walked().hops]
    signalled = [*early[:3], hop(1_500, "signalled", name="go", queue="robot.task.q"), *early[3:]]

    assert run_of(walk(), with_hops(walked(), early), *paces()) == {"waits"}
    assert run_of(walk(), with_hops(walked(), signalled), *paces()) == set()


@pytest.mark.parametrize(
    ("before", "found"),
    [([], {"waits"}), ([hop(500, "signalled", name="go")], set()), ([hop(500, "signalled", name="other")], {"waits"})],
)
def test_a_wait_that_is_over_at_once_needs_a_signal_that_was_kept(before, found):
    at_once = [{**each, "seconds": 0} if each["kind"] == "waiting" else each for each in walked().hops]

    assert run_of(walk(), with_hops(walked(), [*before, *at_once]), *paces()) == found


@pytest.mark.parametrize("recorded", [0, 2])
def test_a_signal_that_was_taken_and_is_lost_or_double_is_seen(recorded):
    sent = act("signalTask", "w1", asked={"id": "s0"})
    hops = [*(hop(500, "signalled", name="go") for _ in range(recorded)), *walked().hops]

    assert run_of(walk(), with_hops(walked(), hops), *paces(), **with_acts(sent)) == {"signals"}


def test_a_step_that_does_not_see_a_signal_that_was_taken_is_seen():
    sent = act("signalTask", "w1", at=1.0, asked={"id": "s0"})
    hops = [hop(500, "signalled", name="go"), *walked().hops]
    deliveries, effects = paces()
    blind, seeing = (
        [*deliveries[:1], dataclasses.replace(deliveries[1], note={"readAt": 2.0, "signals": seen})]
        for seen in ([], [["go", "s0"]])
    )

    assert run_of(walk(), with_hops(walked(), hops), blind, effects, **with_acts(sent)) == {"signals"}
    assert run_of(walk(), with_hops(walked(), hops), seeing, effects, **with_acts(sent)) == set()


@pytest.mark.parametrize(
    ("status", "recorded", "found"),
    [(202, 0, {"callbacks"}), (202, 1, set()), (404, 0, {"callbacks"}), (410, 0, set())],
)
def test_a_callback_that_was_taken_and_is_lost_or_whose_url_is_unknown_is_seen(status, recorded, found):
    hops = [*(hop(500, "signalled", name="go") for _ in range(recorded)), *walked().hops]

    assert run_of(walk(), with_hops(walked(), hops), *paces(), calls=[Call("w1/0", "c0", 1.0, status)]) == found


def test_an_attempt_after_the_deadline_is_seen():
    late = with_view(GOOD, deadlineAt="1970-01-01T00:00:00.000Z")
    in_time = with_view(GOOD, deadlineAt="1970-01-01T00:00:00.002Z")

    assert broken(tasks=tasks(late)) == {"deadlines"}
    assert broken(tasks=tasks(in_time)) == set()


# --- cancelled -----------------------------------------------------------------------------------
STOPPED = task("c1", "stop", "CANCELLED", [hop(1, "accepted"), hop(2_000, "cancelled", by="local")])
CANCEL = act("cancelTask", "c1", at=1.9, answer={"state": "CANCELLED"})
STOP = Order("stop", "fast", "key-stop", "http.request", {"json": {"label": "stop"}})


def test_a_task_that_is_cancelled_breaks_nothing_and_one_that_no_client_cancelled_is_seen():
    assert run_of(STOP, STOPPED, **with_acts(CANCEL)) == set()
    assert run_of(STOP, STOPPED) == {"P4 no failure without a cause"}


def test_a_cancelled_task_that_goes_on_is_seen():
    again = [*STOPPED.hops, hop(3_000, "started", attempt=1), hop(4_000, "succeeded")]
    hops = with_hops(with_view(STOPPED, state="SUCCEEDED", status="SUCCESS"), again)

    assert "cancelled stays cancelled" in run_of(STOP, hops, effects={"c1": 1}, **with_acts(CANCEL))


def test_a_task_that_was_answered_cancelled_and_is_not_is_seen():
    goes_on = task("c1", "stop", "DEAD_LETTERED", [hop(1, "accepted"), hop(2, "started"), hop(3, "dead-lettered")])

    assert "cancelled stays cancelled" in run_of(STOP, goes_on, **with_acts(CANCEL))


def test_a_death_that_was_decided_before_the_cancellation_stays_one_and_a_later_one_is_seen():
    order = dataclasses.replace(STOP, kind="permanent")
    hops = [hop(1, "accepted"), hop(1_000, "started", attempt=1), hop(1_400, "failed"), hop(1_500, "cancel-requested")]
    dead = task("c1", "stop", "DEAD_LETTERED", [*hops, hop(2_000, "dead-lettered")], deadReason="permanent")
    later = with_hops(dead, [*hops, hop(1_600, "started"), hop(1_700, "failed"), hop(2_000, "dead-lettered")])
    asked = dataclasses.replace(CANCEL, answer={"state": "RUNNING"})
    rest = {
        "dead_letters": [*CLEAN.dead_letters, DeadLetter("c1", 0, 1, "permanent")],
        "left": dataclasses.replace(QUIET, listed=["t2", "c1"]),
    }  # fmt: skip

    assert run_of(order, dead, **with_acts(asked), **rest) == set()
    assert run_of(order, later, **with_acts(asked), **rest) == {"cancelled stays cancelled"}


@pytest.mark.parametrize(("runs", "found"), [(1, set()), (2, {"cancelled stays cancelled"})])
def test_a_task_that_is_to_stop_runs_once_more_at_most(runs, found):
    asked = [hop(1, "accepted"), hop(1_000, "started", attempt=1), hop(1_500, "cancel-requested", by="local")]
    hops = [*asked, *(hop(1_600, "started", attempt=1) for _ in range(runs)), hop(2_000, "cancelled")]

    assert run_of(STOP, with_hops(STOPPED, hops), **with_acts(CANCEL)) == found


def test_an_effect_of_a_task_that_was_cancelled_before_it_ran_is_seen():
    delivered = [Delivery("c1", "stop", 1.0, 1.1, "failed")]

    assert "cancelled has no effect" in run_of(STOP, STOPPED, delivered, **with_acts(CANCEL))


def test_an_effect_after_the_cancellation_is_seen_unless_a_worker_was_cut_off():
    ran = with_hops(STOPPED, [hop(1, "started", attempt=1), *STOPPED.hops])
    delivered = [Delivery("c1", "stop", 3.0, 3.1, "failed")]
    cut = [Happened(Fault(1, "stop", "worker1", 5), 1.0, 4.0)]

    assert run_of(STOP, ran, delivered, **with_acts(CANCEL)) == {"cancelled has no effect"}
    assert run_of(STOP, ran, delivered, **with_acts(CANCEL, faults=cut)) == set()


@pytest.mark.parametrize(
    ("undo", "found"), [([], {"cancelled is undone"}), ([Delivery("c1/undo", "stop", 1.5, 1.6, "applied")], set())]
)
def test_what_a_cancelled_task_has_begun_and_has_not_undone_is_seen(undo, found):
    order = Order("stop", "undone", "key-stop", "chaos.undone", {"label": "stop"})
    hops = [hop(1, "started"), hop(900, "failed"), hop(900, "delayed", queue="robot.retry.q.1m"), hop(1_400, "cancel-requested"), hop(1_450, "sent-now"), hop(1_460, "started"), hop(2_000, "cancelled")]  # fmt: skip
    this = with_view(with_hops(STOPPED, hops), type="chaos.undone")
    begun = Delivery("c1/0", "stop", 0.5, 0.6, "applied")
    effects = {each.key: 1 for each in (begun, *undo)}

    assert run_of(order, this, [begun, *undo], effects, **with_acts(CANCEL)) == found


# --- pauses, keys --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("started", "what", "found"),
    [
        (11.5, "type:http.request", set()),
        (13.0, "type:http.request", {"paused"}),
        (13.0, "all", {"paused"}),
        (13.0, "key:robot-1", {"paused"}),
        (13.0, "key:robot-2", set()),
        (13.0, "type:echo", set()),
        (15.5, "type:http.request", set()),
    ],
)
def test_a_start_in_a_pause_is_seen(started, what, found):
    hops = [hop(1, "accepted"), hop(started * 1_000, "started", attempt=1), hop(20_000, "succeeded")]
    this = with_view(with_hops(GOOD, hops), concurrencyKey="robot-1")
    acts = act("pauseTasks", what, 10.0, 200), act("resumeTasks", what, 15.0, 204)

    assert broken(tasks=tasks(this), **with_acts(*acts)) == found


def test_a_start_in_a_pause_is_excused_while_a_worker_is_cut_off_from_redis():
    this = with_hops(GOOD, [hop(1, "accepted"), hop(13_000, "started", attempt=1), hop(20_000, "succeeded")])
    acts = act("pauseTasks", "all", 10.0, 200), act("resumeTasks", "all", 15.0, 204)
    faults = [Happened(Fault(1, "hold", "worker1-redis", 3), 10.0, 12.9)]

    assert broken(tasks=tasks(this), faults=faults, **with_acts(*acts)) == set()


@pytest.mark.parametrize(
    ("ends", "faults", "found"),
    [
        ((2_000, 3_000), [], set()),
        ((2_500, 3_000), [], {"one at a time"}),
        ((2_500, 3_000), [Happened(Fault(1, "stop", "redis", 1), 1.0, 2.0)], set()),
    ],
)
def test_two_tasks_of_a_key_at_once_are_seen(ends, faults, found):
    orders = [dataclasses.replace(CLEAN.orders[0], options={"concurrencyKey": "crate-1"}), *CLEAN.orders[1:]]
    other = Order("other", "client-key", "k", "http.request", {"json": {}}, 0, {"concurrencyKey": "crate-1"})
    first = with_hops(GOOD, [hop(1_000, "started", attempt=1), hop(ends[0], "succeeded")])
    second = task("o1", "other", "SUCCEEDED", [hop(2_001, "started", attempt=1), hop(ends[1], "succeeded")])
    delivered = [*CLEAN.deliveries, Delivery("o1", "other", 2.1, 2.2, "applied")]

    assert broken(
        orders=[*orders, other], answers=[*CLEAN.answers, answer("other", task_id="o1")], deliveries=delivered,
        effects={**CLEAN.effects, "o1": 1}, tasks=[*tasks(first), second], faults=faults,
    ) == found  # fmt: skip


@pytest.mark.parametrize(
    ("last", "faults", "found"),
    [
        (3_100, [], set()),
        (2_600, [], {"so many at a time"}),
        (2_600, [Happened(Fault(1, "stop", "redis", 1), 1.0, 2.0)], set()),
    ],
)
def test_more_begins_in_a_second_than_a_rate_allows_are_seen(last, faults, found):
    ids = ["p1", "p2", "p3"]
    orders = [Order(each, "paced", each, "chaos.paced", {"wish": {}}) for each in ids]
    made = [
        with_view(
            task(each, each, "SUCCEEDED", [hop(at, "started", attempt=1), hop(at + 10, "succeeded")]),
            type="chaos.paced",
        )
        for each, at in zip(ids, (2_000, 2_010, last), strict=True)
    ]
    delivered = [Delivery(f"{each}/0", each, 2.1, 2.2, "applied") for each in ids]

    assert broken(
        orders=[*CLEAN.orders, *orders], answers=[*CLEAN.answers, *(answer(each, task_id=each) for each in ids)],
        deliveries=[*CLEAN.deliveries, *delivered], effects={**CLEAN.effects, **{each.key: 1 for each in delivered}},
        tasks=[*CLEAN.tasks, *made], faults=faults,
    ) == found  # fmt: skip


def test_a_wait_between_two_steps_holds_the_key():
    orders = [walk("one", robot="robot-1"), walk("two", robot="robot-1")]
    first = with_view(with_hops(walked(label="one"), [*walked().hops[:-1], hop(5_000, "succeeded")]))
    second = with_view(
        task("w2", "two", "SUCCEEDED", [hop(3_000, "started", attempt=1), hop(3_500, "succeeded")]), type="chaos.walk"
    )
    deliveries, effects = paces(label="one")
    both = [*deliveries, Delivery("w2/0", "two", 3.1, 3.2, "applied")]

    assert run_of(
        orders[0], first, both, {**effects, "w2/0": 1}, orders=[*CLEAN.orders, *orders], tasks=[*CLEAN.tasks, first, second],
        answers=[*CLEAN.answers, answer("one", task_id="w1"), answer("two", task_id="w2")],
    ) == {"one at a time"}  # fmt: skip


# --- children, webhooks --------------------------------------------------------------------------
def child(task_id, key, state="SUCCEEDED", parent="w1"):
    made = task(task_id, "walk", state, [hop(1, "started", attempt=1), hop(2, "succeeded")])
    return with_view(made, parentId=parent, labels={"child": key})


@pytest.mark.parametrize(
    ("children", "found"),
    [
        ([child("k1", "0.0")], set()),
        ([], {"children"}),
        ([child("k1", "0.0"), child("k2", "0.0")], {"children"}),
        ([child("k1", "0.0", parent="gone")], {"children"}),
    ],
)
def test_children_that_are_missing_double_or_nobodys_are_seen(children, found):
    deliveries, effects = paces()
    both = [*deliveries, *(Delivery(each.id, "walk/c0", 1, 2, "applied") for each in children)]

    assert run_of(
        walk(children=1), walked(), both, {each.key: 1 for each in both} | effects, tasks=[*CLEAN.tasks, walked(), *children],
    ) == found  # fmt: skip


@pytest.mark.parametrize(
    ("hooks", "found"),
    [
        ([], {"webhooks"}),
        ([("t1", 0, "task.succeeded", 500)], {"webhooks"}),
        ([("t1", 0, "task.succeeded", 500), ("t1", 0, "task.succeeded", 204)], set()),
        ([("t1", 0, "task.failed", 204)], {"webhooks"}),
        ([("t1", 1, "task.succeeded", 204)], {"webhooks"}),
        ([("t1", 0, "task.succeeded", 204), ("t8", 0, "task.succeeded", 204)], {"webhooks"}),
    ],
)
def test_an_end_that_was_not_announced_or_wrongly_is_seen(hooks, found):
    orders = [dataclasses.replace(CLEAN.orders[0], options=WEBHOOK), *CLEAN.orders[1:]]
    delivered = [Hook("e", task_id, cycle, kind, 3.0, status) for task_id, cycle, kind, status in hooks]

    assert broken(orders=orders, hooks=delivered) == found


def test_a_delivery_that_is_recorded_as_failed_counts_and_one_that_no_client_asked_for_is_seen():
    orders = [dataclasses.replace(CLEAN.orders[0], options=WEBHOOK), *CLEAN.orders[1:]]
    dead = with_view(LOST, taskId="h1", type="webhook.deliver", parentId="t1", state="REJECTED")

    assert broken(orders=orders, tasks=[*CLEAN.tasks, dataclasses.replace(dead, id="h1")]) == set()
    assert broken(hooks=[Hook("e", "t1", 0, "task.succeeded", 3.0, 204)]) == {"webhooks"}


# --- schedules -----------------------------------------------------------------------------------
PUT = act("putSchedule", "s", 1_000.5, 201, asked={"cron": "*/3 * * * * *", "catchUp": "last", "overlap": "queue"})
DELETE = act("deleteSchedule", "s", 1_015.5, 204)
VIEW = {
    "name": "s",
    "fired": 5,
    "skipped": 0,
    "missed": 0,
    "paused": False,
    "lastRun": {"at": "1970-01-01T00:16:54.000Z"},
    "seenAt": 1_015.0,
}


def fired(at, *, number=0, created=None, tick="tick"):
    task_id = f"{int(at * 1_000):012x}"
    task_id = f"{task_id[:8]}-{task_id[8:]}-7000-8000-{number:012}"
    moment = created or at
    this = task(task_id, "", "SUCCEEDED", [hop(at * 1_000 + 1, "started"), hop(at * 1_000 + 2, "succeeded")])
    made = f"1970-01-01T00:{int(moment // 60):02}:{moment % 60:06.3f}Z"
    return with_view(this, parentId=f"{tick}{at}", labels={"schedule": "s"}, requestId="", createdAt=made)


def scheduled(due_tasks, acts=(PUT, DELETE), view=VIEW):
    effects = {**CLEAN.effects, **{each.id: 1 for each in due_tasks}}
    delivered = [*CLEAN.deliveries, *(Delivery(each.id, "schedule-0", 1, 2, "applied") for each in due_tasks)]
    return broken(
        tasks=[*CLEAN.tasks, *due_tasks], effects=effects, deliveries=delivered, schedules=[view], **with_acts(*acts)
    )  # fmt: skip


EVERY = [fired(at) for at in (1_002, 1_005, 1_008, 1_011, 1_014)]


def test_a_schedule_that_fires_each_due_time_once_breaks_nothing():
    assert scheduled(EVERY) == set()


def test_a_schedule_whose_creation_was_refused_at_first_begins_with_the_one_that_was_not():
    assert scheduled(EVERY, (dataclasses.replace(PUT, at=980.0, ended=980.1, status=503), PUT, DELETE)) == set()


def test_a_due_time_that_is_left_out_is_seen_unless_it_is_counted():
    assert scheduled([*EVERY[:2], *EVERY[3:]], view={**VIEW, "fired": 4}) == {"schedules"}
    assert scheduled([*EVERY[:2], *EVERY[3:]], view={**VIEW, "fired": 4, "missed": 1}) == set()


@pytest.mark.parametrize(
    "more",
    [fired(1_005, number=1), fired(1_006), fired(996), fired(1_020)],
    ids=["twice", "no due time", "before the schedule", "after the schedule"],
)
def test_a_task_too_many_of_a_schedule_is_seen(more):
    assert scheduled([*EVERY, more]) == {"schedules"}


def test_a_task_of_a_due_time_in_a_pause_is_seen():
    paused = act("pauseSchedule", "s", 1_006.0, 200), act("resumeSchedule", "s", 1_010.0, 200)

    assert scheduled(EVERY, (PUT, *paused, DELETE)) == {"schedules"}
    assert scheduled([*EVERY[:2], *EVERY[3:]], (PUT, *paused, DELETE), {**VIEW, "fired": 4}) == set()


def test_a_schedule_that_lost_a_task_stands_still_or_makes_up_for_too_much_is_seen():
    late = [
        dataclasses.replace(each, view={**each.view, "parentId": "tick", "createdAt": "1970-01-01T00:17:30.000Z"})
        for each in EVERY
    ]

    assert scheduled(EVERY, view={**VIEW, "fired": 6}) == {"schedules"}
    assert scheduled(EVERY, view={**VIEW, "seenAt": 1_140.0}) == {"schedules"}
    assert scheduled(late) == {"schedules"}


# --- operators -----------------------------------------------------------------------------------
def job(**changes):
    return {"jobId": "j1", "state": "done", "done": 3, "failed": 0, "passedOver": 1, "reason": None, **changes}


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        ([job()], set()),
        ([], {"jobs"}),
        ([job(state="running")], {"jobs"}),
        ([job(done=6)], {"jobs"}),
        ([job(failed=1)], {"jobs"}),
        ([job(state="stopped", reason="requested")], {"jobs"}),
        ([job(state="stopped", reason="canary-failed")], set()),
    ],
)
def test_a_job_that_is_lost_does_not_end_takes_too_many_or_fails_is_seen(jobs, found):
    asked = {"verb": "redrive", "dryRun": False, "limit": 5, "canary": True}
    start = act("startJob", "redrive", asked=asked, answer={"jobId": "j1"})

    assert broken(jobs=jobs, **with_acts(start)) == found


def test_a_verb_without_an_audit_entry_is_seen_unless_its_line_is_in_the_log():
    done = act("retryTaskNow", "t1")

    assert broken(acts=[done]) == {"audit"}
    assert broken(acts=[done], audit_lines=[done.request_id]) == set()
    assert broken(acts=[dataclasses.replace(done, status=503)]) == set()
    assert broken(acts=[dataclasses.replace(done, asked={"dryRun": True})]) == set()


@pytest.mark.parametrize(
    "change", [{"held": ["robot:held:all"]}, {"keys": ["robot-1"]}, {"pauses": ["all"]}, {"jobs": ["j1"]}]
)
def test_what_operators_leave_behind_is_seen(change):
    assert broken(left=dataclasses.replace(QUIET, **change)) == {"nothing is left"}


def test_a_dead_letter_that_was_discarded_without_a_wish_is_seen():
    gone = dataclasses.replace(CLEAN.tasks[1], inner={**CLEAN.tasks[1].inner, "discarded": "1"})
    rest = {"tasks": tasks(gone), "dead_letters": [], "left": dataclasses.replace(QUIET, listed=[])}

    assert broken(**rest) == {"P4 discarded on request"}
    assert broken(**rest, **with_acts(act("discardDeadLetter", "t2", status=204))) == set()


def test_a_mended_redrive_may_succeed_with_an_effect_of_its_own():
    mended = with_view(GOOD, cycle=1)
    redrive = act("redriveDeadLetter", "t1", asked={"payload": {}})
    delivered = [*CLEAN.deliveries[1:], Delivery("t1.1", "good", 1, 2, "applied")]

    assert broken(tasks=tasks(mended), deliveries=delivered, effects={"t1.1": 1}, **with_acts(redrive)) == set()
    assert broken(tasks=tasks(mended), deliveries=delivered, effects={"t1.1": 1}) == {"P3 applied once"}
