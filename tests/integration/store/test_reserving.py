"""A task's record and its Idempotency-Key in one round trip: what each answer of the key leaves in Redis."""

import dataclasses

import pytest

from dispatch.protocol.labels import written
from dispatch.protocol.message import LABELS
from dispatch.protocol.record import State
from dispatch.store.idempotency import KeyHeld, KeyInProgress, KeyReused, KeyState, Reservation
from dispatch.store.usage import Holding
from support.waiting import eventually


def accept(case, *, fingerprint="print"):
    return case.store.accept(case.message, max_attempts=4, idempotency_key="k", fingerprint=fingerprint)


def holder(case):
    return case.stores.idempotency.find("ada", "k")


def traces(case):
    """Entries of the task, wherever there may be some."""
    keys, run = case.stores.redis.keys, case.stores.redis.run
    names = (keys.due, keys.index("ada"), keys.index(None), keys.waiting)
    listed = [name for name in names if run(("ZSCORE", name, case.task_id))[0] is not None]
    counted = run(("HEXISTS", keys.usage("ada"), case.task_id))[0]
    return [*listed, *([keys.usage("ada")] if counted else [])]


def taken_by_another(case, *, accepted=False):
    stores = case.stores
    assert stores.idempotency.reserve("ada", "k", "print", "another").state is KeyState.NEW
    if accepted:
        stores.redis.run(stores.idempotency.confirmation("ada", "k", "another"))


def test_a_free_key_is_the_tasks_and_the_task_is_recorded(case):
    assert accept(case) is State.SCHEDULED
    assert holder(case).task_id == case.task_id
    assert case.record().state is State.SCHEDULED
    assert len(traces(case)) == 5
    assert case.store.usage.read("ada").open == 1


def test_the_record_is_counted_as_by_the_script_that_counts_tasks(case):
    accept(case)
    keys, run = case.stores.redis.keys, case.stores.redis.run
    (counted,) = run(("HGETALL", keys.usage("ada")))
    size = run(("STRLEN", keys.task(case.task_id).message))[0]
    run(("DEL", keys.usage("ada")))
    run(case.store.usage.entry("ada", case.task_id, Holding.OPEN, size))

    assert run(("HGETALL", keys.usage("ada"))) == [{"#dead": "0", **counted}]  # not written before there is one


def test_the_same_round_trip_once_more_changes_nothing(case):
    """A connection that broke: Redis may have carried it out."""
    accept(case)

    assert accept(case) is State.SCHEDULED
    assert case.store.usage.read("ada").open == 1
    assert len(case.store.list().items) == 1


def test_the_key_of_an_accepted_task_leads_to_it_and_nothing_is_left_of_this_one(case):
    taken_by_another(case, accepted=True)
    with pytest.raises(KeyHeld) as held:
        accept(case)

    assert held.value.reservation == Reservation(KeyState.REPLAY, "another")
    assert (case.record(), traces(case), case.store.usage.read("ada").open) == (None, [], 0)


def test_a_key_whose_first_request_was_cut_off_is_adopted_and_nothing_is_left_of_this_one(case):
    taken_by_another(case)

    def held():
        try:
            accept(case)
        except KeyInProgress:
            return None
        except KeyHeld as exc:
            return exc.reservation

    assert eventually(held, 10, "its time is over") == Reservation(KeyState.ADOPT, "another")
    assert (case.record(), traces(case), case.store.usage.read("ada").open) == (None, [], 0)


@pytest.mark.parametrize(("fingerprint", "error"), [("print", KeyInProgress), ("other", KeyReused)])
def test_a_key_that_is_in_use_is_refused_and_nothing_is_left(case, fingerprint, error):
    taken_by_another(case)
    with pytest.raises(error):
        accept(case, fingerprint=fingerprint)

    assert (case.record(), traces(case), case.store.usage.read("ada").open) == (None, [], 0)
    assert holder(case).task_id == "another"


def test_a_list_of_a_label_has_no_task_whose_key_was_taken(case):
    taken_by_another(case, accepted=True)
    labelled = dataclasses.replace(case.message, headers={**case.message.headers, LABELS: written({"line": "a"})})
    with pytest.raises(KeyHeld):
        case.store.accept(labelled, max_attempts=4, idempotency_key="k", fingerprint="print")
    keys, run = case.stores.redis.keys, case.stores.redis.run

    assert [run(("ZCARD", keys.label(principal, "line=a")))[0] for principal in ("ada", None)] == [0, 0]
