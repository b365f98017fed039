"""What a due time leads to: property tests of the decision, and the derived ids."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol import cron
from dispatch.protocol.ids import issued_at
from dispatch.protocol.schedules import LATE, ON_TIME, CatchUp, Overlap, Schedule, chosen, turn
from support.cases import each

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
BASE = 1_795_485_600_000  # a full hour


def schedule(**more):
    return Schedule(
        **{"name": "nightly", "principal": "ada", "type": "echo", "payload": {}, "cron": "* * * * *", **more}
    )


def test_a_schedule_is_the_same_after_its_way_through_text():
    made = schedule(
        overlap=Overlap.QUEUE, labels={"a": "b"}, payload={"secret": "s"}, jitter=3, deadline=4, paused=True
    )
    later = made.to_text()[:-1] + ',"of_a_later_version":1}'

    assert Schedule.from_text(made.to_text()) == Schedule.from_text(later) == made
    assert "secret" not in repr(made)


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "* * * * * *", "*/20 * * * * *", "0 3 * * *"]),
    st.sampled_from(CatchUp),
    st.integers(-MINUTE, 3 * HOUR),
)
def test_every_due_time_is_in_one_part(expression, catch_up, lateness):
    one = schedule(cron=expression, catch_up=catch_up)
    at = cron.next_time(expression, "UTC", BASE)
    now = max(at, at + lateness)
    due = turn(one, at, at + lateness)
    times = [at]
    for time in cron.times_after(expression, "UTC", at):
        if time > now:
            break
        times.append(time)

    assert len(due.fire) + due.missed == len(times)
    assert set(due.fire) <= set(times)
    assert due.last == times[-1]
    assert due.following == cron.next_time(expression, "UTC", due.last) > now
    assert due.fire == chosen(times, now, catch_up)


@each(
    ("late", "catch_up", "fires"),
    [
        (0, CatchUp.NONE, True), (ON_TIME * SECOND, CatchUp.NONE, True), (LATE * SECOND, CatchUp.NONE, True),
        (LATE * SECOND + 1, CatchUp.NONE, False), (LATE * SECOND + 1, CatchUp.LAST, True), (48 * HOUR, CatchUp.LAST, True),
    ],
)  # fmt: skip
def test_the_last_due_time_is_made_up_for_where_that_is_asked_for(late, catch_up, fires):
    assert bool(chosen([BASE - MINUTE, BASE], BASE + late, catch_up)) is fires
    assert chosen([BASE - MINUTE, BASE], BASE + late, catch_up) in {(BASE,), ()}


def test_ids_are_those_of_a_due_time_whatever_the_revision_and_waits_those_of_a_revision():
    one, other = schedule(), schedule(revision=2, cron="0 * * * *")

    assert one.firing_id(BASE) == other.firing_id(BASE)
    assert issued_at(one.firing_id(BASE)) * SECOND == BASE
    ids = {
        one.firing_id(BASE), one.firing_id(BASE + 1), schedule(principal="eve").firing_id(BASE), one.tick_id(BASE, 0),
        one.tick_id(BASE, 1), other.tick_id(BASE, 0),
    }  # fmt: skip
    assert len(ids) == 6


@given(st.integers(0, 3_600), st.integers(BASE, BASE + HOUR))
def test_jitter_is_within_its_bounds_and_always_the_same(jitter, at):
    one = schedule(jitter=jitter)

    assert 0 <= one.jitter_of(at) <= jitter
    assert one.jitter_of(at) == dataclasses.replace(one, revision=9).jitter_of(at)


def test_a_schedule_that_never_fires_again_or_is_paused_has_no_next_time():
    assert schedule(paused=True).next_time(BASE) is None
    assert schedule(cron="0 0 29 2 *").next_time(BASE) is not None
