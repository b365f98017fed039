"""Schedules in Redis: one change follows another, a due time is settled once, and a payload at rest is encrypted where that is asked for."""

import contextlib
import dataclasses

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from dispatch.errors import StoreError
from dispatch.protocol.schedules import Schedule
from dispatch.store.schedules import OVERDUE, ScheduleNote, ScheduleStore
from support.stores import Stores

ONE = Schedule("nightly", "ada", "echo", {"message": "hush-hush"}, "0 3 * * *", revision=5)


@pytest.fixture
def open_store(settings):
    with contextlib.ExitStack() as stack:

        def make(**changes):
            made = Stores(settings.model_copy(update=changes))
            stack.callback(made.close)
            return ScheduleStore(made.redis)

        yield make


def test_only_one_change_follows_a_revision(open_store):
    store = open_store()
    first = store.set(ONE, was=0, next_at=1_000)
    again = store.set(ONE, was=0, next_at=1_000)
    changed = store.set(dataclasses.replace(ONE, revision=6), was=5, next_at=None)
    late = store.delete("nightly", "ada", 5)

    assert (first, again, changed, late) == (True, False, True, False)
    assert (store.get("nightly").revision, store.get("nightly").next_at) == (6, None)


def test_a_due_time_is_settled_once_and_by_its_revision_alone(open_store):
    store = open_store()
    store.set(ONE, was=0, next_at=1_000)
    note = ScheduleNote(0, 1_000, 2_000, "tick", fired_at=1_000, fired_task="task", fired=1, missed=2)
    answers = [
        store.note(ONE, note), store.note(ONE, note), store.note(dataclasses.replace(ONE, revision=4), dataclasses.replace(note, last=9_000)),
    ]  # fmt: skip
    entry = store.get("nightly")

    assert answers == [True, False, False]
    assert (entry.fired, entry.missed, entry.fired_task, entry.next_at, entry.tick) == (1, 2, "task", 2_000, "tick")
    assert store.overdue(2_000 + OVERDUE, 9) == ["nightly"]
    assert store.overdue(1_999 + OVERDUE, 9) == []


def test_a_deleted_schedule_leaves_no_payload_and_a_new_one_counts_anew(open_store):
    store = open_store()
    store.set(ONE, was=0, next_at=1_000)
    store.note(ONE, ScheduleNote(0, 1_000, 2_000, "tick", fired_at=1_000, fired_task="task", fired=1))
    store.delete("nightly", "ada", 5)
    gone, listed = store.get("nightly"), store.all()
    store.set(
        dataclasses.replace(ONE, principal="eve", revision=gone.revision + 1),
        was=gone.revision,
        next_at=3_000,
        fresh=True,
    )
    entry = store.get("nightly")

    assert (gone.schedule, gone.fired_task, listed) == (None, None, [])
    assert gone.revision > ONE.revision
    assert (entry.principal, entry.fired, entry.fired_task, entry.settled_at) == ("eve", 0, None, 0)


def test_a_definition_is_encrypted_and_unreadable_without_the_key(open_store):
    store = open_store(encryption_keys=SecretStr(Fernet.generate_key().decode()))
    store.set(ONE, was=0, next_at=1_000)
    (stored,) = store._redis.run(("HGET", store._redis.keys.schedule("nightly"), "definition"))

    assert store.get("nightly").schedule == ONE
    assert "hush-hush" not in stored
    with pytest.raises(StoreError):
        open_store().get("nightly")
