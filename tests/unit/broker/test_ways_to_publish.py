"""The ways to publish a task with Celery: all of them are ours, or are refused."""

import kombu
import pytest
from celery import chain, group

from celery_app import create_celery
from dispatch.broker.celery_producer import capturing
from dispatch.broker.celery_task import Refused
from dispatch.config import settings as configuration
from support.cases import each

PAYLOAD = {"message": "x"}


CELERY = create_celery(configuration.load({}))


@pytest.fixture
def celery():
    """The client, whose publisher notes what it is given."""
    CELERY.sent = []
    CELERY.dispatch_producer = lambda: capturing(lambda *sent: CELERY.sent.append(sent))
    return CELERY


WAYS = {
    "send_task": lambda celery, **options: celery.send_task("echo", [PAYLOAD], **options),
    "apply_async": lambda celery, **options: celery.tasks["echo"].apply_async([PAYLOAD], **options),
    "a signature": lambda celery, **options: celery.signature("echo", [PAYLOAD], app=celery).apply_async(**options),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_sent_goes_through_our_publisher_to_the_work_queue(celery, way):
    for options in ({}, {"exchange": "robot.task.dlx", "routing_key": "x"}, {"queue": "robot.task.q"}):
        result = WAYS[way](celery, **options)
        ((message, exchange, key),) = celery.sent
        celery.sent.clear()

        assert (message.task_id, message.type) == (result.id, "echo")
        assert (exchange, key) == ("robot.task.topic", "robot.task.dispatch.echo")


@each(
    ("name", "count"),
    [("group", 2), ("chain", 1), ("link", 1), ("delay", 1)],
)
def test_canvas_goes_through_our_publisher(name, count, celery):
    celery.sent.clear()
    first, then = (celery.signature("echo", [PAYLOAD], app=celery, immutable=True) for _ in range(2))
    canvas = {
        "group": lambda: group([first, then], app=celery).apply_async(),
        "chain": lambda: chain(first, then, app=celery).apply_async(),
        "link": lambda: first.apply_async(link=then),
        "delay": lambda: celery.tasks["echo"].delay(PAYLOAD),
    }
    canvas[name]()

    assert [(exchange, key) for _, exchange, key in celery.sent] == [
        ("robot.task.topic", "robot.task.dispatch.echo")
    ] * count


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 3},
        {"countdown": 0.5},
        {"eta": "2040-01-01T00:00:00"},
        {"expires": 60},
        {"link_error": []},
        {"connection": kombu.Connection("amqp://")},
        {"producer": kombu.Producer(None, auto_declare=False)},
        {"publisher": kombu.Producer(None, auto_declare=False)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_would_be_lost_or_doubled_is_refused(celery, way, options):
    with pytest.raises(Refused, match="is refused"):
        WAYS[way](celery, **options)

    assert celery.sent == []


@each("name", ["no.such.type", "celery.chain", "", "tasks.echo"])
def test_what_is_no_task_type_is_refused(name):
    with pytest.raises(Refused, match="no task type"):
        CELERY.send_task(name, [PAYLOAD])


def test_options_by_position_and_a_task_type_of_the_callers_are_refused(celery):
    with pytest.raises(Refused):
        celery.send_task("echo", [PAYLOAD], {}, 3)
    with pytest.raises(Refused):
        celery.send_task("echo", [PAYLOAD], task_type=celery.tasks["echo"])


def test_a_purge_is_refused(celery):
    for purge in (celery.control.purge, celery.control.discard_all):
        with pytest.raises(Refused, match="celery dlq discard"):
            purge()
