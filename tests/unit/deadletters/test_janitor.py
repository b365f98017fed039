"""The janitor: what is stale leaves, what is missing is recorded, and a miss must be seen several times."""

import contextlib
import dataclasses

import pytest

from dispatch.deadletters import janitor as module
from dispatch.deadletters.bulk import BulkRedrive
from dispatch.deadletters.janitor import MISSES, Janitor, _still_missed, clear_stale, record_missing
from dispatch.deadletters.service import RedriveOutcome
from dispatch.deadletters.walk_lock import WalkInProgress
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import parse_ladder
from dispatch.protocol.signatures import NO_KEYS
from dispatch.store.dead_letters import DeadLetterAnswer
from dispatch.tasktypes.ladders import Ladders
from support.unit_fakes import FakeRedis, task_message

WHOLE = parse_ladder("1m=60,5m=300,30m=1800")
LADDERS = Ladders(WHOLE, {"short": WHOLE.subset(["5m"])})
DEAD = Record("t-1", "echo", "ada", State.DEAD_LETTERED, 0, 3, 2, 4, 7, 0, 0)
BULK = BulkRedrive(DeadLetterFilter(), 10, 0, "ada")


class FakeTasks:
    """Records by task id."""

    def __init__(self, *records):
        self.held = {record.task_id: record for record in records}

    def get(self, task_id):
        return self.held.get(task_id)

    def briefs(self, task_ids):
        return [self.held.get(task_id) for task_id in task_ids]


class FakeRecords:
    """Flags, the marker, and the dead letters that were recorded."""

    def __init__(self, **flags):
        self.flags, self.unflagged, self.recorded, self.markers = flags, [], [], ["yes"]

    def flagged(self):
        return dict(self.flags)

    def unflag(self, counts):
        self.unflagged.append(dict(counts))

    def recorded_marker(self):
        return self.markers[-1]

    def set_recorded_marker(self, marker):
        self.markers.append(marker)

    def record(self, dead_letter, *, reason, max_attempts):
        self.recorded.append((dead_letter.task_id, reason, max_attempts))
        return DeadLetterAnswer.OK


@pytest.fixture
def dlq(monkeypatch):
    """The messages in the DLQ; what a visitor takes out is gone."""
    held = []

    def walk(_url, _lock, visit):
        out = [message for message in held if visit(message)]
        held[:] = [message for message in held if not any(message is gone for gone in out)]
        return len(out)

    monkeypatch.setattr(module, "walk", walk)
    return held


def clear(tasks, records, missed=None):
    return clear_stale("amqp://", object(), tasks, records, missed)


def test_a_dead_letter_counts_as_gone_only_after_several_walks():
    missed = {}
    again = [_still_missed({"a", "b"}, missed) for _ in range(MISSES)]

    assert again == [{"a", "b"}] * (MISSES - 1) + [set()]
    assert missed == {}


def test_a_dead_letter_that_was_found_again_is_counted_from_the_start():
    missed = {}
    _still_missed({"a", "b"}, missed)
    _still_missed({"b"}, missed)

    assert _still_missed({"a", "b"}, missed) == {"a"}


def test_without_a_flag_no_walk_begins(monkeypatch):
    monkeypatch.setattr(module, "walk", None)

    assert clear(FakeTasks(), FakeRecords()) == 0


def test_a_stale_dead_letter_leaves_and_others_stay(dlq):
    stale, fresh, unflagged = task_message(), task_message(id="t-2"), task_message(id="t-3")
    dlq[:] = [stale, fresh, unflagged]
    tasks = FakeTasks(
        dataclasses.replace(DEAD, state=State.SUCCEEDED),
        dataclasses.replace(DEAD, task_id="t-2"),
        dataclasses.replace(DEAD, task_id="t-3", state=State.SUCCEEDED),
    )
    records = FakeRecords(**{"t-1": 1, "t-2": 2})

    assert clear(tasks, records) == 1
    assert dlq == [fresh, unflagged]
    assert records.unflagged == [{"t-1": 1, "t-2": 2}]


def test_of_two_copies_of_the_same_death_one_stays(dlq):
    dlq[:] = [task_message(), task_message(), task_message(**{"x-seq": 4})]

    assert clear(FakeTasks(dataclasses.replace(DEAD, seq=3)), FakeRecords(**{"t-1": 1})) == 1
    assert [message.seq for message in dlq] == [3, 4]


def test_copies_with_another_body_are_not_the_same(dlq):
    dlq[:] = [task_message(), dataclasses.replace(task_message(), body=b"[]")]

    assert clear(FakeTasks(DEAD), FakeRecords(**{"t-1": 1})) == 0


def test_a_task_that_is_being_redriven_stays_flagged(dlq):
    dlq[:] = [task_message()]
    begun = dataclasses.replace(DEAD, state=State.SCHEDULED, cycle=1, before_redrive=State.DEAD_LETTERED)
    records = FakeRecords(**{"t-1": 1})
    clear(FakeTasks(begun), records)

    assert len(dlq) == 1
    assert records.unflagged == [{}]


@pytest.mark.usefixtures("dlq")
def test_a_dead_letter_that_is_not_found_stays_flagged_for_some_walks():
    records, missed = FakeRecords(**{"t-1": 1}), {}
    for _ in range(MISSES):
        clear(FakeTasks(DEAD), records, missed)

    assert records.unflagged == [{}] * (MISSES - 1) + [{"t-1": 1}]


def test_dead_letters_without_a_record_are_recorded_with_the_attempts_of_their_type(dlq):
    nameless = Message(b"{", {})
    dlq[:] = [task_message(), task_message(id="t-2", task="short", **{"x-dead-reason": "permanent"}), nameless]
    records = FakeRecords()
    recorded = record_missing("amqp://", object(), FakeTasks(DEAD), records, LADDERS)

    assert recorded == 2
    assert records.recorded == [("t-2", "permanent", 2), (nameless.dead_letter_id, "unknown", 4)]
    assert len(dlq) == 3
    assert records.markers[-1] == "yes"


@pytest.mark.usefixtures("dlq")
def test_a_redis_that_is_emptied_during_the_walk_is_walked_through_again():
    class Emptied(FakeRecords):
        def recorded_marker(self):
            return ""

    records = Emptied()
    record_missing("amqp://", object(), FakeTasks(), records, LADDERS)

    assert records.markers[-1] != "yes"


class FakeLock:
    """Held, or taken by another walk."""

    taken = False

    def __init__(self, _redis):
        pass

    @contextlib.contextmanager
    def held(self):
        if self.taken:
            raise WalkInProgress
        yield self


@pytest.fixture
def audited():
    """The audit entries of bulk redrives."""
    return []


@pytest.fixture
def janitor(monkeypatch, audited):
    monkeypatch.setattr(FakeLock, "taken", False)
    monkeypatch.setattr(module, "WalkLock", FakeLock)
    redis = FakeRedis(LINDEX=None)
    made = Janitor(
        redis,
        "amqp://",
        object(),
        tasks=FakeTasks(DEAD),
        records=FakeRecords(),
        ladders=LADDERS,
        audit=audited.append,
        interval=1.0,
    )
    return made, redis


@pytest.fixture
def redriven(monkeypatch):
    """The outcomes of the next bulk redrive; the last may be an error."""
    outcomes = []

    def redrive_matching(_url, _service, _lock, _bulk, *, keys, wanted, on_outcome):
        assert keys == NO_KEYS
        assert callable(wanted)

        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            on_outcome(task_message(), outcome)

    monkeypatch.setattr(module, "redrive_matching", redrive_matching)
    return outcomes


def test_without_work_the_lock_is_not_taken(janitor, monkeypatch):
    monkeypatch.setattr(FakeLock, "taken", True)
    made, redis = janitor
    made.step()

    assert redis.names() == [["LINDEX"]]


@pytest.mark.usefixtures("redriven")
def test_another_walk_is_no_error(janitor, monkeypatch):
    monkeypatch.setattr(FakeLock, "taken", True)
    made, redis = janitor
    redis.answers["LINDEX"] = BULK.to_json()
    made.step()

    assert redis.names() == [["LINDEX"]]


@pytest.mark.usefixtures("dlq")
def test_a_bulk_redrive_that_is_done_is_finished(janitor, redriven, audited):
    redriven[:] = [RedriveOutcome.SENT, RedriveOutcome.STALE]
    made, redis = janitor
    redis.answers["LINDEX"] = BULK.to_json()
    made.step()

    assert redis.commands[-1] == ("LREM", "robot:dead:jobs", 1, BULK.to_json())
    assert [(one.principal, one.verb, one.phase, one.result, one.details) for one in audited] == [
        (BULK.by, "redriveDeadLetters", "end", "ok", {"sent": 1, "stale": 1})
    ]


@pytest.mark.usefixtures("dlq")
def test_what_was_sent_before_an_interruption_is_not_asked_for_again(janitor, redriven, audited):
    redriven[:] = [RedriveOutcome.SENT, RedriveOutcome.LIVE, RedriveOutcome.SENT, OSError("gone")]
    made, redis = janitor
    redis.answers["LINDEX"] = BULK.to_json()
    with pytest.raises(OSError, match="gone"):
        made.step()

    name, keys, before, after = redis.commands[-1]

    assert (name, keys) == ("replace_entry", ("robot:dead:jobs",))
    assert (before, BulkRedrive.from_json(after).limit) == (BULK.to_json(), 8)
    assert [(one.phase, one.result, one.details) for one in audited] == [
        ("interrupted", "OSError", {"sent": 2, "live": 1})
    ]


@pytest.mark.usefixtures("dlq")
def test_an_interruption_before_the_first_puts_it_behind_the_others_as_it_was(janitor, redriven, audited):
    redriven[:] = [OSError("gone")]
    made, redis = janitor
    redis.answers["LINDEX"] = BULK.to_json()
    with pytest.raises(OSError, match="gone"):
        made.step()

    assert {name for trip in redis.names() for name in trip} == {"LINDEX", "LMOVE"}
    assert audited == []
