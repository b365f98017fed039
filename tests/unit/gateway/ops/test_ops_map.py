import dataclasses
import itertools

import pytest

from dispatch.gateway.ops import broker_map, overview
from dispatch.protocol import figures
from dispatch.store.workers import WorkerInfo
from support.broker_views import PLAIN_QUEUE as PLAIN
from support.cases import each

WORKER = WorkerInfo("w@host", "host", 7, "1", 8, 2, 3, {}, 0)


def queue(name, role, **more):
    return dataclasses.replace(PLAIN, name=name, role=role, **({"guard": None} | more))


QUEUES = [
    PLAIN, queue("robot.retry.q.1m", "rung", total=4, ttl=60.0), queue("robot.retry.q.lease", "lease", total=0, ttl=30.0),
    queue("robot.hold.q", "hold", total=0), queue("robot.delay.q.0", "delay", total=0), queue("robot.delay.q.1", "delay", total=9),
    queue("robot.task.dead.q", "dead-tap"), queue("robot.task.dlq", "dead-letters", total=2),
]  # fmt: skip


def node(drawing, name):
    return next(each for each in drawing.nodes if each.name == name)


def test_the_map_has_every_station_with_what_is_in_it():
    drawing = broker_map.draw(QUEUES, [WORKER], {"robot.task.q": 90.0, "robot.task.dlq": 7_300.0})

    assert {each.name: each.figure for each in drawing.nodes} == {
        "robot.task.topic": "", "robot.task.q": "3", "workers": "2", "robot.retry.q.1m": "4", "robot.retry.q.lease": "0",
        "delay levels": "9", "robot.hold.q": "0", "robot.task.dlq": "2",
    }  # fmt: skip
    assert node(drawing, "robot.task.q").detail == "2 in hand, oldest 2 min"
    assert node(drawing, "robot.task.dlq").detail == "oldest 2 h"
    assert node(drawing, "robot.retry.q.1m").detail == "for 1 min"
    assert "dead letters: 2 oldest 2 h" in drawing.summary


@each(
    ("changed", "level"),
    [
        ({}, "good"),
        ({"ready": 6_000}, "warn"),
        ({"guard": {"limit": 10, "refusing": True}}, "bad"),
        ({"consumers": 0}, "bad"),
        ({"drift": ("x",)}, "bad"),
    ],
)
def test_a_queue_shows_how_it_is(changed, level):
    drawing = broker_map.draw([dataclasses.replace(PLAIN, **changed), *QUEUES[1:]], [WORKER], {})

    assert node(drawing, "robot.task.q").level == level


def test_without_workers_the_map_shows_it():
    assert node(broker_map.draw(QUEUES, [], {}), "workers").level == "bad"


def test_each_lane_has_a_place_of_its_own():
    lanes = [dataclasses.replace(PLAIN, name=f"robot.task.q.{name}", lane=name) for name in ("bulk", "robots")]
    drawing = broker_map.draw([dataclasses.replace(PLAIN, lane="default"), *lanes, *QUEUES[1:]], [WORKER], {})
    work = [each for each in drawing.nodes if each.kind == "work"]

    assert [each.title for each in work] == ["default", "bulk", "robots"]
    assert all(above.y + above.height < below.y for above, below in itertools.pairwise(work))
    assert all(each.y + each.height <= drawing.height for each in drawing.nodes)


def test_numbers_that_rabbitmq_does_not_have_yet_are_not_made_up():
    unknown = {
        "ready": None,
        "unacked": None,
        "total": None,
        "consumers": None,
        "publish_rate": None,
        "deliver_rate": None,
    }
    drawing = broker_map.draw([dataclasses.replace(each, **unknown) for each in QUEUES], [], {})

    assert node(drawing, "robot.task.q").figure == "?"
    assert not any(edge.busy for edge in drawing.edges)


def test_a_quantile_lies_in_its_step():
    minute = figures.named(figures.RUN, {0.1: 50, 0.5: 50, float("inf"): 0})

    assert figures.quantile(minute, figures.RUN, 0.5) == pytest.approx(0.1)
    assert figures.quantile(minute, figures.RUN, 0.75) == pytest.approx(0.3)
    assert figures.quantile(minute, figures.WAIT, 0.5) is None
    assert figures.quantile({"run:0.1": 1, "run:600": 0, "run:inf": 9}, figures.RUN, 0.95) == 600
    assert figures.quantile({}, figures.RUN, 0.5) is None


def test_minutes_add_up():
    assert figures.summed([{"succeeded": 1, "run:0.1": 1}, {}, {"succeeded": 2}]) == {"succeeded": 3, "run:0.1": 1}


def test_the_lines_of_the_charts_have_a_point_each_minute():
    lines = overview.lines([{}, {"succeeded": 3, "dead": 1, "run:0.1": 4}])

    assert (lines["succeeded"], lines["failed"], lines["dead"]) == ([0, 3], [0, 0], [0, 1])
    assert lines["run50"] == [None, pytest.approx(0.05)]
