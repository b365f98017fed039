"""What the sweeper does about a task, decided from its record."""

import dataclasses

import pytest

from dispatch.config.settings import load
from dispatch.errors import NotSent, StoreUnavailable
from dispatch.maintenance import sweeper as module
from dispatch.maintenance.sweeper import BATCH, CheckAt, Drop, Publish, Reject, Resend, Sweeper, next_step
from dispatch.protocol.copies import next_copy
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import Failure, FailureKind, Retry, Rung
from dispatch.store.handovers import DecisionAnswer
from support.cases import each
from support.unit_fakes import Failing, Log, task_message

SETTINGS = load({})
LEASE, GRACE = SETTINGS.lease, SETTINGS.unpublished_grace
SILENT = LEASE + SETTINGS.queue_ttl + SETTINGS.sweep_margin


def record(**changes):
    return dataclasses.replace(Record("t", "echo", "p", State.QUEUED, 0, 3, 1, 4, 7, 0, 0), **changes)


@each(
    ("changes", "leased", "now", "step"),
    [
        ({"state": State.SUCCEEDED}, False, 0, Drop()),
        ({"state": State.DEAD_LETTERED}, False, 0, Drop()),
        ({"state": State.RUNNING}, True, 1e9, CheckAt(1e9 + LEASE)),
        ({"state": State.SCHEDULED, "published": False}, False, GRACE - 1, CheckAt(GRACE)),
        ({"state": State.SCHEDULED, "published": False}, False, GRACE, Reject()),
        ({"state": State.QUEUED}, False, SILENT - 1, CheckAt(SILENT)),
        ({"state": State.QUEUED}, False, SILENT, Resend()),
        ({"state": State.RUNNING}, False, SILENT, Resend()),
        ({"state": State.RETRY_WAIT, "next_attempt_at": 60_000}, False, SILENT, CheckAt(60 + SILENT)),
        ({"state": State.RETRY_WAIT, "next_attempt_at": 60_000}, False, 60 + SILENT, Resend()),
        ({"state": State.DELAYED, "wakes_at": 86_400_000}, False, SILENT, CheckAt(86_400 + SILENT)),
        ({"state": State.DELAYED, "wakes_at": 86_400_000}, False, 86_400 + SILENT, Resend()),
        ({"state": State.QUEUED, "wakes_at": 86_400_000}, False, SILENT, Resend()),
        ({"state": State.WAITING, "wakes_at": 86_400_000}, False, SILENT, CheckAt(86_400 + SILENT)),
        ({"state": State.WAITING, "wakes_at": 86_400_000}, False, 86_400 + SILENT, Resend()),
        ({"state": State.WAITING, "wakes_at": 86_400_000, "decided_seq": 3}, False, LEASE + GRACE, Publish()),
        ({"state": State.SCHEDULED, "published": False, "wakes_at": 86_400_000}, False, GRACE, Reject()),
        ({"state": State.RUNNING, "decided_seq": 3}, False, LEASE + GRACE - 1, CheckAt(LEASE + GRACE)),
        ({"state": State.RUNNING, "decided_seq": 3}, False, LEASE + GRACE, Publish()),
        ({"state": State.SCHEDULED, "published": False, "decided_seq": 3}, False, 1e9, Publish()),
    ],
)
def test_the_sweeper_acts_only_on_what_is_certain(changes, leased, now, step):
    assert next_step(record(**changes), leased=leased, now=now, settings=SETTINGS) == step


def test_the_sweeper_drops_the_reminders_of_what_is_gone():
    assert next_step(None, leased=False, now=0, settings=SETTINGS) == Drop()


class World:
    """A sweeper, the records it reads, and what it did."""

    def __init__(self, *records, leased=()):
        self.held = {record.task_id: record for record in records}
        self.leased, self.did, self.reminders = leased, [], []
        self.usage = self
        self.rejects, self.resends, self.send = True, DecisionAnswer.OK, Failing()
        self.changed = {}
        self.sweeper = Sweeper(
            tasks=self,
            claims=self,
            handovers=self,
            dead_letters=self,
            reminders=self,
            send=self.send,
            settings=SETTINGS,
        )

    def settle(self, record):
        self.did.append(("settled", record.task_id))

    def clock(self):
        return NOW

    def due(self, _now, limit):
        return list(self.held)[:limit]

    def set(self, task_id, at):
        self.reminders.append((task_id, at - NOW))

    def postpone(self, times, read_at):
        assert read_at == NOW
        self.reminders += [(task_id, at - NOW) for task_id, at in times.items()]

    def drop(self, task_id, read_at):
        self.did.append(("dropped", task_id, read_at))

    def get_many(self, task_ids):
        return [self._lean(self.held[task_id]) if self.held[task_id].type else None for task_id in task_ids]

    def _lean(self, record):
        return dataclasses.replace(record, message=None, decision=None)

    def whole(self, task_id):
        return self.changed.get(task_id, self.held[task_id])

    def leases(self, task_ids):
        return [task_id in self.leased for task_id in task_ids]

    def reject(self, message, *, error, idempotency_key, silent_for):
        self.did.append(("rejected", message.task_id, error.type, idempotency_key, silent_for))
        return self.rejects

    def hand_over(self, copy, *, wait):
        self.did.append(("handed over", copy.message.seq, wait))

    def finish_redrive(self, copy):
        self.did.append(("redrive finished", copy.message.cycle))

    def resend(self, _record, copy):
        self.did.append(("resent", copy.message.seq))
        return self.resends


@pytest.fixture(autouse=True)
def log(monkeypatch):
    log = Log()
    monkeypatch.setattr(module, "log", log)
    return log


NOW = 1e9
COPY = next_copy(task_message(), Failure(FailureKind.RETRYABLE, "boom", "x"), Retry(Rung("5m", 300)), 1)
DECIDED = {"state": State.RETRY_WAIT, "decided_seq": 3, "decision": COPY.to_json(), "rung": "5m"}
UNPUBLISHED = {"state": State.SCHEDULED, "published": False, "message": task_message(), "idempotency_key": "k"}


def test_what_was_never_published_is_rejected_and_its_key_freed():
    world = World(record(**UNPUBLISHED))
    world.sweeper.sweep()

    assert world.did == [("rejected", "t-1", "publish-unconfirmed", "k", GRACE), ("dropped", "t", NOW)]


def test_a_rejection_that_came_too_late_is_checked_again():
    world = World(record(**UNPUBLISHED))
    world.rejects = False
    world.sweeper.sweep()

    assert world.reminders == [("t", GRACE)]


def test_a_decided_copy_is_published_and_handed_over_with_its_wait():
    world = World(record(**DECIDED))
    world.sweeper.sweep()

    assert world.send.calls == [(COPY,)]
    assert world.did == [("handed over", 4, 300)]
    assert world.reminders == [("t", LEASE)]


def test_a_redrive_that_was_cut_off_is_finished():
    world = World(record(**{**DECIDED, "before_redrive": State.DEAD_LETTERED}))
    world.sweeper.sweep()

    assert world.did == [("redrive finished", 0)]


def test_a_lost_task_is_sent_again_once_it_is_recorded():
    world = World(record(message=task_message()))
    world.sweeper.sweep()

    assert world.did == [("resent", 4), ("handed over", 4, 0.0)]
    assert [copy.queue for (copy,) in world.send.calls] == ["robot.task.q"]


def test_a_task_that_changed_meanwhile_is_not_sent_again():
    world = World(record(message=task_message()))
    world.resends = DecisionAnswer.REFUSED
    world.sweeper.sweep()

    assert world.send.calls == []
    assert world.reminders == [("t", SETTINGS.sweep_interval)]


def test_a_decision_that_was_confirmed_meanwhile_is_not_published_again():
    world = World(record(**DECIDED))
    world.changed = {"t": record(state=State.RETRY_WAIT)}
    world.sweeper.sweep()

    assert world.send.calls == []
    assert world.reminders == [("t", SETTINGS.sweep_interval)]


def test_a_lost_task_without_its_message_is_kept_in_sight():
    world = World(record(message=None))
    world.sweeper.sweep()

    assert world.reminders == [("t", SETTINGS.queue_ttl)]


def test_what_is_gone_or_over_is_dropped():
    world = World(record(type=""), record(task_id="over", state=State.SUCCEEDED), leased=("over",))
    world.sweeper.sweep()

    assert world.did == [("dropped", "t", NOW), ("settled", "over"), ("dropped", "over", NOW)]


def test_a_task_that_runs_is_checked_after_its_lease():
    world = World(record(state=State.RUNNING), leased=("t",))
    world.sweeper.sweep()

    assert (world.did, world.reminders) == ([], [("t", LEASE)])


def test_tasks_that_wait_are_postponed_together_before_others_are_mended():
    waiting = record(updated_at=int(NOW * 1_000), published=True)
    world = World(
        dataclasses.replace(waiting, task_id="a"),
        record(task_id="b", **DECIDED),
        dataclasses.replace(waiting, task_id="c"),
    )
    world.send.errors = [StoreUnavailable()]
    with pytest.raises(StoreUnavailable):
        world.sweeper.sweep()

    kept = LEASE + SETTINGS.queue_ttl + SETTINGS.sweep_margin
    assert world.reminders == [("a", kept), ("c", kept)]


@each(("took", "pause"), [(0.01, 0.09), (10.0, SETTINGS.sweep_interval)])
def test_a_backlog_that_comes_due_at_once_leaves_most_of_the_time_to_runs(took, pause, monkeypatch):
    world, pauses = World(*(record(task_id=str(number), state=State.RUNNING) for number in range(BATCH))), []
    clock = iter([0.0, took])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(world.sweeper, "pause", pauses.append)

    assert world.sweeper.step() == 0.0
    assert pauses == [pytest.approx(pause)]


def test_one_task_does_not_keep_the_sweeper_from_the_others(log):
    world = World(
        record(**DECIDED), record(task_id="odd", **{**DECIDED, "decision": "{"}), record(task_id="u", **DECIDED)
    )
    world.send.errors = [NotSent()]
    checked = world.sweeper.sweep()

    assert checked == 3
    assert world.reminders == [("t", SETTINGS.sweep_interval), ("odd", SETTINGS.sweep_margin), ("u", LEASE)]
    assert log.events[:2] == ["not swept yet", "not swept"]


def test_a_redis_that_is_away_ends_the_sweep():
    world = World(record(**DECIDED), record(task_id="u", **DECIDED))
    world.hand_over = Failing(StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        world.sweeper.sweep()

    assert len(world.send.calls) == 1


@each(("due", "pause"), [(BATCH, 0.0), (BATCH - 1, None)])
def test_a_full_batch_is_followed_by_the_next_at_once(due, pause):
    world = World(*[record(task_id=f"t-{number}", state=State.SUCCEEDED) for number in range(due)])

    assert world.sweeper.step() == pause
