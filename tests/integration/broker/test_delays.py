"""The delay levels on a real broker: nothing comes early, nothing that can't come through is taken."""

import contextlib
import time

import kombu
import pytest

import topology
from dispatch.broker import provision
from dispatch.broker.publisher import Publisher
from dispatch.errors import Nacked, Unroutable
from dispatch.protocol import delays, names
from dispatch.protocol.copies import delayed_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from support.waiting import eventually

#: Seconds that a loaded machine may add; a level's TTL too few or too many is more.
LATE = 30.0


@pytest.fixture
def applied(settings):
    provision.apply(topology.broker_map(settings), settings)
    return settings


@pytest.fixture
def publisher(applied):
    with contextlib.closing(Publisher(applied.address("gateway"), connect_timeout=5.0, timeout=10.0)) as made:
        yield made


@pytest.fixture
def channel(applied):
    with kombu.Connection(applied.broker("admin")) as connection, connection.channel() as channel:
        yield channel


def send(publisher, seconds, key="robot.task.dispatch.echo"):
    """Send a message for later; the time before which it may not come."""
    due = time.time() + seconds
    message = Message(b"[]", {"id": new_task_id(), "task": "echo", "due": str(due)}, routing_key=key)
    copy = delayed_copy(message, seconds)
    publisher.publish(copy.message, copy.exchange, copy.routing_key)


def collect(channel, count, queue=names.WORK_QUEUE):
    """The messages in the order in which they came, each with how late it was."""
    came = []

    def on_message(message):
        came.append((message, time.time() - float(message.headers["due"])))
        channel.basic_ack(message.delivery_tag)

    channel.basic_consume(queue, callback=on_message)
    until = time.monotonic() + LATE + 15
    while len(came) < count and time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            channel.connection.drain_events(timeout=1)
    assert len(came) == count
    return came


def test_every_delay_that_three_levels_have_comes_through_and_none_comes_early(publisher, channel):
    every = range(1, delays.longest(3) + 1)
    for seconds in reversed(every):
        send(publisher, seconds)

    came = collect(channel, len(every))

    late = [round(seconds, 3) for _, seconds in came]
    assert min(late) >= 0
    assert max(late) < LATE
    assert {message.delivery_info["routing_key"] for message, _ in came} == {"robot.task.dispatch.echo"}


def test_a_short_delay_does_not_wait_for_a_long_one_before_it(publisher, channel):
    send(publisher, 8)
    send(publisher, 1)

    first, second = collect(channel, 2)

    assert float(first[0].headers["due"]) < float(second[0].headers["due"])


def test_an_operators_queue_of_one_type_gets_it_after_its_delay(publisher, channel):
    channel.queue_declare("robot.clean.q", durable=True, auto_delete=False)
    channel.queue_bind("robot.clean.q", names.TASK_EXCHANGE, names.routing_key("robot.clean"))

    send(publisher, 3, names.routing_key("robot.clean"))

    assert len(collect(channel, 1, "robot.clean.q")) == 1


def test_a_level_below_without_its_binding_makes_a_delayed_copy_unroutable(publisher, channel):
    bit = {"delay-0": "1", "x-match": "all"}
    channel.queue_unbind(names.delay_queue(0), names.delay_exchange(0), "", arguments=bit)

    with pytest.raises(Unroutable):
        send(publisher, 1)
    send(publisher, 2)  # needs the other binding of that level

    assert len(collect(channel, 1)) == 1


def test_a_level_that_is_not_there_makes_a_delayed_copy_unroutable(publisher, channel):
    channel.exchange_delete(names.delay_exchange(3))

    with pytest.raises(Unroutable):
        send(publisher, 8)


def test_a_key_that_leads_nowhere_is_returned_where_it_does_not_have_to_wait(publisher):
    """`delayed_copy` makes no copy with such a key: it could not leave a level."""
    with pytest.raises(Unroutable):
        publisher.publish(Message(b"[]", {"delay-0": "0"}), names.delay_exchange(0), "elsewhere")


def test_a_full_level_refuses(applied, publisher):
    tight = applied.model_copy(update={"delay_limit": 1})
    provision.apply(topology.broker_map(tight), tight)

    def refused():
        try:
            send(publisher, 15)
        except Nacked:
            return True
        return False

    eventually(refused, 10, "the level took everything")


def test_what_waits_in_the_levels_survives_a_map_that_is_applied_again_with_more_of_them(applied, publisher, channel):
    send(publisher, 3)
    more = applied.model_copy(update={"delay_levels": 6})

    provision.apply(topology.broker_map(more), more)
    send(publisher, 2)

    assert provision.plan(topology.broker_map(more), more) == []
    assert len(collect(channel, 2)) == 2


def test_a_foreign_message_without_bits_is_returned(publisher):
    with pytest.raises(Unroutable):
        publisher.publish(Message(b"[]", {}), names.delay_exchange(2), "robot.task.dispatch.echo")


def test_levels_are_declared_again_where_an_operator_deleted_one(applied, channel):
    channel.queue_delete(names.delay_queue(2))

    found = provision.plan(topology.broker_map(applied), applied)
    provision.apply(topology.broker_map(applied), applied)

    assert [each.kind for each in found] == ["queue", "binding"]
    assert provision.plan(topology.broker_map(applied), applied) == []


def test_a_lost_permission_refuses_a_delayed_copy_for_certain(servers, applied):
    """The broker ends the channel: of the one message in flight nothing was stored."""
    user = f"narrow-{applied.redis_prefix[:-1]}"
    path = applied.broker("admin").rpartition("/")[2]
    with servers.management() as api:
        api.put(f"/api/users/{user}", json={"password": "pw", "tags": ""}).raise_for_status()
        rights = {"configure": "^$", "write": "^robot.task.topic$", "read": "^$"}
        api.put(f"/api/permissions/{path}/{user}", json=rights).raise_for_status()
        host = servers.amqp_url.rpartition("@")[2]
        with (
            contextlib.closing(Publisher(f"amqp://{user}:pw@{host}/{path}", connect_timeout=5.0, timeout=10.0)) as made,
            pytest.raises(Unroutable, match="ACCESS_REFUSED"),
        ):
            send(made, 2)
        api.delete(f"/api/users/{user}").raise_for_status()
