"""What a principal's tasks hold is counted with their records, and mended where the two differ."""

import pytest

from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.record import ErrorInfo
from dispatch.store.usage import Held, Holding

NOTHING = Held(0, 0, 0)
REFUSED = ErrorInfo("queue-full", "it is full", retryable=True)


@pytest.fixture
def usage(case):
    return case.store.usage


def kind(case):
    """What the task counts as, and whether its bytes are counted."""
    held = case.store.usage.read("ada")
    return held.open, held.dead, held.bytes > len(case.message.body)


def test_a_task_counts_from_its_acceptance_to_its_end(case, usage):
    case.accept()
    accepted = kind(case)
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)  # a repeated key
    repeated = usage.read("ada")
    letter = case.die()
    dead = kind(case)
    case.dead_letters.record(letter, reason=Reason.PERMANENT, max_attempts=4)
    recorded = kind(case)
    copy = case.dead_letters.redrive(letter, redriven_copy(letter), by="op", max_attempts=4).copy
    redriven = kind(case)
    case.dead_letters.undo_redrive(copy)
    undone = kind(case)
    assert case.dead_letters.discard(case.task_id, by="op")

    assert (accepted, redriven) == ((1, 0, True), (1, 0, True))
    assert repeated.open == 1
    assert (dead, recorded, undone) == ((0, 1, True),) * 3
    assert usage.read("ada") == NOTHING


def test_an_acceptance_answers_what_its_principal_holds(case, usage):
    assert usage.lately("ada") is None
    case.accept()

    assert usage.lately("ada") in (usage.read("ada"), None)  # None: a second has passed


def test_no_task_id_is_taken_for_a_sum(usage):
    ids = ["open", "dead", "bytes"]
    usage._redis.run(*(usage.entry("eve", task_id, Holding.OPEN, 5) for task_id in ids))
    held = usage.read("eve")
    usage.mend("eve")

    assert held == Held(3, 0, 15)
    assert usage.read("eve") == NOTHING


@pytest.mark.parametrize("end", ["success", "refusal", "success without a record"])
def test_its_end_leaves_nothing(case, usage, end):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    if end == "refusal":
        assert case.store.reject(case.message, error=REFUSED, idempotency_key=None)
    else:
        ticket = case.run()
        if end == "success without a record":
            case.wipe()
        assert case.claims.complete(case.message, ticket, {"a": 1}, 4)

    assert usage.read("ada") == NOTHING
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    assert usage.read("ada") == NOTHING  # a repeat of what has ended


def test_a_lost_record_that_comes_back_counts_again(case):
    case.accept()
    case.wipe()
    case.run()

    assert kind(case) == (1, 0, True)


def test_an_end_that_a_crash_left_uncounted_is_counted_by_the_sweeper_or_at_the_quota(case, usage):
    """Also one by a worker of the version before."""
    case.accept()
    assert case.claims.complete(case.message, case.run(), {"a": 1}, 4)
    left_behind = usage.entry("ada", case.task_id, Holding.OPEN, 100)
    unknown = usage.entry("ada", "gone", Holding.DEAD, 100)
    case.stores.redis.run(left_behind, unknown)
    drifted = usage.read("ada")
    usage.mend("ada")
    mended = usage.read("ada")
    case.stores.redis.run(left_behind)
    case.stores.reminders.set(case.task_id, 0)
    case.stores.sweeper(None).sweep()

    assert drifted == Held(1, 1, 200)
    assert mended == NOTHING
    assert usage.read("ada") == NOTHING
