"""What the sweeper does about a task, decided from its record."""

import dataclasses

from dispatch.config.settings import load
from dispatch.maintenance.sweeper import CheckAt, Drop, Publish, Reject, Resend, next_step
from dispatch.protocol.record import Record, State
from support.cases import each

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
        ({"state": State.RUNNING, "decision": "{}"}, False, LEASE + GRACE - 1, CheckAt(LEASE + GRACE)),
        ({"state": State.RUNNING, "decision": "{}"}, False, LEASE + GRACE, Publish()),
        ({"state": State.SCHEDULED, "published": False, "decision": "{}"}, False, 1e9, Publish()),
    ],
)
def test_the_sweeper_acts_only_on_what_is_certain(changes, leased, now, step):
    assert next_step(record(**changes), leased=leased, now=now, settings=SETTINGS) == step


def test_the_sweeper_forgets_what_is_gone():
    assert next_step(None, leased=False, now=0, settings=SETTINGS) == Drop()
