"""What the console keeps in Redis: the minutes of the last day, sessions that were ended, saved views."""

import pytest

from dispatch.store.console_sessions import EndedSessions
from dispatch.store.history import History
from dispatch.store.saved_views import MOST, SavedViews
from dispatch.store.scripts import RedisHandle


@pytest.fixture
def handle(settings):
    made = RedisHandle(settings, timeout=1.0)
    yield made
    made.close()


def test_workers_add_to_the_same_minute(handle):
    first, second = History(handle), History(handle)
    first.add(100, {"succeeded": 3, "failed": 0, "run:0.1": 3})
    second.add(100, {"succeeded": 1, "dead": 2})
    second.add(102, {"succeeded": 5})

    assert first.read(100, 102) == [{"succeeded": 4, "dead": 2, "run:0.1": 3}, {}, {"succeeded": 5}]


def test_a_minute_goes_after_a_day(handle):
    History(handle).add(100, {"succeeded": 1})
    left = handle.run(("PTTL", handle.keys.history(100)))[0]

    assert 24 * 3_600_000 < left <= 25 * 3_600_000


def test_a_minute_in_which_nothing_happened_costs_nothing(handle):
    History(handle).add(100, {"succeeded": 0})

    assert handle.run(("EXISTS", handle.keys.history(100)))[0] == 0


def test_an_ended_session_is_known_for_as_long_as_its_cookie_would_last(handle):
    ended = EndedSessions(handle)
    ended.add("one", 600)

    assert (ended.has("one"), ended.has("two")) == (True, False)
    assert 590_000 < handle.run(("PTTL", handle.keys.ended_session("one")))[0] <= 600_000


def test_views_are_their_principals_own_and_not_too_many(handle):
    views = SavedViews(handle)
    for number in range(MOST):
        assert views.put("ada", f"view {number:02}", "state=FAIL")

    assert not views.put("ada", "one more", "state=FAIL")
    assert views.put("ada", "view 00", "state=HELD")
    assert (views.all("ada")["view 00"], len(views.all("ada")), views.all("bob")) == ("state=HELD", MOST, {})
    assert (views.remove("ada", "view 00"), views.remove("ada", "view 00")) == (True, False)
