"""The consumer: only what can run reaches Celery; the rest is dead-lettered with its reason, and acked afterwards."""

import json
import types

import pytest
from celery.worker.consumer import Consumer

from dispatch.broker.acks import Acks
from dispatch.broker.decoding import decode
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.sealing import UNSEALED
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.worker import consumer as module
from dispatch.worker.consumer import DispatchConsumer
from support.cases import each
from support.unit_fakes import Log


class FakeMessage:
    """A delivery as kombu hands it on."""

    content_type, content_encoding, delivery_tag = "application/json", "utf-8", 1
    channel = types.SimpleNamespace(connection=object())

    def __init__(self, body=b'[[{"message": "x"}], {}, {}]', **headers):
        self.body = body
        self.headers = {"id": "t-1", "task": "echo", **headers}
        self.properties, self.delivery_info = {}, {"routing_key": "robot.task.dispatch.echo"}
        self.ended = []

    def ack_log_error(self, *_):
        self.ended.append("acked")

    def reject_log_error(self, *_):
        self.ended.append("rejected")


class World:
    """A consumer without a connection, and what reached Celery or the DLQ."""

    def __init__(self, monkeypatch, keys=NO_KEYS, sealing=UNSEALED):
        self.accepted, self.dead, self.log = [], [], Log()
        monkeypatch.setattr(module, "log", self.log)
        monkeypatch.setattr(Consumer, "create_task_handler", lambda _self: self.accepted.append)
        self.shutdown = types.SimpleNamespace(begun=False)
        router = types.SimpleNamespace(dead_letter=self._dead_letter)
        self.consumer = object.__new__(DispatchConsumer)
        self.consumer.app = types.SimpleNamespace(
            dispatch_types={"echo": object()},
            dispatch_settings=types.SimpleNamespace(max_body=262_144, signing=keys, sealing=sealing),
        )
        self.consumer._worker = types.SimpleNamespace(router=router, shutdown=self.shutdown)
        self.consumer.connection_errors = ()
        self.consumer._acks = Acks(())
        self.receive = self.consumer.create_task_handler()

    def _dead_letter(self, wire, reason, _error, done):
        self.dead.append((wire.task_id, reason))
        self.done = done


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_task_message_reaches_celery_as_it_was_checked(world):
    message = FakeMessage(expires="2999-01-01T00:00:00+00:00")
    world.receive(message)

    assert world.accepted == [message]
    assert message._decoded_cache[0] == [{"message": "x"}]
    assert message.headers["expires"] is None
    assert world.dead == []


def test_a_payload_that_looks_like_kombus_own_types_stays_json(world):
    payload = {"__type__": "datetime", "__value__": "2026-01-01"}
    message = FakeMessage(json.dumps([[payload], {}, {}]).encode())
    world.receive(message)

    assert message._decoded_cache[0] == [payload]


@each(
    ("message", "reason"),
    [
        (FakeMessage(b"{"), Reason.UNDECODABLE),
        (FakeMessage(task="nothing.known"), Reason.UNKNOWN_TYPE),
        (FakeMessage(**{"x-seq": -1}), Reason.MALFORMED),
        (FakeMessage(expires="2000-01-01T00:00:00"), Reason.EXPIRED),
    ],
    ids=["no JSON", "an unknown type", "a negative seq", "expired"],
)
def test_what_cannot_run_is_dead_lettered_and_acked_afterwards(monkeypatch, message, reason):
    world = World(monkeypatch)
    world.receive(message)

    assert (world.accepted, world.dead, message.ended) == ([], [("t-1", reason)], [])

    world.done()

    assert message.ended == ["acked"]


def test_with_keys_only_what_they_signed_reaches_celery_and_the_rest_has_one_reason(monkeypatch):
    keys = MessageKeys.parse(f"one:{'k' * 32}")
    world, signed, wrong = World(monkeypatch, keys), FakeMessage(), FakeMessage()
    signed.headers = wrong.headers = dict(keys.sign(decode(signed)).headers)
    wrong.body = b'[[{"message": "y"}], {}, {}]'
    for message in (signed, wrong, FakeMessage(), FakeMessage(b"{")):
        world.receive(message)
    world.consumer.on_decode_error(FakeMessage(), ValueError())

    assert world.accepted == [signed]
    assert world.dead == [("t-1", Reason.UNAUTHENTIC)] * 4


def test_an_error_of_the_check_itself_takes_no_worker_down(world, monkeypatch):
    def check(*_args, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "check", check)
    world.receive(FakeMessage())

    assert world.dead == [("t-1", Reason.MALFORMED)]
    assert world.log.events == ["message could not be checked"]


def test_a_body_that_was_not_kept_is_rejected_since_the_broker_has_it_whole(world):
    message = FakeMessage(**{"x-too-large": "5000000 bytes"})
    world.receive(message)

    assert (message.ended, world.dead) == (["rejected"], [])


def test_a_worker_that_shuts_down_accepts_no_more(world):
    world.shutdown.begun = True
    message = FakeMessage()
    world.receive(message)

    assert (world.accepted, world.dead, message.ended) == ([], [], [])


@each(
    ("hook", "reason"),
    [
        (lambda consumer, message: consumer.on_decode_error(message, ValueError()), Reason.UNDECODABLE),
        (lambda consumer, message: consumer.on_unknown_message(None, message), Reason.MALFORMED),
        (lambda consumer, message: consumer.on_unknown_task(None, message, KeyError("x")), Reason.UNKNOWN_TYPE),
        (lambda consumer, message: consumer.on_invalid_task(None, message, ValueError()), Reason.MALFORMED),
    ],
    ids=["undecodable", "no task message", "an unknown task", "an invalid task"],
)
def test_where_celery_would_ack_and_lose_a_message_it_is_dead_lettered(monkeypatch, hook, reason):
    world = World(monkeypatch)
    hook(world.consumer, FakeMessage())

    assert world.dead == [("t-1", reason)]


def test_the_delay_queues_of_celery_are_left_out():
    steps = " ".join(map(str, DispatchConsumer.Blueprint.default_steps))

    assert "delayed_delivery" not in steps
    assert "delayed_delivery" in " ".join(map(str, Consumer.Blueprint.default_steps))
