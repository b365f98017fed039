"""A server that can't be used is in the log once for each change of the reason."""

import types

import pytest

from dispatch.errors import Trouble
from dispatch.telemetry import trouble as module
from dispatch.telemetry.trouble import QUIET, TroubleLog
from support.unit_fakes import Log

DOWN = Trouble("Redis", "connection refused", "h:1/0", "Error 111")
RIGHTS = Trouble("Redis", "its user lacks a right", "h:1/0", "the 'set' command", refuses=True)


@pytest.fixture
def clock(monkeypatch):
    """Its ``now`` is what the time is."""
    made = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.fixture
def events(monkeypatch):
    """Take steps; what each has logged."""

    def taken(*steps):
        log = Log()
        monkeypatch.setattr(module, "log", log)
        for step in steps:
            step()
        return [(event, fields.get("reason")) for _, event, fields in log.lines]

    return taken


def test_an_outage_is_logged_when_it_begins_changes_and_ends(events):
    made = TroubleLog()
    again = Trouble("Redis", "connection refused", "h:1/0", "Error 111 with other words")
    elsewhere = Trouble("Redis", "its host name is not known", "h:1/0")

    assert events(
        *(lambda trouble=trouble: made.met(trouble) for trouble in (DOWN, again, DOWN, elsewhere)), made.worked, made.over
    ) == [
        ("no connection to Redis", "connection refused"),
        ("no connection to Redis", "its host name is not known"),
        ("connected to Redis again", None),
    ]  # fmt: skip
    assert made.now is None


def test_commands_that_are_carried_out_end_no_refusal_of_others_until_it_is_quiet(clock, events):
    made = TroubleLog()
    first = events(*[lambda: made.met(RIGHTS), made.worked] * 3)
    clock.now += QUIET
    last = events(made.worked)

    assert first == [("Redis refuses", "its user lacks a right")]
    assert last == [("Redis refuses no longer", None)]
