"""The work queue's depth: read on one channel, and what a failed read may show in the log."""

import types

import amqp.exceptions
import pytest

from dispatch.broker import depth as module
from dispatch.broker.depth import Depth, DepthGauge, ack_rate, depth
from dispatch.broker.management import ManagementUnavailable
from dispatch.config.settings import load
from support.cases import each


class FakeChannel:
    """Answers a passive declaration."""

    def queue_declare(self, queue, *, passive):
        assert (queue, passive) == ("robot.task.q", True)
        return types.SimpleNamespace(message_count=12, consumer_count=3)


class FakeConnection:
    """Counts its channels and its ends."""

    def __init__(self, *_args, **_options):
        self.channels = self.collected = 0

    def channel(self):
        self.channels += 1
        return FakeChannel()

    def collect(self):
        self.collected += 1
        raise OSError("gone already")


@pytest.fixture
def gauge(monkeypatch):
    monkeypatch.setattr(module.connections, "connection", FakeConnection)
    monkeypatch.setattr(module.provision, "connect", lambda _connection, _where: None)
    return DepthGauge(load({"DISPATCH_BROKER_URL": "amqp://u:hush@h/v"}))


def test_ready_messages_and_consumers_are_counted():
    assert depth(FakeChannel(), "robot.task.q") == Depth(12, 3)


def test_a_gauge_reads_on_one_channel_until_it_is_closed(gauge):
    first = [gauge.read(), gauge.read()]
    gauge.close()
    gauge.read()

    assert first == [12, 12]
    assert (gauge._connection.channels, gauge._connection.collected) == (2, 1)


def test_a_missing_queue_comes_with_what_to_do(gauge):
    trouble = gauge.trouble(amqp.exceptions.NotFound("NOT_FOUND - no queue 'robot.task.q' in vhost 'v'"))

    assert trouble.reason == "a queue is missing: run `topology apply`"
    assert trouble.where == "u@h/v"


class FakeManagement:
    """Answers with one queue, or is away."""

    queue: object = {}

    def __init__(self, _settings, *, budget):
        assert budget < 1

    vhost = "robot"

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        return None

    def get(self, *_path):
        if isinstance(self.queue, Exception):
            raise self.queue
        return self.queue


@each(
    ("queue", "rate"),
    [
        ({"message_stats": {"ack_details": {"rate": 2.5}}}, 2.5),
        ({"message_stats": {}}, None),
        ({}, None),
        (ManagementUnavailable("no answer"), None),
    ],
)
def test_the_drain_rate_is_what_rabbitmq_measured(monkeypatch, queue, rate):
    monkeypatch.setattr(FakeManagement, "queue", queue)
    monkeypatch.setattr(module, "Management", FakeManagement)

    assert ack_rate(load({})) == rate
