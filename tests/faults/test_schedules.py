"""A schedule with a due time every second, while what carries it dies: no due time has two tasks, and the schedule goes on."""

import dataclasses
import time

import pytest
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.broker.publisher import Publisher
from dispatch.maintenance.schedule_keeper import ScheduleKeeper
from dispatch.protocol import delays, names
from dispatch.protocol.ids import issued_at
from dispatch.protocol.record import State
from dispatch.protocol.schedules import Overlap, Schedule
from dispatch.schedules.service import ScheduleService, ScheduleUnconfirmed
from dispatch.schedules.ticks import Ticks
from dispatch.store.children import ChildEntries
from dispatch.store.schedules import OVERDUE, ScheduleStore
from dispatch.store.unsynced import KEPT
from dispatch.submission.once import OnceSubmitter
from support import redises
from support.cluster import running_cluster
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

WANTED = Schedule("every-second", "local", "echo", {"message": "x"}, "* * * * * *", overlap=Overlap.QUEUE)


class Scheduling:
    """A gateway's verbs on schedules, and a checker of what they lead to."""

    def __init__(self, bench):
        self.bench = bench
        redis, settings = bench.stores.redis, bench.settings
        self.store = ScheduleStore(redis)
        once = OnceSubmitter(bench.submitter, bench.store, ChildEntries(redis), settings)
        self.ticks = Ticks(once, longest_delay=delays.longest(settings.delay_levels))
        self.service = ScheduleService(self.store, self.ticks, bench.submitter)
        self.keeper = ScheduleKeeper(self.store, bench.store, self.ticks, interval=1)

    def entry(self):
        return self.store.get(WANTED.name)

    def submitted(self):
        """The tasks that it has submitted, but those that never run."""
        found, cursor = [], None
        while True:
            page = self.bench.store.list(labels={"schedule": WANTED.name}, type="echo", limit=200, cursor=cursor)
            found += [record for record in page.items if record.state is not State.REJECTED]
            if (cursor := page.next) is None:
                return found

    def fired(self):
        """The due times that have a task, by the ids of the tasks."""
        return sorted(round(issued_at(record.task_id)) for record in self.submitted())

    def ended(self):
        """The due times whose task has ended."""
        return [round(issued_at(record.task_id)) for record in self.submitted() if record.state.terminal]

    def goes_on(self, more=3, timeout=60):
        """Wait until it has submitted some more tasks."""
        count = len(self.fired())
        eventually(lambda: len(self.fired()) >= count + more, timeout, lambda: f"it goes on: {self.entry()}")

    def check(self):
        """After a pause: each due time has one task that succeeded once; those without one were missed."""
        self.service.pause(WANTED.name, None)
        ran = eventually(self._ended, 40, "no wake-up is under way any more")
        times = sorted(round(issued_at(record.task_id)) for record in ran)
        entry = self.entry()

        assert len(times) == len(set(times)) == len(ran)
        succeeded = [self.bench.hops(record.task_id).count("succeeded") for record in ran]
        assert {record.state for record in ran} == {State.SUCCEEDED}
        assert succeeded == [1] * len(ran)
        return times, entry

    def _ended(self):
        """Its tasks, ended; None when one has come meanwhile, of a wake-up that was under way at the pause."""
        before = {record.task_id for record in self.submitted()}
        records = [self.bench.finished(task_id, 40) for task_id in before]
        ran = [record for record in records if record.state is not State.REJECTED]
        return ran if {record.task_id for record in self.submitted()} == {record.task_id for record in ran} else None


@pytest.fixture
def scheduling(bench):
    return Scheduling(bench)


@each_pool
@pytest.mark.parametrize("point", ["tick.waited", "tick.fired", "tick.noted", "child.reserved", "child.submitted"])
def test_a_process_dies_waking_up_and_no_due_time_has_two_tasks(bench, scheduling, monkeypatch, tmp_path, pool, point):
    assert point in crashpoints.POINTS
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
    with (
        running_worker(bench.settings, abrupt=True, pool=pool),
        running_worker(bench.settings, abrupt=True, pool=pool),
    ):
        scheduling.service.put(WANTED)
        eventually((tmp_path / "died-here").exists, 30)
        scheduling.goes_on()
        times, entry = scheduling.check()

    span = times[-1] - times[0] + 1
    assert len(times) <= span <= len(times) + entry.missed


def test_workers_are_killed_again_and_again_and_every_due_time_has_one_task_or_was_missed(bench, scheduling):
    scheduling.service.put(WANTED)
    for _ in range(3):
        with running_worker(bench.settings, abrupt=True):  # it is killed at the end, in the middle of whatever it does
            scheduling.goes_on()
    with running_worker(bench.settings, abrupt=True):
        scheduling.goes_on()
        times, entry = scheduling.check()

    missed = times[-1] - times[0] + 1 - len(times)
    assert 0 <= missed <= entry.missed
    assert entry.fired <= len(times)


def test_a_lost_wait_is_begun_again_by_the_keeper(bench, scheduling):
    scheduling.service.put(dataclasses.replace(WANTED, cron="* * * * * *"))
    lost = scheduling.entry()
    eventually(lambda: bench.depth(names.WORK_QUEUE) == 1, 20, "the wait is over")
    bench.purge(names.WORK_QUEUE)
    bench.stores.redis.run(("DEL", *bench.stores.redis.keys.task(lost.tick)))
    scheduling.store.look_at(WANTED.name, int(time.time() * 1_000) - 2 * OVERDUE)
    bench.stores.redis.run(
        ("HSET", bench.stores.redis.keys.schedule(WANTED.name), "nextAt", lost.next_at - 2 * OVERDUE)
    )
    scheduling.keeper.step()
    with running_worker(bench.settings, abrupt=True):
        scheduling.goes_on()
        scheduling.check()

    assert scheduling.entry().tick != lost.tick


def test_redis_without_its_data_has_the_schedule_again_from_its_wait(bench, scheduling):
    scheduling.service.put(WANTED)
    before = scheduling.entry()
    redis = bench.stores.redis
    with running_worker(bench.settings, abrupt=True):
        scheduling.goes_on()
        eventually(lambda: redis.run(("DEL", redis.keys.schedule(WANTED.name), redis.keys.schedules))[0] == 2, 10)
        eventually(lambda: (entry := scheduling.entry()) is not None and entry.fired, 30, "a wake-up restores it")
        scheduling.goes_on()
        scheduling.check()

    assert scheduling.entry().schedule.same_as(dataclasses.replace(WANTED, paused=True))
    assert before.schedule.revision < scheduling.entry().revision
    assert [entry.schedule.name for entry in scheduling.store.all()] == [WANTED.name]


def test_redis_without_its_last_seconds_has_each_due_time_once_and_the_schedule_goes_on(settings):
    """What the schedule has counted meanwhile may be lost."""
    with redises.single() as server:
        changes = {"redis_url": SecretStr(server.url)}
        with open_bench(settings.model_copy(update=changes)) as bench, running_worker(bench.settings, abrupt=True):
            scheduling = Scheduling(bench)
            scheduling.service.put(WANTED)
            scheduling.goes_on(1)
            written = server.written()
            scheduling.goes_on(2)
            seen = scheduling.ended()
            server.lose_since(written)
            scheduling.goes_on(timeout=90)
            times, _ = scheduling.check()

    assert set(seen) <= set(times)


def test_a_deleted_schedule_does_not_come_back_with_its_last_wait(bench, scheduling):
    scheduling.service.put(WANTED)
    tick = scheduling.entry().tick
    scheduling.service.delete(WANTED.name, None)
    with running_worker(bench.settings, abrupt=True):
        ended = bench.finished(tick)

    assert ended.result == {"outcome": "superseded"}
    assert (scheduling.entry().schedule, scheduling.store.all(), scheduling.fired()) == (None, [], [])


def test_a_schedule_whose_wait_was_not_confirmed_is_begun_by_its_repeat_or_by_the_keeper(bench, scheduling):
    nowhere = Publisher("amqp://guest:guest@127.0.0.1:1//", timeout=0.2, connect_timeout=0.1)
    deaf = Scheduling(bench)
    deaf.ticks._once._submitter = bench.submitter_of(bench.stores, nowhere)
    yearly = dataclasses.replace(WANTED, cron="0 0 1 1 *")
    with pytest.raises(ScheduleUnconfirmed):
        deaf.service.put(yearly)
    unconfirmed = scheduling.entry()
    scheduling.store.look_at(WANTED.name, int(time.time() * 1_000) - 2 * OVERDUE)
    scheduling.keeper.step()
    kept = scheduling.entry()
    repeated, created = scheduling.service.put(yearly)
    nowhere.close()

    assert (unconfirmed.tick, created) == (None, False)
    assert kept.tick == repeated.tick is not None
    assert bench.store.get(kept.tick).state is State.DELAYED


@pytest.mark.timeout(300)
def test_with_a_due_time_every_second_worker_rabbitmq_and_redis_are_killed_in_turn(settings):
    """The checker counts: every due time has one task, which succeeded once, or was missed.

    Where the disk is busy, Redis is back without its last seconds: the tasks have them again, the count of the missed does not.
    """
    with running_cluster(size=1) as cluster, redises.single() as server:
        (member,) = cluster.members
        changes = {
            "broker_url": SecretStr(cluster.broker_url),
            "management_url": SecretStr(cluster.management_url),
            "redis_url": SecretStr(server.url),
        }
        with open_bench(settings.model_copy(update=changes)) as bench:
            scheduling = Scheduling(bench)
            scheduling.service.put(WANTED)
            with running_worker(bench.settings, abrupt=True):
                scheduling.goes_on()
            with running_worker(bench.settings, abrupt=True):
                scheduling.goes_on()
                member.kill()
                member.start()
                eventually(cluster.whole, 60, "RabbitMQ is back")
                scheduling.goes_on(timeout=90)
                seen = scheduling.ended()
                server.kill()
                server.start()
                scheduling.goes_on(timeout=90)
                times, entry = scheduling.check()

    missed = times[-1] - times[0] + 1 - len(times)
    assert 0 <= missed <= entry.missed + KEPT
    assert set(seen) <= set(times)
    assert entry.schedule.paused
