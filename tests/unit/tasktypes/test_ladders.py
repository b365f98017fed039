"""The ladder of each task type, and the attempts that a record rebuilt from a message allows."""

import json

import pytest

from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from dispatch.protocol.retry import Ladder, Rung, parse_ladder
from dispatch.store.claims import Claims, Ticket
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType
from support.cases import each
from support.unit_fakes import FakeRedis, task_message

WHOLE = parse_ladder("1m=60,5m=300,30m=1800")


def task_type(name, ladder):
    return TaskType(name, Payload, lambda _order, _ctx: None, ladder, 300.0, "Nothing.")


LADDERS = Ladders.of_types(
    WHOLE,
    [task_type("whole", None), task_type("short", ("5m",)), task_type("once", ()), task_type("two", ("1m", "30m"))],
)


@each(("name", "attempts"), [("whole", 4), ("short", 2), ("once", 1), ("two", 3), ("unknown.type", 4), ("", 4)])
def test_a_task_has_one_attempt_more_than_rungs(name, attempts):
    assert LADDERS.of(name).attempts == attempts


@each(("name", "attempts"), [("whole", 4), ("short", 2), ("once", 1), ("unknown.type", 4)])
def test_a_record_that_is_rebuilt_allows_the_attempts_of_its_type(name, attempts):
    redis = FakeRedis(claim=["MISSING", ["RUN"]])
    Claims(redis, load({})).claim(task_message(task=name), Ticket("o", "f", "w"), LADDERS.of(name).attempts)
    seed = json.loads(redis.trips[1][4][-1].partition("\n")[0])

    assert seed["maxAttempts"] == attempts


def test_a_subset_keeps_the_waits_of_the_whole_ladder():
    assert LADDERS.of("two") == Ladder((Rung("1m", 60), Rung("30m", 1_800)))


def test_a_ladder_has_its_rungs_by_name():
    assert WHOLE.rung("5m") == Rung("5m", 300)
    assert WHOLE.rung("lease") is None
    assert WHOLE.rung(None) is None


def test_a_ladder_is_shown_in_the_notation_of_the_setting():
    assert parse_ladder(str(WHOLE)) == WHOLE


def test_a_rung_that_is_not_declared_is_refused_with_the_type_and_the_rungs_there_are():
    with pytest.raises(ConfigurationError) as caught:
        Ladders.of_types(WHOLE, [task_type("odd", ("1m", "2h", "3h"))])

    assert str(caught.value) == "task type odd: no rung 2h, 3h (there are 1m, 5m, 30m) in DISPATCH_LADDER"
