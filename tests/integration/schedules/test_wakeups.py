"""What a wake-up does when a due time can't be submitted, when it comes twice, late or too early: with a real Redis."""

import contextlib
import dataclasses
import time
from types import SimpleNamespace

import pytest

from celery_app import create_celery
from dispatch.errors import InDoubt, Nacked, Throttled
from dispatch.protocol.ids import child_traceparent, issued_at
from dispatch.protocol.record import State
from dispatch.protocol.schedules import CatchUp, Overlap, Schedule
from dispatch.schedules.ticks import Ticks
from dispatch.schedules.wakeups import WakeUps
from dispatch.store.children import ChildEntries
from dispatch.store.schedules import ScheduleStore
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submitter
from dispatch.tasktypes.builtin import Tick
from dispatch.tasktypes.ladders import Ladders
from support.stores import Stores

MINUTE = 60_000
ONE = Schedule("minutely", "ada", "echo", {"message": "x"}, "* * * * *", overlap=Overlap.QUEUE)


class ListedPublisher:
    """A publisher whose first verdicts are errors; None confirms."""

    def __init__(self):
        self.errors, self.sent = [], []

    def publish(self, message, _exchange, _routing_key):
        self.sent.append(message)
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return 0.001


class Sleeper:
    """A schedule that waits for the last full minute, and what wakes it."""

    def __init__(self, settings, schedule, at):
        self.stores = Stores(settings)
        self.publisher, celery = ListedPublisher(), create_celery(settings)
        ladders = Ladders.of_types(settings.ladder, celery.dispatch_types.values())
        submitter = Submitter(self.stores.tasks, self.stores.idempotency, self.publisher, celery.tasks, ladders)
        once = OnceSubmitter(submitter, self.stores.tasks, ChildEntries(self.stores.redis), settings)
        self.store, self.ticks = ScheduleStore(self.stores.redis), Ticks(once, longest_delay=4_000_000)
        self.types = dict(celery.dispatch_types)
        self.wake_ups = WakeUps(self.store, self.stores.tasks, once, self.ticks, self.types, max_body=settings.max_body)
        self.schedule, self.at = schedule, at
        self.store.set(schedule, was=0, next_at=at)

    def wake(self, at=None, schedule=None, **more):
        order = Tick(definition=(schedule or self.schedule).to_text(), at=at or self.at, **more)
        ctx = SimpleNamespace(task_id="the-wait", traceparent=child_traceparent(None))
        return self.wake_ups(order, ctx)

    @property
    def entry(self):
        return self.store.get(self.schedule.name)

    def submitted(self, type="echo"):
        return [message for message in self.publisher.sent if message.type == type]

    def finish(self, task_id):
        self.stores.redis.run(("HSET", self.stores.redis.keys.task(task_id).record, "state", "SUCCEEDED"))


@pytest.fixture
def sleeper(settings):
    at = int(time.time() // 60) * MINUTE
    with contextlib.ExitStack() as stack:

        def make(late=0, changes=None, **more):
            schedule = dataclasses.replace(ONE, revision=1_000, updated_at=at - 1_000 * MINUTE, **more)
            made = Sleeper(settings.model_copy(update=changes or {}), schedule, at - late * MINUTE)
            stack.callback(made.stores.close)
            return made

        yield make


def test_a_wake_up_submits_the_next_wait_and_the_task_and_its_repeat_nothing(sleeper):
    one = sleeper()
    first, again = one.wake(), one.wake()
    (wait,), (task,) = one.submitted("robot.schedule"), one.submitted()

    assert (first["outcome"], first["fired"], again) == ("fired", 1, {"outcome": "settled"})
    assert issued_at(task.task_id) * 1_000 == one.at
    assert wait.headers["x-wakes-at"] == one.at + MINUTE
    assert (task.headers["x-parent-id"], task.headers["x-labels"]) == ("the-wait", "schedule=minutely")
    assert (one.entry.fired, one.entry.fired_task, one.entry.tick) == (1, task.task_id, wait.task_id)


def test_after_an_outage_the_last_due_time_is_made_up_for_or_none(sleeper):
    last, none = sleeper(late=10), sleeper(late=10, catch_up=CatchUp.NONE, cron="*/5 * * * *", name="five")
    made_up = last.wake()
    skipped = none.wake(at=none.at - none.at % (5 * MINUTE))

    assert (made_up["fired"], made_up["missed"]) == (1, 10)
    assert skipped["fired"] + skipped["missed"] in {2, 3}
    assert last.entry.missed == 10


@pytest.mark.parametrize("error", [Nacked(), InDoubt()])
def test_a_due_time_that_can_not_be_submitted_waits_on_the_ladder_and_the_next_wait_is_there(sleeper, error):
    one = sleeper()
    one.publisher.errors = [None, error]
    with pytest.raises(Throttled):
        one.wake()
    waits, before = len(one.submitted("robot.schedule")), one.entry
    done = one.wake()

    assert (waits, before.settled_at) == (1, 0)
    assert (done["fired"], one.entry.fired) == (1, 1)
    assert len(one.submitted("robot.schedule")) == 1
    assert one.stores.tasks.get(one.entry.fired_task).state is State.QUEUED


def test_the_next_wake_up_settles_what_an_earlier_one_could_not(sleeper):
    one = sleeper(late=2)
    one.publisher.errors = [None, Nacked()]
    with pytest.raises(Throttled):
        one.wake()
    one.wake(at=one.at + MINUTE)
    late = one.wake()

    assert late == {"outcome": "settled"}
    assert one.entry.fired + one.entry.missed == 3  # also the one of two minutes before


def test_a_quota_that_is_used_up_refuses_the_task_and_never_the_wait(sleeper):
    one = sleeper(changes={"quota_open_tasks": 1})
    with pytest.raises(Throttled) as raised:
        one.wake()

    assert raised.value.type == "quota-exceeded"
    assert len(one.submitted("robot.schedule")) == 1


def test_overlap_skips_while_the_task_before_is_alive(sleeper):
    one = sleeper(overlap=Overlap.SKIP)
    one.wake()
    skipped = one.wake(at=one.at + MINUTE)
    one.finish(one.entry.fired_task)
    key = one.stores.redis.keys.schedule("minutely")
    one.stores.redis.run(("HSET", key, "settledAt", one.at, "nextAt", one.at + MINUTE))
    fired = one.wake(at=one.at + MINUTE)

    assert (skipped["fired"], skipped["skipped"]) == (0, 1)
    assert fired["fired"] == 1


def test_a_type_that_is_gone_or_a_payload_that_is_not_valid_any_more_is_an_error_and_the_schedule_goes_on(sleeper):
    gone, invalid = sleeper(type="no.such", name="gone"), sleeper(payload={"massage": "x"}, name="invalid")
    results = [gone.wake(), invalid.wake()]

    assert [(each["fired"], each["missed"]) for each in results] == [(0, 1), (0, 1)]
    assert gone.entry.error == "there is no task type 'no.such'"
    assert "not valid" in invalid.entry.error
    assert len(gone.submitted("robot.schedule")) == len(invalid.submitted("robot.schedule")) == 1


def test_a_wake_up_of_another_revision_of_a_deleted_or_a_lost_schedule(sleeper):
    one = sleeper()
    older = one.wake(schedule=dataclasses.replace(one.schedule, revision=999))
    newer = one.wake(schedule=dataclasses.replace(one.schedule, revision=1_001, cron="*/5 * * * *"))
    cron = one.entry.schedule.cron
    one.store.delete("minutely", "ada", 1_001)
    deleted = one.wake(schedule=dataclasses.replace(one.schedule, revision=1_001))
    one.stores.redis.run(("DEL", one.stores.redis.keys.schedule("minutely")))
    lost = one.wake()

    assert (older, deleted) == ({"outcome": "superseded"}, {"outcome": "superseded"})
    assert (newer["outcome"], cron, lost["outcome"]) == ("fired", "*/5 * * * *", "fired")
    assert one.entry.schedule == one.schedule


def test_a_wait_that_ends_before_its_time_is_begun_anew(sleeper):
    one = sleeper()
    early = one.wake(at=one.at + 10 * MINUTE)
    far = one.wake(at=one.at + 60 * 1_440 * MINUTE, early=True, leg=3)

    assert early == far == {"outcome": "waits"}
    assert (one.submitted(), one.entry.fired) == ([], 0)
    assert one.entry.tick == one.schedule.tick_id(one.at + 60 * 1_440 * MINUTE, 4)


def test_two_wake_ups_at_once_count_each_due_time_once(sleeper):
    one = sleeper(late=2)
    read, stale = one.store.get, one.entry
    one.wake(at=one.at)
    answers = [stale]
    one.store.get = lambda name: answers.pop() if answers else read(name)
    other = one.wake(at=one.at + MINUTE)
    one.store.get = read

    assert other == {"outcome": "settled"}
    assert one.entry.fired + one.entry.missed == 3
