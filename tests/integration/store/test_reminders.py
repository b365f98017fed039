"""When the sweeper checks a task: what sets a reminder, puts it off and drops it."""

import pytest

from dispatch.protocol.copies import held_copy, resent_copy
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.holds import Holds
from dispatch.store.transitions import FIRST_CHECK


def reminder(case):
    return case.redis.zscore(f"{case.prefix}due", case.task_id)


def confirmed(case, **details):
    return case.store.mark_published(case.message, queue="q", max_attempts=4, idempotency_key=None, **details)


def test_nothing_is_checked_after_the_confirm_until_a_queue_may_have_given_the_copy_up(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    now = case.stores.reminders.clock()
    assert confirmed(case)

    assert reminder(case) == pytest.approx(now + case.settings.queue_ttl, abs=2)


def test_a_task_for_later_is_checked_that_much_later(case):
    accepted_at = case.message.headers["x-accepted-at"]
    case.message = case.message.with_headers(
        **{"x-wakes-at": accepted_at + 90_000, "x-queued-at": accepted_at + 90_000}
    )
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    now = case.stores.reminders.clock()
    assert confirmed(case, state=State.DELAYED)

    assert reminder(case) == pytest.approx(now + 90 + case.settings.queue_ttl, abs=2)


@pytest.mark.parametrize(
    "meanwhile", ["claimed", "decided", "succeeded", "rejected", "confirmed before", "record lost"]
)
def test_a_confirm_that_something_has_overtaken_leaves_the_reminder_alone(case, meanwhile):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    ticket = case.run() if meanwhile in ("claimed", "decided", "succeeded") else None
    if meanwhile == "decided":
        case.decide(ticket)
    elif meanwhile == "succeeded":
        case.claims.complete(case.message, ticket, {}, 4)
    elif meanwhile == "rejected":
        case.store.reject(
            case.message, error=ErrorInfo("queue-full", "it is full", retryable=True), idempotency_key=None
        )
    elif meanwhile == "confirmed before":
        confirmed(case)
        case.stores.reminders.set(case.task_id, 7)  # as a decision does
    elif meanwhile == "record lost":
        case.redis.delete(case.stores.redis.keys.task(case.task_id).record)
    before = reminder(case)

    assert confirmed(case) is (meanwhile != "rejected")
    assert reminder(case) == before


@pytest.mark.parametrize("decision", ["failed", "waits", "held", "sent now"])
def test_a_decision_is_checked_soon_however_long_the_task_has_waited(case, decision):
    case.accept()
    if decision == "failed":
        case.decide(case.run())
    elif decision == "waits":
        case.wait(case.run())
    elif decision == "held":
        Holds(case.stores.redis).hold(case.message, held_copy(case.message, 600), "type:echo", 4)
    else:
        case.stores.handovers.send_now(resent_copy(case.store.whole(case.task_id)), {State.QUEUED}, "sent-now")

    assert reminder(case) == pytest.approx(case.stores.reminders.clock() + FIRST_CHECK, abs=2)


def test_a_task_without_a_reminder_gets_none_by_its_confirm(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    case.redis.delete(f"{case.prefix}due")
    confirmed(case)

    assert reminder(case) is None


def test_a_reminder_that_was_set_meanwhile_outlives_the_sweepers_forgetting(case):
    case.accept()
    looked = case.stores.reminders.clock()
    case.stores.reminders.set(case.task_id, looked + 30)  # as a redrive does
    case.stores.reminders.drop(case.task_id, looked)

    assert case.redis.zscore(f"{case.prefix}due", case.task_id) == pytest.approx(looked + 30)
    case.stores.reminders.set(case.task_id, looked - 1)
    case.stores.reminders.drop(case.task_id, looked)
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is None


def test_reminders_are_postponed_together_but_for_those_that_were_set_or_dropped_meanwhile(case):
    looked, reminders = case.stores.reminders.clock(), case.stores.reminders
    for task_id, at in {"waits": looked - 30, "exactly": looked, "decided": looked + 5, "over": looked}.items():
        reminders.set(task_id, at)
    reminders.drop("over", looked)
    reminders.postpone(dict.fromkeys(("waits", "exactly", "decided", "over", "never"), looked + 3_600), looked)

    found = dict(case.redis.zrange(f"{case.prefix}due", 0, -1, withscores=True))
    assert found == pytest.approx({"waits": looked + 3_600, "exactly": looked + 3_600, "decided": looked + 5})
    assert reminders.postpone({}, looked) is None
