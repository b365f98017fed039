"""Which fields of a record's hash are read for what."""

import json

from dispatch.protocol.fingerprints import fingerprint
from dispatch.protocol.record import Brief, State
from dispatch.protocol.record_fields import BRIEF, FOUND, LISTED, parse, parse_brief, seed
from support.cases import each
from support.unit_fakes import task_message


class Noting(dict):
    """A hash that notes which of its fields are read."""

    def __init__(self, fields):
        super().__init__(fields)
        self.read = set()

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def test_a_list_reads_every_field_of_a_record_but_its_messages():
    fields = Noting({"state": "EXPIRED", "startedAt": "1", "errorType": "boom"})
    parse("id", fields)

    assert sorted(LISTED) == sorted(fields.read - {"message", "decision", "checkpoint"})


def test_the_message_is_the_stored_one_or_that_of_the_version_before():
    stored, before = (task_message(**{"x-request-id": name}) for name in ("stored", "before"))
    fields = {"state": "QUEUED", "message": before.to_json()}

    assert parse("id", {"state": "QUEUED"}).message is None
    assert parse("id", fields).message == before
    assert parse("id", fields, stored.to_json()).message == stored


@each(("millis", "rebuilt"), [(1, {"createdAt": 1, "startedAt": 1}), (2**62, {}), (-1, {}), (0, {})])
def test_a_record_is_rebuilt_with_times_that_have_a_date(millis, rebuilt):
    message = task_message(**{"x-accepted-at": millis, "x-failed-at": millis, "retries": 3})
    fields = json.loads(seed(message, 4).partition("\n")[0])

    assert {name: fields[name] for name in ("createdAt", "startedAt") if name in fields} == rebuilt


def test_a_brief_reads_only_its_fields():
    fields = Noting({"state": "EXPIRED", "type": "echo", "errorType": "boom"})
    parse_brief(fields)

    assert sorted(FOUND) == sorted(fields.read)
    assert set(BRIEF) < set(FOUND)


@each(
    ("fields", "brief"),
    [
        ({}, None),
        ({"type": "echo"}, None),
        ({"state": "QUEUED"}, Brief("", State.QUEUED)),
        (
            {"state": "EXPIRED", "type": "echo", "errorType": "boom", "discarded": "1", "before": ""},
            Brief("echo", State.EXPIRED, "boom", discarded=True),
        ),
        (
            {
                "state": "EXPIRED",
                "type": "echo",
                "errorType": "boom",
                "errorFingerprint": "ab" * 8,
                "error": "robot 7 is away",
            },
            Brief("echo", State.EXPIRED, "boom", "ab" * 8),
        ),
        (
            {
                "state": "EXPIRED",
                "type": "echo",
                "errorType": "boom",
                "error": "robot 7 is away",
            },  # of a former release
            Brief("echo", State.EXPIRED, "boom", fingerprint("robot 7 is away")),
        ),
        ({"state": "SUCCEEDED", "errorFingerprint": "ab" * 8}, Brief("", State.SUCCEEDED)),
        (
            {"state": "QUEUED", "type": "echo", "errorType": "", "before": "DEAD_LETTERED", "message": "x"},
            Brief("echo", State.QUEUED, before_redrive=State.DEAD_LETTERED),
        ),
    ],
)
def test_a_brief_is_what_lists_choose_by(fields, brief):
    assert parse_brief(fields) == brief


@each(
    "fields",
    [{"state": state, "discarded": discarded} for state in State for discarded in ("", "1")],
)
def test_a_brief_and_its_record_agree(fields):
    brief, record = parse_brief(fields), parse("id", fields)

    assert (brief.status, brief.state, brief.is_dead_letter) == (record.status, record.state, record.is_dead_letter)


def test_a_record_that_is_rebuilt_from_a_later_step_knows_where_the_task_is():
    fields = json.loads(
        seed(task_message(**{"x-step": 2, "x-checkpoint": "{}", "x-waiting-since": 7}), 4).split("\n")[0]
    )

    assert {name: fields[name] for name in ("step", "checkpoint", "startedAt")} == {
        "step": 2,
        "checkpoint": "{}",
        "startedAt": 7,
    }


def test_the_time_of_a_wait_is_that_of_its_next_copy_and_lists_keep_the_one_of_the_submission():
    fields = {"state": "WAITING", "wakesAt": "5", "nextAttemptAt": "9", "waitingFor": '["go"]', "checkpoint": "{}"}
    record, brief = parse("id", fields), parse_brief(fields)

    assert (record.wakes_at, record.next_attempt_at, record.waiting_for, record.checkpoint) == (9, None, ("go",), "{}")
    assert brief.wakes_at == 5
