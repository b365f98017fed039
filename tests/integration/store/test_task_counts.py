"""Counts are those of the records, in bounded time, however often they are asked for."""

import contextlib
import threading
import time

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.store import task_counts
from dispatch.store.claims import Ticket
from dispatch.store.task_counts import OTHERS, TaskCounter
from support.redises import cluster
from support.stores import Stores


@pytest.fixture
def stores(settings):
    with contextlib.closing(Stores(settings, timeout=10)) as made:
        yield made


def counter(stores, clock=time.monotonic):
    return TaskCounter(stores.redis, stores.settings, clock)


def accept(stores, *, principal="ada", type="echo", age=0.0, own_id=None):
    accepted = int((time.time() - age) * 1_000)
    headers = {
        "id": own_id or new_task_id(), "task": type, "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-principal": principal,
        "x-accepted-at": accepted,
    }  # fmt: skip
    made = Message(b'[[{"message":"x"}],{},{}]', headers, routing_key="robot.task.dispatch.echo")
    stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
    stores.tasks.mark_published(made, queue="q", max_attempts=4, idempotency_key=None)
    return made


def run(stores, made):
    ticket = Ticket(f"owner-{made.task_id}", f"fence-{made.task_id}", "w@test")
    stores.claims.claim(made, ticket, 4)
    return ticket


def die(stores, made, error):
    stores.dead_letters.record(made.with_headers(**{"x-last-error-type": error}), reason="permanent", max_attempts=4)


def some_tasks(stores):
    for _ in range(3):
        accept(stores)
    run(stores, accept(stores, type="robot.clean"))
    done = accept(stores, principal="bob", type="robot.clean")
    stores.claims.complete(done, run(stores, done), {"a": 1}, 4)
    for error in ("boom", "boom", "bang"):
        die(stores, accept(stores, principal="bob"), error)
    gone = accept(stores, principal="bob")
    die(stores, gone, "boom")
    stores.dead_letters.discard(gone.task_id, by="op")


def test_tasks_are_counted_by_type_and_state_for_one_principal_and_for_all(stores):
    some_tasks(stores)
    counts = counter(stores)
    ada, every = counts.counts("ada"), counts.counts(None)

    assert (ada.tasks, ada.by_state, ada.dead_letters) == (4, {"QUEUED": 3, "RUNNING": 1}, {})
    assert ada.by_type == {"echo": {"QUEUED": 3}, "robot.clean": {"RUNNING": 1}}
    assert (every.tasks, every.complete) == (9, True)
    assert every.by_type == {
        "echo": {"DEAD_LETTERED": 4, "QUEUED": 3}, "robot.clean": {"RUNNING": 1, "SUCCEEDED": 1},
    }  # fmt: skip
    assert every.dead_letters == {"boom": 2, "bang": 1}
    assert counts.counts("eve").tasks == 0


def test_what_is_alive_or_dead_counts_however_old_and_once(stores):
    age = stores.settings.idempotency_ttl + 3_600
    old = [f"018b0000-0000-7000-8000-00000000000{number}" for number in range(3)]
    accept(stores, age=age, own_id=old[0])
    run(stores, accept(stores, age=age, own_id=old[1]))
    die(stores, accept(stores, age=age, own_id="of-a-client"), "boom")
    die(stores, accept(stores), "boom")
    accept(stores)
    counts = counter(stores)

    for whose in ("ada", None):
        assert counts.counts(whose).by_state == {"DEAD_LETTERED": 2, "QUEUED": 2, "RUNNING": 1}
        assert counts.counts(whose).dead_letters == {"boom": 2}


def test_they_are_kept_for_some_seconds_with_the_time_of_counting(stores):
    now = [0.0]
    counts = counter(stores, lambda: now[0])
    accept(stores)
    first = counts.counts("ada")
    accept(stores)
    again = counts.counts("ada")
    now[0] = task_counts.KEPT
    later = counts.counts("ada")

    assert (first.tasks, again, later.tasks) == (1, first, 2)
    assert later.as_of >= first.as_of > 1_700_000_000_000


@pytest.mark.parametrize("limit", ["MOST", "LONGEST"])
def test_too_many_are_counted_in_part_the_newest_ones(stores, monkeypatch, limit):
    monkeypatch.setattr(task_counts, "_BATCH", 2)
    now = iter(range(1_000))
    if limit == "MOST":
        monkeypatch.setattr(task_counts, "MOST", 4)
    else:
        monkeypatch.setattr(task_counts, "LONGEST", 4)
    for number in range(10):
        accept(stores, type="old" if number < 3 else "echo", age=100 - number)
    counted = counter(stores, (lambda: float(next(now))) if limit == "LONGEST" else time.monotonic).counts("ada")

    assert not counted.complete
    assert 0 < counted.tasks < 10
    assert list(counted.by_type) == ["echo"]


def test_many_requests_at_once_are_answered_by_one_counting(stores, monkeypatch):
    for _ in range(20):
        accept(stores)
    counts, asked, answers = counter(stores), [], []
    count = counts._count
    monkeypatch.setattr(counts, "_count", lambda principal: (asked.append(principal), count(principal))[1])
    threads = [threading.Thread(target=lambda: answers.append(counts.counts("ada"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.tasks for answer in answers] == [20] * 10
    assert asked == ["ada"]


def test_a_counting_that_does_not_end_holds_no_other_request_for_long(stores, monkeypatch):
    monkeypatch.setattr(task_counts, "_PATIENCE", 0.01)
    counts, goes_on, begun = counter(stores), threading.Event(), threading.Event()
    count = counts._count
    monkeypatch.setattr(counts, "_count", lambda principal: (begun.set(), goes_on.wait(20), count(principal))[2])
    thread = threading.Thread(target=counts.counts, args=("ada",))
    thread.start()
    begun.wait(20)
    with pytest.raises(StoreUnavailable):
        counts.counts("ada")
    goes_on.set()
    thread.join()

    assert counts.counts("ada").tasks == 0


def test_names_that_clients_make_up_share_a_row(stores, monkeypatch):
    monkeypatch.setattr(task_counts, "MOST_NAMES", 2)
    for number in range(5):
        for _ in range(5 - number):
            die(stores, accept(stores, type=f"type-{number}\n\x00"), f"error-{number}")
    counted = counter(stores).counts(None)

    assert counted.by_type == {
        "type-0\n\x00": {"DEAD_LETTERED": 5}, "type-1\n\x00": {"DEAD_LETTERED": 4}, OTHERS: {"DEAD_LETTERED": 6},
    }  # fmt: skip
    assert counted.dead_letters == {"error-0": 5, "error-1": 4, OTHERS: 6}


def test_the_longer_a_counting_takes_the_longer_its_counts_are_kept(stores, monkeypatch):
    now = [0.0]
    counts = counter(stores, lambda: now[0])
    count = counts._count

    def slowly(principal):
        now[0] += 1
        return count(principal)

    monkeypatch.setattr(counts, "_count", slowly)
    first = counts.counts("ada")
    now[0] += task_counts.TIMES - 0.1

    assert counts.counts("ada") is first
    now[0] += 0.1
    assert counts.counts("ada") is not first


def test_principals_beyond_those_that_are_kept_are_counted_all_the_same(stores, monkeypatch):
    monkeypatch.setattr(task_counts, "_PRINCIPALS", 3)
    counts = counter(stores)
    for number in range(10):
        accept(stores, principal=f"p-{number}")

    assert [counts.counts(f"p-{number}").tasks for number in range(10)] == [1] * 10
    assert len(counts._kept) <= 3


def test_in_a_cluster_where_no_script_may_have_them_all_they_are_counted_as_well(settings):
    with cluster() as masters:
        own = settings.model_copy(update={"redis_url": type(settings.redis_url)(masters.url)})
        with contextlib.closing(Stores(own, timeout=10)) as stores:
            some_tasks(stores)
            every = counter(stores).counts(None)
            ada = counter(stores).counts("ada")

    assert (every.tasks, every.by_state) == (9, {"DEAD_LETTERED": 4, "QUEUED": 3, "RUNNING": 1, "SUCCEEDED": 1})
    assert every.dead_letters == {"boom": 2, "bang": 1}
    assert ada.by_type == {"echo": {"QUEUED": 3}, "robot.clean": {"RUNNING": 1}}
