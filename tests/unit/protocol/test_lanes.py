"""Which lane a task type has, and that the queues' bindings agree."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.lanes import NO_LANES, NO_LIMITS, parse_lanes, parse_limits
from support.cases import each

LANES = parse_lanes(" bulk = echo, http.request ; robots=robot.*;")

words = st.text("ab_-", min_size=1, max_size=2).map(lambda text: f"a{text}")
types = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.tuples(types, st.booleans()).map(lambda it: f"{it[0]}.*" if it[1] else it[0])


@each(
    ("task_type", "lane", "queue"),
    [
        ("echo", "bulk", "robot.task.q.bulk"),
        ("http.request", "bulk", "robot.task.q.bulk"),
        ("robot", "robots", "robot.task.q.robots"),
        ("robot.clean.fast", "robots", "robot.task.q.robots"),
        ("robotics", "default", "robot.task.q"),
        ("echo.more", "default", "robot.task.q"),
        ("", "default", "robot.task.q"),
    ],
)
def test_each_type_has_one_lane(task_type, lane, queue):
    assert (LANES.lane_of(task_type), LANES.queue_of(task_type)) == (lane, queue)


def test_a_queue_has_its_lane_where_there_are_lanes():
    queues = ("robot.task.q", "robot.task.q.bulk", "robot.task.q.v2", "robot.task.dlq")

    assert [LANES.lane_with(queue) for queue in queues] == ["default", "bulk", None, None]
    assert (NO_LANES.lane_with("robot.task.q"), NO_LANES.queues) == (None, {"default": "robot.task.q"})
    assert [lane.keys for lane in LANES] == [
        ("robot.task.dispatch.echo", "robot.task.dispatch.http.request"), ("robot.task.dispatch.robot.#",)
    ]  # fmt: skip


def _matches(binding, key):
    """Whether a topic binding takes a routing key; ``#`` stands for any number of words."""
    pattern = re.escape(binding).replace(r"\.\#", r"(\..+)?")
    return re.fullmatch(pattern, key) is not None


@given(st.lists(st.lists(patterns, min_size=1, max_size=3), min_size=1, max_size=3), types)
def test_lanes_that_are_accepted_give_each_type_one_queue_and_the_bindings_agree(chosen, task_type):
    text = ";".join(f"lane{number}={','.join(kinds)}" for number, kinds in enumerate(chosen))
    try:
        lanes = parse_lanes(text)
    except ValueError as exc:
        assert "overlap" in str(exc)  # noqa: PT017 - the only fault that these can have
        return
    bound = [lane.name for lane in lanes for key in lane.keys if _matches(key, f"robot.task.dispatch.{task_type}")]

    assert bound == ([] if lanes.lane_of(task_type) == "default" else [lanes.lane_of(task_type)])
    assert parse_lanes(str(lanes)) == lanes


@pytest.mark.parametrize(
    "text",
    [
        "bulk", "bulk=", "=echo", "default=echo", "Bulk=echo", f"{'x' * 33}=echo", "bulk=Echo", "bulk=*", "bulk=robot.*.x", "bulk=a b",
        "a=echo;a=http.request", "a=echo;b=echo", "a=robot.*;b=robot.clean", "a=robot.*;b=robot", "a=robot.*;b=robot.clean.*", "a=echo,echo",
        "a=#", "a=robot.#",
    ],
)  # fmt: skip
def test_what_is_no_lane_or_would_be_two_is_refused(text):
    with pytest.raises(ValueError, match=r"lane|overlap|type"):
        parse_lanes(text)


@pytest.mark.parametrize(
    "text", ["bulk", "bulk=", "bulk=x", "bulk=0", "bulk=-1", "bulk=1.5", "bulk=1;bulk=2", "bulk=²"]
)
def test_what_is_no_limit_of_a_lane_is_refused(text):
    with pytest.raises(ValueError, match=r"limit"):
        parse_limits(text)


def test_limits_of_lanes_come_back_from_their_text():
    limits = parse_limits(" bulk = 50000; robots=5 ;")

    assert (limits.of("bulk"), limits.of("robots"), limits.of("default"), limits.of(None)) == (50_000, 5, None, None)
    assert parse_limits(str(limits)) == limits
    assert parse_limits("") == NO_LIMITS
