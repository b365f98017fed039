"""The stream of an open page: what changes, and a sign of life where nothing does."""

import dataclasses

from dispatch.gateway.ops import live
from dispatch.gateway.ops.frame import Part
from dispatch.gateway.ops.health import HealthTopic
from dispatch.gateway.ops.pulse import Reading
from dispatch.store.task_counts import TaskCounts
from support.broker_views import PLAIN_QUEUE, queue_view
from support.cases import each

READING = Reading(
    1, 0.0, Part([PLAIN_QUEUE]), Part([]), Part(TaskCounts(0, True, 1, {"echo": {"QUEUED": 1}}, {})), Part({}), Part([]),
    Part({"succeeded": 1}), {},
)  # fmt: skip


class SteadyPulse:
    """A new reading at each look, which is like the one before."""

    def follow(self, number, _seconds):
        return dataclasses.replace(READING, number=number + 1)


def events(looks, text):
    topics = live.Topics([live.Topic("tasks", None, text)])
    over = iter([False] * looks + [True])
    pages = live.LivePages(SteadyPulse(), topics, None, None)
    return list(pages._events([topics._topics["tasks"]], frozenset(), lambda: next(over)))


def test_what_is_as_it_was_is_sent_once_and_the_connection_kept_alive(monkeypatch):
    monkeypatch.setattr(live, "HEARTBEAT", 0.0)

    assert events(3, lambda *_: "same") == ["retry: 2000\n\n", live.event("tasks", "same"), *[": keep-alive\n\n"] * 3]


def test_where_something_changes_no_sign_of_life_is_needed():
    found = events(3, lambda reading, _: str(reading.number))

    assert found == ["retry: 2000\n\n", *(live.event("tasks", text) for text in "123")]


@each(
    "changed",
    [
        {"counts": Part(dataclasses.replace(READING.counts.value, by_type={"echo": {"RUNNING": 1}}))},
        {"recent": Part({"succeeded": 2})},
        {"queues": Part([queue_view(total=6)])},
    ],
)
def test_lists_load_themselves_again_when_tasks_have_moved(changed):
    before = HealthTopic.version(READING, frozenset())

    assert HealthTopic.version(dataclasses.replace(READING, number=2), frozenset()) == before
    assert HealthTopic.version(dataclasses.replace(READING, **changed), frozenset()) != before
