"""What a refused submission leaves in Redis, wherever its gateway dies."""

import contextlib

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.claims import ClaimAnswer
from dispatch.store.idempotency import KeyState
from support.waiting import eventually

REFUSED = ErrorInfo("queue-depth-exceeded", "the queue is full", retryable=True)


def reserve(case, task_id=None):
    return case.stores.idempotency.reserve("ada", "k", "print", task_id or case.task_id)


def recorded(case):
    assert reserve(case).state is KeyState.NEW
    case.store.accept(case.message, max_attempts=4, idempotency_key="k")


def refuse(case, *, key="k", stored_nowhere=False):
    return case.store.refuse(case.message, error=REFUSED, idempotency_key=key, stored_nowhere=stored_nowhere)


@contextlib.contextmanager
def dies_after(redis, commands):
    """Each command goes by itself, as in a Redis Cluster, and after so many of them the process dies."""
    run, left = redis.run, [commands]

    def one_by_one(*wanted):
        answers = []
        for command in wanted:
            if not left[0]:
                raise StoreUnavailable
            left[0] -= 1
            answers += run(command)
        return answers

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StoreUnavailable):
        patch.setattr(redis, "run", one_by_one)
        yield


def test_a_refused_task_is_in_no_list_holds_nothing_and_frees_its_key_and_a_late_copy_does_not_run(case):
    recorded(case)
    refused = refuse(case)

    assert refused
    assert case.store.list().items == case.store.list(principal="ada").items == []
    assert case.store.usage.read("ada").open == 0
    assert reserve(case, "another").state is KeyState.NEW
    assert case.claim().answer is ClaimAnswer.CANCELLED
    assert case.record().state is State.REJECTED


@pytest.mark.parametrize("commands", range(7))
def test_a_refusal_that_is_cut_off_leaves_a_key_that_its_repeat_frees(case, commands):
    recorded(case)
    with dies_after(case.stores.redis, commands):
        refuse(case)
    never_runs = commands == 0 or case.claim().answer is ClaimAnswer.CANCELLED
    # The repeat adopts the task, finds it rejected, and refuses it once more (`Submitter`).
    again = refuse(case)

    assert (never_runs, again) == (True, True)
    assert case.store.list(principal="ada").items == []
    assert reserve(case, "another").state is KeyState.NEW


def test_a_task_that_a_worker_has_claimed_is_not_refused_and_stays_listed(case):
    recorded(case)
    case.run()

    assert not refuse(case)
    assert [record.task_id for record in case.store.list(principal="ada").items] == [case.task_id]


def test_what_the_sweeper_gives_up_stays_listed_since_its_client_has_had_no_answer(case):
    recorded(case)
    case.store.reject(case.message, error=REFUSED, idempotency_key="k")

    assert [record.state for record in case.store.list(principal="ada").items] == [State.REJECTED]


def test_the_record_of_what_is_stored_nowhere_is_soon_gone(case):
    case.store._grace = 0.2
    recorded(case)
    refuse(case, stored_nowhere=True)

    eventually(lambda: case.record() is None, 10, "it has expired")
