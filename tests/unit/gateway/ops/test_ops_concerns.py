"""What the overview names as in need of a hand, and what it leaves out."""

import dataclasses

from dispatch.config.api_keys import SCOPES
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops import queues
from dispatch.gateway.ops.concerns import concerns
from dispatch.gateway.ops.frame import Part
from dispatch.gateway.ops.pulse import Reading
from dispatch.protocol.pauses import Pause
from dispatch.store.task_counts import TaskCounts
from dispatch.store.workers import WorkerInfo
from support.broker_views import PLAIN_QUEUE, queue_view
from support.cases import each

WORKER = WorkerInfo("w@host", "host", 7, "1", 8, 2, 3, {}, 0)
WELL = Reading(
    1, 0.0, Part([PLAIN_QUEUE]), Part([WORKER]), Part(TaskCounts(0, True, 0, {}, {})), Part({}), Part([]), Part({"succeeded": 9}),
    {"broker": None},
)  # fmt: skip
PAUSE = Pause("lane:bulk", "the vendor repairs its API", "ada", 1, 1_795_487_760_000)
NONE = Part(None, Problem("store-unavailable"))


def seen(scopes=SCOPES, *, refuses=False, **changes):
    return concerns(dataclasses.replace(WELL, **changes), frozenset(scopes), refuses=refuses)


def counts(by_type=None, dead=None):
    return Part(TaskCounts(0, True, 1, by_type or {}, dead or {}))


def test_where_all_is_well_nothing_needs_a_hand():
    assert seen() == []


@each(
    ("changed", "text", "href"),
    [
        ({"failures": {"broker": "RabbitMQ does not respond"}}, "RabbitMQ does not respond", ""),
        ({"refuses": True}, "refused with 429", "/ops/queues"),
        ({"workers": Part([])}, "No worker", "/ops/workers"),
        ({"queues": Part([queue_view(drift=("x is missing", "y"))] * 2)}, "x is missing (and 1 more)", "/ops/queues"),
        ({"queues": Part([queue_view(consumers=0)])}, "3 messages wait in robot.task.q", "/ops/queues"),
        ({"ages": Part({"robot.task.q": 700.0})}, "has waited for 11 min 40 s", "/ops/workers"),
        ({"recent": Part({"failed": 9, "dead": 3, "succeeded": 4})}, "12 of 16 attempts of the last five minutes", ""),
        ({"counts": counts(dead={"boom": 2, "bang": 1})}, "3 dead letters wait", "/ops/dead-letters"),
        ({"counts": counts(dead={"boom": 1})}, "1 dead letter waits", "/ops/dead-letters"),
        ({"pauses": Part([PAUSE])}, "lane:bulk is paused by ada, until 02:36 UTC: the vendor", "/ops/pauses"),
    ],
)
def test_what_needs_a_hand_leads_to_where_it_is_done(changed, text, href):
    (found,) = seen(**changed)

    assert text in found.text
    assert found.href == href


def test_an_outage_leads_to_the_tasks_of_the_type_that_waits_most():
    by_type = {"robot.clean": {"RETRY_WAIT": 8}, "echo": {"RETRY_WAIT": 2}, "(others)": {"RETRY_WAIT": 99}}
    (found,) = seen(recent=Part({"failed": 12}), counts=counts(by_type))

    assert "robot.clean (8)" in found.text
    assert found.href == "/ops/tasks?state=RETRY_WAIT&type=robot.clean"


def test_what_fails_for_good_leads_to_the_dead_letters_and_not_to_what_waits():
    by_type = {"echo": {"RETRY_WAIT": 2}}
    (found,) = seen(recent=Part({"failed": 3, "dead": 40}), counts=counts(by_type))

    assert found.text == "43 of 43 attempts of the last five minutes failed, 40 of them for good."
    assert found.href == "/ops/dead-letters"


def test_the_name_of_a_type_cannot_become_another_part_of_the_link():
    (found,) = seen(recent=Part({"failed": 12}), counts=counts({"a&state=X": {"RETRY_WAIT": 1}}))

    assert found.href.endswith("&type=a%26state%3DX")


@each(
    "changed",
    [
        {"recent": Part({"failed": 9})},
        {"recent": Part({"failed": 40, "succeeded": 41})},
        {"ages": Part({"robot.task.q": 599.0})},
        {
            "queues": Part([queue_view(lane="bulk", consumers=0)]),
            "pauses": Part([dataclasses.replace(PAUSE, what="lane:bulk")]),
        },
    ],
)
def test_what_is_usual_or_wanted_is_none(changed):
    assert [each for each in seen(**changed) if "paused" not in each.text] == []


def test_the_worst_is_first_and_many_pauses_are_one_line():
    pauses = Part([dataclasses.replace(PAUSE, what=f"type:t{number}") for number in range(5)])
    found = seen(pauses=pauses, counts=counts(dead={"boom": 1}), refuses=True)

    assert [each.level for each in found] == ["bad", "warn", "warn", "warn", "warn", "warn"]
    assert found[-1].text == "2 more are paused."


def test_scopes_limit_what_is_named():
    worst = {"pauses": Part([PAUSE]), "counts": counts(dead={"boom": 1}), "workers": Part([])}

    assert seen(("tasks:read",), **worst) == []
    (dead,) = seen(("tasks:read-all",), **worst)
    assert dead.href == "/ops/tasks?state=DEAD_LETTERED"  # the page of dead letters would be refused


def test_what_could_not_be_read_is_no_concern():
    assert seen(queues=NONE, workers=NONE, counts=NONE, ages=NONE, pauses=NONE, recent=NONE) == []


def test_all_that_waits_is_acted_on_from_its_queues_by_who_may():
    rungs = Part(
        [queue_view(name="robot.retry.q.1m", role="rung"), queue_view(name="robot.task.dlq", role="dead-letters")]
    )
    reading = dataclasses.replace(WELL, queues=rungs)

    for scopes, labels in (
        (SCOPES, ["Retry all now", "Redrive all dead letters"]),
        (("queues:read", "tasks:control"), ["Retry all now"]),
        (("queues:read",), []),
    ):
        shown = queues.QueuesPage.shown(reading, frozenset(scopes))["groups"]
        assert [each.act[2] for each in shown if each.act] == labels


def test_of_the_delay_levels_only_those_with_something_in_them_are_listed():
    levels = [queue_view(role="delay", name=f"d{number}", total=number % 2, lane=None) for number in range(5)]
    found = queues.group("Delay levels", levels)

    assert [each.name for each in found.queues] == ["d1", "d3"]
    assert (found.empty, found.pausable) == (3, False)
