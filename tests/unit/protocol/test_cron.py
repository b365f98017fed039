"""Due times: clock changes, leap days, and what is no cron expression or no zone."""

import datetime as dt
import itertools
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol import cron
from support.cases import each

BERLIN = "Europe/Berlin"


def local(text, zone=BERLIN):
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp() * 1_000)


def shown(expression, start, count, zone=BERLIN):
    times = itertools.islice(cron.times_after(expression, zone, local(start, zone)), count)
    return [dt.datetime.fromtimestamp(at / 1_000, zoneinfo.ZoneInfo(zone)).isoformat() for at in times]


@each(
    ("expression", "start", "expected"),
    [
        # The hour from 2 to 3 is left out: what is due in it is due at its end.
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("*/30 * * * *", "2026-03-29T01:15", ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00"]),
        ("0 30 2 * * *", "2026-03-28T12:00", ["2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"]),
        # The hour from 2 to 3 comes twice: what has an hour is due once.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        (
            "30 * * * *", "2026-10-25T01:45",
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
        ),
        ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29T00:00:00+01:00", "2032-02-29T00:00:00+01:00"]),
        ("0 12 L * *", "2028-02-01T00:00", ["2028-02-29T12:00:00+01:00", "2028-03-31T12:00:00+02:00"]),
        ("0 9 * * MON-FRI", "2026-11-27T10:00", ["2026-11-30T09:00:00+01:00"]),
        ("*/20 * * * * *", "2026-11-27T10:00", ["2026-11-27T10:00:20+01:00", "2026-11-27T10:00:40+01:00"]),
    ],
)  # fmt: skip
def test_due_times_in_berlin(expression, start, expected):
    assert shown(expression, start, len(expected)) == expected


def test_a_start_in_the_hour_that_comes_twice_leads_to_no_time_before_it():
    second = local("2026-10-25T02:15") + 3_600_000

    assert next(cron.times_after("30 2 * * *", BERLIN, second)) == local("2026-10-26T02:30")


@each(
    "expression",
    ["", "* * * *", "* * * * * * *", "60 * * * *", "a b c d e", "*/0 * * * *", "5L/2 * * * *", "* * * * 5L2", "0 0 31 2 *",
     "0 0 30 2 *", "0 0 31 4,6,9,11 *", "\uff11 * * * *", "1," * 300 + "1 * * * *", "1-* * * * *", "@daily", "\0 * * * *"],
)  # fmt: skip
def test_what_is_no_expression_or_never_fires(expression):
    with pytest.raises(cron.BadCron):
        cron.next_time(expression, "UTC", 0)


@each(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "Europe", "localtime", "UTC\0", "europe/berlin", "/etc/localtime"]
)
def test_what_is_no_zone(name):
    with pytest.raises(cron.BadZone):
        cron.next_time("* * * * *", name, 0)


FIELD = st.one_of(st.just("*"), st.integers(0, 59).map(str), st.integers(1, 30).map("*/{}".format))
EXPRESSIONS = st.builds("{} {} * * *".format, FIELD, st.one_of(st.just("*"), st.integers(0, 23).map(str)))
ZONES = st.sampled_from(["UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"])
MILLIS = st.integers(1_700_000_000_000, 1_900_000_000_000)


@given(EXPRESSIONS, ZONES, MILLIS)
def test_due_times_rise_and_are_the_same_from_wherever_one_begins(expression, zone, millis):
    times = list(itertools.islice(cron.times_after(expression, zone, millis), 6))

    assert times == sorted(set(times))
    assert all(time > millis for time in times)
    assert list(itertools.islice(cron.times_after(expression, zone, times[2]), 3)) == times[3:]
