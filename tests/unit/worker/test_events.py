"""Task events in batches: the same events as Celery's own dispatcher makes, in their order, none lost to a reconnect."""

import pytest
from celery import Celery
from celery.events.dispatcher import EventDispatcher
from kombu.serialization import dumps, loads

from dispatch.worker import events
from dispatch.worker.events import BatchingDispatcher

FIELDS = {"uuid": "t-1", "name": "echo", "retries": 0}


class Noting:
    """Keeps what is published instead of sending it."""

    def _publish(self, event, _producer, routing_key, **_):
        self.sent.append((routing_key, event))


class NotingBatches(Noting, BatchingDispatcher):
    pass


class NotingStock(Noting, EventDispatcher):
    pass


@pytest.fixture
def made():
    app = Celery("test", broker="amqp://nowhere.invalid//", set_as_current=False)

    def make(kind=NotingBatches, **options):
        dispatcher = kind(app.connection_for_write(), "w@h", enabled=False, app=app, buffer_group=["task"], **options)
        dispatcher.enabled, dispatcher.sent = True, []
        return dispatcher

    return make


def test_a_batch_has_the_events_that_celery_would_send(made):
    ours, stock = made(), made(NotingStock)
    for dispatcher in (ours, stock):
        for kind in ("task-received", "task-started", "task-succeeded"):
            dispatcher.send(kind, **FIELDS)
        dispatcher.flush()
    ((key, batch),), ((stock_key, stock_batch),) = ours.sent, stock.sent
    for event in (*batch, *stock_batch):
        assert event.pop("timestamp") > 0
        assert event.pop("clock") > 0

    assert key == stock_key == "task.multi"
    assert batch == stock_batch


def test_a_full_batch_is_sent_at_once_and_the_first_event_asks_for_a_flush(made):
    asked = []
    dispatcher = made(on_send_buffered=lambda: asked.append(1))
    for _ in range(events.FULL):
        dispatcher.send("task-received", **FIELDS)

    ((_, batch),) = dispatcher.sent
    assert len(batch) == events.FULL
    assert asked


class Wire:
    """A producer that keeps what kombu would send."""

    def __init__(self, *, lost=False):
        self.lost, self.sent = lost, []

    def publish(self, body, *, serializer=None, content_type=None, content_encoding=None, **options):
        if self.lost:
            raise ConnectionResetError
        if serializer:
            content_type, content_encoding, body = dumps(body, serializer)
        self.sent.append((loads(body, content_type, content_encoding), options))


def test_a_batch_on_the_wire_is_read_as_that_of_celery(made):
    ours, stock = made(BatchingDispatcher), made(EventDispatcher)
    for fields in (FIELDS, {**FIELDS, "result": "\ud800"}, {**FIELDS, "retries": 2**70}):
        for dispatcher in (ours, stock):
            dispatcher.producer = Wire()
            dispatcher.send("task-received", **fields)
            dispatcher.flush()
        ((batch, options),), ((stock_batch, stock_options),) = ours.producer.sent, stock.producer.sent
        for event in (*batch, *stock_batch):
            del event["timestamp"], event["clock"]

        assert batch == stock_batch
        assert options.items() <= stock_options.items()


def test_a_batch_that_a_lost_connection_did_not_take_is_sent_by_the_next(made):
    dispatcher = made(BatchingDispatcher)
    dispatcher.producer = Wire(lost=True)
    dispatcher.send("task-received", **FIELDS)
    dispatcher.flush()
    dispatcher.producer = Wire()
    dispatcher.flush()

    (((event,), options),) = dispatcher.producer.sent
    assert event["uuid"] == "t-1"
    assert options["routing_key"] == "task.multi"
    no_buffer = made(BatchingDispatcher, buffer_while_offline=False)
    no_buffer.producer = Wire(lost=True)
    no_buffer.send("task-received", **FIELDS)
    with pytest.raises(ConnectionResetError):
        no_buffer.flush()


def test_other_events_go_at_once_and_groups_are_kept(made):
    dispatcher = made()
    dispatcher.send("worker-heartbeat", freq=2)
    only_workers = made(groups=["worker"])
    only_workers.send("task-received", **FIELDS)
    only_workers.flush()

    assert [key for key, _ in dispatcher.sent] == ["worker.heartbeat"]
    assert only_workers.sent == []


def test_a_dispatcher_of_a_new_connection_takes_the_batch_over(made):
    old, new = made(), made()
    old.send("task-received", **FIELDS)
    new.extend_buffer(old)
    new.flush()

    ((_, batch),) = new.sent
    assert [event["type"] for event in batch] == ["task-received"]
