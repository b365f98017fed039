"""Confirms: each publish gets its own verdict, whatever order and grouping the broker answers in."""

import contextlib
import time
import types

import pytest
from amqp.exceptions import AMQPError, NotFound

from dispatch.broker import confirms as module
from dispatch.broker.confirms import ConfirmingConnection
from dispatch.errors import InDoubt, Nacked, NotSent, Unroutable
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
    connection._connection = types.SimpleNamespace(heartbeat_tick=lambda _rate: None)
    connection.opened.set()
    return connection


@pytest.fixture
def publish(connection):
    def write(exchange="x", rung=None):
        headers = {"retry-queue": rung} if rung else {}
        return connection.publish(task_message(**headers), exchange, "key", time.monotonic() + 5)

    return write


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
    connection._on_ack(2, False)

    assert [verdict(future) for future in futures] == [None, "ok", None]


def test_an_ack_of_several_ends_all_up_to_it(connection, publish):
    futures = [publish() for _ in range(4)]
    connection._on_ack(3, True)

    assert [verdict(future) for future in futures] == ["ok", "ok", "ok", None]


def test_a_nack_of_several_refuses_those_that_still_wait(connection, publish):
    futures = [publish() for _ in range(3)]
    connection._on_ack(1, False)
    connection._on_nack(2, True)

    assert [verdict(future) for future in futures] == ["ok", Nacked, None]


def test_a_return_before_the_ack_makes_it_unroutable(connection, publish):
    returned, other = publish(), publish()
    connection._on_return(NO_ROUTE, "x", "key", types.SimpleNamespace(properties={"message_id": "1"}))
    connection._on_ack(2, True)

    assert (verdict(returned), verdict(other)) == (Unroutable, "ok")
    assert "exchange 'x', routing key 'key'" in str(returned.exception())


def test_an_answer_without_its_publish_changes_nothing(connection, publish):
    future = publish()
    connection._on_ack(7, False)
    connection._on_return(NO_ROUTE, "x", "key", types.SimpleNamespace(properties={}))

    assert verdict(future) is None


def test_a_message_that_cannot_be_built_takes_no_number(connection, publish, channel):
    broken = task_message()
    object.__setattr__(broken, "body", None)
    with pytest.raises(ValueError, match="no body"):
        connection.publish(broken, "x", "key", time.monotonic() + 5)
    future = publish()
    connection._on_ack(1, False)

    assert verdict(future) == "ok"
    assert len(channel.written) == 1


def test_a_frame_that_cannot_be_encoded_takes_no_number(connection, publish, channel):
    channel.failure = ValueError("not encodable")
    with pytest.raises(ValueError, match="not encodable"):
        publish()
    channel.failure = None
    future = publish()
    connection._on_ack(1, False)

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
    connection._on_ack(1, False)
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


def test_a_cancelled_future_is_no_error(connection, publish):
    futures = [publish(), publish()]
    futures[0].cancel()
    connection._on_ack(2, True)

    assert verdict(futures[1]) == "ok"


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

    connection._on_ack(1, False)

    assert connection.oldest() == 1


def test_a_target_that_only_ever_refuses_is_refused_from_its_first_refusal_on(connection, publish, clock):
    publish("robot.retry", "5m")
    connection._on_nack(1, False)
    clock.now += 4
    publish("robot.retry", "5m")
    connection._on_nack(2, False)

    assert connection.refused() == 4
    assert not connection.takes


def test_a_queue_that_took_something_and_is_full_now_is_not_refused(connection, publish, clock):
    publish("x")
    connection._on_ack(1, False)
    publish("x")
    connection._on_nack(2, False)
    clock.now += 9

    assert connection.refused() == 0
    assert connection.takes


def test_each_rung_is_a_target_of_its_own(connection, publish, clock):
    publish("robot.retry", "1m")
    connection._on_ack(1, False)
    publish("robot.retry", "5m")
    connection._on_nack(2, False)
    clock.now += 1

    assert connection.refused() == 1
    assert not connection.takes


def test_a_return_is_a_refusal_even_where_something_was_taken_before(connection, publish, clock):
    publish("x")
    connection._on_ack(1, False)
    publish("x")
    connection._on_return(NO_ROUTE, "x", "key", types.SimpleNamespace(properties={"message_id": "2"}))
    connection._on_ack(2, False)
    clock.now += 1

    assert connection.refused() == 1


def test_a_target_that_takes_again_is_not_refused_any_more(connection, publish, clock):
    publish("x")
    connection._on_nack(1, False)
    clock.now += 1
    publish("x")
    connection._on_ack(2, False)

    assert connection.refused() == 0
    assert connection.takes


def test_a_retired_connection_ends_with_its_last_verdict(connection, publish):
    first, last = publish(), publish()
    connection.retire()
    with pytest.raises(NotSent):
        publish()
    connection._on_ack(1, False)

    assert (connection.closed.is_set(), verdict(last)) == (False, None)

    connection._on_ack(2, False)

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
