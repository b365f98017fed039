"""Confirms: each publish gets its own verdict, whatever order and grouping the broker answers in."""

import contextlib
import dataclasses
import struct
import time
import types

import pytest
from amqp.exceptions import AMQPError, NotFound

from dispatch.broker import confirms as module
from dispatch.broker import frames
from dispatch.broker.confirms import ConfirmingConnection
from dispatch.errors import InDoubt, Nacked, NotSent, Unroutable
from dispatch.protocol.message import Copy
from support.cases import each
from support.unit_fakes import ManualClock, task_message

NO_ROUTE = types.SimpleNamespace(reply_text="NO_ROUTE")


class FakeChannel:
    """Keeps what is written."""

    def __init__(self):
        self.written, self.failure = [], None

    def prepare_message(self, body, _priority, content_type, content_encoding, headers, properties):
        if body is None:
            raise ValueError("no body")
        return types.SimpleNamespace(
            body=body, kind=(content_type, content_encoding), headers=headers, properties=properties
        )

    def send_method(self, _method, _format, arguments, content):
        if self.failure:
            raise self.failure
        self.written.append((arguments, content))


@pytest.fixture
def channel():
    return FakeChannel()


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def connection(channel):
    """A connection after its handshake, without a socket; its thread was never started."""
    connection = ConfirmingConnection("amqp://nowhere", connect_timeout=1.0)
    connection._channel = channel
    connection._connection = types.SimpleNamespace(heartbeat_tick=lambda _rate: None, bytes_recv=0)
    connection.opened.set()
    return connection


@pytest.fixture
def publish(connection):
    def write(exchange="x", rung=None):
        headers = {"retry-queue": rung} if rung else {}
        return connection.publish(task_message(**headers), exchange, "key", time.monotonic() + 5)

    return write


def ack(connection, tag, multiple, method=80):
    """What arrives when the broker has taken a message, or all up to it."""
    payload = struct.pack(">HHQB", 60, method, tag, multiple)
    connection._handle(bytearray(struct.pack(">BHI", 1, 1, len(payload)) + payload + b"\xce"))


def nack(connection, tag, multiple):
    """The same for one that it refuses."""
    ack(connection, tag, multiple, method=120)


def verdict(future):
    """What a publish has ended with: None while it has not, "ok", or the error's type."""
    if not future.done():
        return None
    error = future.exception()
    return "ok" if error is None else type(error)


def test_a_message_is_written_persistent_and_mandatory(publish, channel):
    publish()
    arguments, content = channel.written[0]

    assert arguments == (0, "x", "key", True, False)
    assert content.properties == {"delivery_mode": 2, "message_id": "1"}
    assert content.kind == ("application/json", "utf-8")
    assert content.headers == task_message().headers


def test_each_ack_ends_its_own_publish(connection, publish):
    futures = [publish() for _ in range(3)]
    ack(connection, 2, False)

    assert [verdict(future) for future in futures] == [None, "ok", None]


def test_an_ack_of_several_ends_all_up_to_it(connection, publish):
    futures = [publish() for _ in range(4)]
    ack(connection, 3, True)

    assert [verdict(future) for future in futures] == ["ok", "ok", "ok", None]


def test_a_nack_of_several_refuses_those_that_still_wait(connection, publish):
    futures = [publish() for _ in range(3)]
    ack(connection, 1, False)
    nack(connection, 2, True)

    assert [verdict(future) for future in futures] == ["ok", Nacked, None]


def test_a_return_before_the_ack_makes_it_unroutable(connection, publish):
    returned, other = publish(), publish()
    connection._on_return(NO_ROUTE, "x", "key", types.SimpleNamespace(properties={"message_id": "1"}))
    ack(connection, 2, True)

    assert (verdict(returned), verdict(other)) == (Unroutable, "ok")
    assert "exchange 'x', routing key 'key'" in str(returned.exception())


def test_an_answer_without_its_publish_changes_nothing(connection, publish):
    future = publish()
    ack(connection, 7, False)
    connection._on_return(NO_ROUTE, "x", "key", types.SimpleNamespace(properties={}))

    assert verdict(future) is None


def test_a_message_that_cannot_be_built_takes_no_number(connection, publish, channel):
    broken = task_message()
    object.__setattr__(broken, "body", None)
    with pytest.raises(ValueError, match="no body"):
        connection.publish(broken, "x", "key", time.monotonic() + 5)
    future = publish()
    ack(connection, 1, False)

    assert verdict(future) == "ok"
    assert len(channel.written) == 1


def test_a_frame_that_cannot_be_encoded_takes_no_number(connection, publish, channel):
    channel.failure = ValueError("not encodable")
    with pytest.raises(ValueError, match="not encodable"):
        publish()
    channel.failure = None
    future = publish()
    ack(connection, 1, False)

    assert verdict(future) == "ok"


@each("failure", [OSError("broken pipe"), AMQPError("closed")])
def test_a_write_that_fails_leaves_every_publish_in_doubt(failure):
    channel = FakeChannel()
    connection = ConfirmingConnection("amqp://nowhere", connect_timeout=1.0)
    connection._channel, connection._connection = channel, object()
    connection.opened.set()
    first = connection.publish(task_message(), "x", "key", time.monotonic() + 5)
    channel.failure = failure
    second = connection.publish(task_message(), "x", "key", time.monotonic() + 5)

    assert (verdict(first), verdict(second)) == (InDoubt, InDoubt)
    assert not connection.usable


def test_a_killed_connection_leaves_what_waits_in_doubt_and_takes_no_more(connection, publish):
    answered, waiting, other = publish(), publish(), publish()
    ack(connection, 1, False)
    connection.kill(OSError("reset"))

    assert [verdict(future) for future in (answered, waiting, other)] == ["ok", InDoubt, InDoubt]
    with pytest.raises(NotSent, match="not connected"):
        publish()


def test_the_first_reason_for_the_end_stays(connection):
    connection.kill(OSError("first"))
    connection.kill(OSError("second"))

    assert str(connection.error) == "first"


def test_a_missing_exchange_makes_a_lone_publish_unroutable(connection, publish):
    future = publish()
    connection.kill(NotFound("no exchange 'x'"))

    assert verdict(future) is Unroutable


def test_a_missing_exchange_is_not_known_to_be_one_of_several(connection, publish):
    futures = [publish(), publish()]
    connection.kill(NotFound("no exchange 'x'"))

    assert [verdict(future) for future in futures] == [InDoubt, InDoubt]


@pytest.fixture
def wire(connection, channel):
    """What a connection after its handshake writes by itself, write by write."""
    written = []
    channel.channel_id = 1
    transport = types.SimpleNamespace(write=written.append, sock=types.SimpleNamespace(shutdown=lambda _how: None))
    connection._connection._transport, connection._connection.bytes_sent = transport, 0
    connection._frame_max = 131_072
    return written


def meanwhile(monkeypatch, happens):
    """Have something happen in the turn of the event loop in which a publish waits for others."""
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: happens())
    monkeypatch.setattr(module, "time", clock)


def framed(tag):
    return frames.publish(task_message(), "x", "key", message_id=str(tag), channel=1, frame_max=131_072)


def test_the_publishes_of_a_turn_leave_in_one_write_in_the_order_of_their_tags(connection, publish, wire, monkeypatch):
    others = []
    meanwhile(monkeypatch, lambda: others.extend([publish(), publish()]))
    first = publish()
    ack(connection, 2, True)

    assert wire == [framed(1) + framed(2) + framed(3)]
    assert connection._connection.bytes_sent == 3
    assert [verdict(one) for one in (first, *others)] == ["ok", "ok", None]


def test_several_messages_leave_in_one_write(connection, wire):
    copies = [Copy(task_message(), "x", "key", "q")] * 2
    verdicts = connection.publish_all(copies, time.monotonic() + 1)
    ack(connection, 2, True)

    assert wire == [framed(1) + framed(2)]
    assert [verdict(one) for one in verdicts] == ["ok", "ok"]


def test_of_several_messages_one_that_cannot_be_built_stops_no_other(connection, wire):
    bad = dataclasses.replace(task_message(), body=None)
    copies = [Copy(message, "x", "key", "q") for message in (task_message(), bad, task_message())]
    verdicts = connection.publish_all(copies, time.monotonic() + 1)
    ack(connection, 1, False)
    nack(connection, 2, False)

    assert wire == [framed(1), framed(2)]
    assert [verdict(one) for one in verdicts] == ["ok", NotSent, Nacked]


def test_several_messages_are_not_sent_on_a_connection_that_has_ended(connection, wire):
    connection.closed.set()

    with pytest.raises(NotSent):
        connection.publish_all([Copy(task_message(), "x", "key", "q")], time.monotonic() + 1)
    assert wire == []


def test_what_was_not_written_when_the_connection_ended_is_not_sent(connection, publish, wire, monkeypatch):
    meanwhile(monkeypatch, lambda: connection.kill(OSError("gone")))

    assert verdict(publish()) is NotSent
    assert wire == []


def test_a_write_that_fails_leaves_its_whole_turn_in_doubt(connection, publish, wire, monkeypatch):
    def fail(_data):
        raise OSError("reset")

    others = []
    connection._connection._transport.write = fail
    meanwhile(monkeypatch, lambda: others.append(publish()))

    first = publish()

    assert [verdict(one) for one in (first, *others)] == [InDoubt, InDoubt]
    assert (wire, connection.usable) == ([], False)


def test_what_our_frames_do_not_know_is_written_by_py_amqp_after_what_waits(
    connection, publish, channel, wire, monkeypatch
):
    unknown = task_message(**{"x-raw": b"bytes"})
    meanwhile(monkeypatch, lambda: connection.publish(unknown, "x", "key", time.monotonic() + 5))
    publish()

    assert wire == [framed(1)]
    assert [content.properties["message_id"] for _, content in channel.written] == ["2"]


def test_the_first_verdict_on_a_publish_stays(publish):
    verdict_ = publish()
    verdict_.settle(Nacked())
    verdict_.settle(None)

    assert verdict(verdict_) is Nacked
    with pytest.raises(Nacked):
        verdict_.result(0)


def test_an_alarm_takes_nothing_until_it_is_over(connection, publish):
    connection._on_blocked("low on memory")
    with pytest.raises(NotSent, match="alarm"):
        publish()
    connection._on_unblocked()

    assert verdict(publish()) is None


def test_a_stuck_writer_delays_no_other_beyond_its_deadline(connection, channel):
    with connection._lock, pytest.raises(NotSent, match="fast enough"):
        connection.publish(task_message(), "x", "key", time.monotonic() + 0.01)

    assert channel.written == []


def test_the_oldest_publish_is_the_one_that_waits_longest(connection, publish, clock):
    assert connection.oldest() == 0

    publish()
    clock.now += 2
    publish()
    clock.now += 1

    assert connection.oldest() == 3

    ack(connection, 1, False)

    assert connection.oldest() == 1


def test_a_target_that_only_ever_refuses_is_refused_from_its_first_refusal_on(connection, publish, clock):
    publish("robot.retry", "5m")
    nack(connection, 1, False)
    clock.now += 4
    publish("robot.retry", "5m")
    nack(connection, 2, False)

    assert connection.refused() == 4
    assert not connection.takes


def test_a_queue_that_took_something_and_is_full_now_is_not_refused(connection, publish, clock):
    publish("x")
    ack(connection, 1, False)
    publish("x")
    nack(connection, 2, False)
    clock.now += 9

    assert connection.refused() == 0
    assert connection.takes


def test_each_rung_is_a_target_of_its_own(connection, publish, clock):
    publish("robot.retry", "1m")
    ack(connection, 1, False)
    publish("robot.retry", "5m")
    nack(connection, 2, False)
    clock.now += 1

    assert connection.refused() == 1
    assert not connection.takes


def test_a_return_is_a_refusal_even_where_something_was_taken_before(connection, publish, clock):
    publish("x")
    ack(connection, 1, False)
    publish("x")
    connection._on_return(NO_ROUTE, "x", "key", types.SimpleNamespace(properties={"message_id": "2"}))
    ack(connection, 2, False)
    clock.now += 1

    assert connection.refused() == 1


def test_a_target_that_takes_again_is_not_refused_any_more(connection, publish, clock):
    publish("x")
    nack(connection, 1, False)
    clock.now += 1
    publish("x")
    ack(connection, 2, False)

    assert connection.refused() == 0
    assert connection.takes


def test_a_retired_connection_ends_with_its_last_verdict(connection, publish):
    first, last = publish(), publish()
    connection.retire()
    with pytest.raises(NotSent):
        publish()
    ack(connection, 1, False)

    assert (connection.closed.is_set(), verdict(last)) == (False, None)

    ack(connection, 2, False)

    assert (connection.closed.is_set(), verdict(first), verdict(last)) == (True, "ok", "ok")


def test_a_retired_connection_without_a_publish_ends_at_once(connection):
    connection.retire()

    assert connection.closed.is_set()


def test_a_missed_heartbeat_ends_the_connection(connection, publish):
    def missed(_rate):
        raise OSError("too many heartbeats missed")

    future = publish()
    connection._connection.heartbeat_tick = missed
    connection.heartbeat()

    assert verdict(future) is InDoubt


def test_an_end_before_the_connection_is_there_is_no_error():
    connection = ConfirmingConnection("amqp://nowhere", connect_timeout=1.0)
    connection.kill(NotSent("too slow"))
    with contextlib.suppress(NotSent):
        connection.publish(task_message(), "x", "key", time.monotonic() + 1)

    assert connection.closed.is_set()


def test_one_read_brings_confirms_between_frames_of_others_in_any_pieces(connection, publish):
    """A heartbeat, a frame of py-amqp's, and confirms; whatever the pieces are in which they come."""
    futures, others = [publish() for _ in range(3)], []
    connection._connection.on_inbound_frame = others.append
    one = bytearray()
    for tag, multiple, method in ((2, True, 80), (3, False, 120)):
        payload = struct.pack(">HHQB", 60, method, tag, multiple)
        one += struct.pack(">BHI", 8, 0, 0) + b"\xce" + struct.pack(">BHI", 1, 1, 13) + payload + b"\xce"
    one += struct.pack(">BHI", 1, 0, 4) + b"\x00\x0a\x00\x3c\xce"
    arrived = bytearray()
    for byte in one:
        arrived.append(byte)
        connection._handle(arrived)

    assert [verdict(future) for future in futures] == ["ok", "ok", Nacked]
    assert [tuple(frame) for frame in others] == [(8, 0, b""), (8, 0, b""), (1, 0, b"\x00\x0a\x00\x3c")]
    assert not arrived
    assert connection._connection.bytes_recv == 2


def test_a_confirm_counts_though_the_frame_behind_it_ends_the_connection(connection, publish):
    def closes(_frame):
        raise NotFound("no exchange")

    first, second = publish(), publish()
    connection._connection.on_inbound_frame = closes
    payload = struct.pack(">HHQB", 60, 80, 1, 0)
    arrived = bytearray(struct.pack(">BHI", 1, 1, 13) + payload + b"\xce" + struct.pack(">BHI", 1, 1, 4) + b"0000\xce")
    with pytest.raises(NotFound):
        connection._handle(arrived)

    assert [verdict(first), verdict(second)] == ["ok", None]
