import contextlib
import socket
import threading
import time

import amqp.exceptions
import kombu
import pytest
from pydantic import SecretStr

import topology
from dispatch.broker import provision
from dispatch.broker import queue_stats as queues
from dispatch.broker.depth import Depth, depth, depths
from dispatch.broker.management import Management, ManagementUnavailable
from dispatch.protocol import names
from dispatch.protocol.retry import Ladder
from support.proxy import Proxy
from support.waiting import eventually

#: Seconds within which RabbitMQ's statistics must have caught up; they are collected every five by default.
CAUGHT_UP = 12


@pytest.fixture
def applied(settings):
    provision.apply(topology.broker_map(settings), settings)
    return settings


@pytest.fixture
def channel(applied):
    options = {"confirm_publish": True}
    with kombu.Connection(applied.broker("admin"), transport_options=options) as connection:
        yield connection.default_channel


def send(channel, exchange, **headers):
    message = amqp.Message("{}", application_headers=headers, delivery_mode=2)
    channel.basic_publish(message, exchange, names.routing_key("echo"))


def view(settings, name):
    return next(
        view
        for view in queues.snapshot(topology.broker_map(settings), settings, depth_limits=settings.depth_limits)
        if view.name == name
    )


def test_the_depth_is_exact_at_once(channel):
    for _ in range(3):
        send(channel, names.TASK_EXCHANGE)

    assert depth(channel, names.WORK_QUEUE) == Depth(ready=3, consumers=0)


def test_unacknowledged_messages_and_consumers_are_counted_apart(channel):
    for _ in range(3):
        send(channel, names.TASK_EXCHANGE)
    channel.basic_qos(0, 2, False)
    channel.basic_consume(names.WORK_QUEUE, callback=lambda _: None)

    eventually(lambda: depth(channel, names.WORK_QUEUE) == Depth(1, 1), 5)


def test_the_depth_of_a_queue_that_is_not_there_is_a_404(channel):
    with pytest.raises(amqp.exceptions.NotFound):
        depth(channel, "robot.no.q")


def test_the_snapshot_shows_every_queue_in_the_maps_order(applied):
    views = queues.snapshot(topology.broker_map(applied), applied, depth_limits=applied.depth_limits)

    assert [view.name for view in views] == [queue.name for queue in topology.broker_map(applied).queues]
    roles = ["work", *["rung"] * 3, "lease", "hold", *["delay"] * 4, "dead-tap", "dead-letters"]
    assert [view.role for view in views] == roles
    assert [view.drift for view in views] == [()] * 12


def test_a_view_names_what_is_bound_where_it_goes_and_what_limits_it(applied):
    work, rung = view(applied, "robot.task.q"), view(applied, "robot.retry.q.5m")

    assert (work.ttl, work.max_length, work.delivery_limit, work.policy) == (3600.0, 12_000, 200, "robot.task.q")
    assert (work.guard, rung.guard) == ({"limit": 10_000, "refusing": False}, None)
    assert work.bindings == ({"exchange": "robot.task.topic", "routingKey": "robot.task.dispatch.#", "headers": {}},)
    assert (rung.ttl, rung.dead_letter_exchange, rung.delivery_limit) == (2.0, "robot.task.topic", None)
    assert rung.bindings[0]["headers"] == {"retry-queue": "5m", "x-match": "all"}


def test_the_statistics_show_what_waits_what_is_in_hand_and_what_cannot_come_back(applied, channel):
    for _ in range(3):
        send(channel, names.TASK_EXCHANGE)
    channel.basic_get(names.WORK_QUEUE)
    send(channel, names.RETRY_EXCHANGE, **{"retry-queue": "1m"})
    channel.exchange_delete(names.TASK_EXCHANGE)  # the retry will find no way back

    def caught_up():
        work, rung = view(applied, names.WORK_QUEUE), view(applied, names.rung_queue("1m"))
        assert (work.ready, work.unacked, work.total) == (2, 1, 3)
        assert (rung.ready, rung.unacked, rung.dead_lettering) == (0, 0, 1)
        assert work.publish_rate is not None  # RabbitMQ measures it later than we count
        return True

    eventually(caught_up, CAUGHT_UP, "the statistics stayed behind")


def test_a_queue_that_is_missing_has_no_numbers(applied, channel):
    channel.queue_delete(names.RECORDER_QUEUE)

    tap = view(applied, names.RECORDER_QUEUE)

    assert (tap.ready, tap.consumers, tap.ttl, tap.bindings) == (None, None, None, ())
    assert "queue robot.task.dead.q: not there" in tap.drift


def test_a_queue_of_an_older_ladder_is_shown_as_extra(applied):
    shorter = applied.model_copy(update={"ladder": Ladder(applied.ladder.rungs[:2])})

    old = view(shorter, "robot.retry.q.30m")

    assert (old.role, old.ttl) == ("extra", 3.0)
    assert "not in the map" in old.drift[0]


def test_a_view_as_json_has_the_names_of_the_api(applied):
    shown = view(applied, "robot.task.q").to_json()

    assert {"name", "ready", "unacked", "total", "consumers", "deadLetterExchange", "publishRate", "drift"} <= set(
        shown
    )
    assert shown["asOf"].endswith("Z")
    assert shown["bindings"][0]["routingKey"] == "robot.task.dispatch.#"


def test_a_silent_management_api_is_a_typed_error_within_its_budget(applied):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://guest:guest@127.0.0.1:{silent.getsockname()[1]}"
        asked = applied.model_copy(update={"management_url": SecretStr(url)})
        began = time.monotonic()

        with pytest.raises(ManagementUnavailable, match="did not answer"):
            queues.snapshot(topology.broker_map(asked), asked, depth_limits=asked.depth_limits)

    assert time.monotonic() - began < 2


@contextlib.contextmanager
def answering(settings, answer):
    """Settings whose management API is a thread that answers one connection: ``answer(peer, stop)``."""
    stop = threading.Event()

    def serve():
        peer, _ = server.accept()
        with peer, contextlib.suppress(OSError):
            answer(peer, stop)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://guest:guest@127.0.0.1:{server.getsockname()[1]}"
        yield settings.model_copy(update={"management_url": SecretStr(url)})
        stop.set()
        thread.join()


def test_a_management_api_that_dribbles_is_cut_off_as_well(settings):
    def dribble(peer, stop):
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[")
        while not stop.wait(0.1):
            peer.sendall(b" ")

    with answering(settings, dribble) as slow:
        began = time.monotonic()
        with Management(slow, budget=0.5) as management, pytest.raises(ManagementUnavailable) as caught:
            management.queue_stats()
        took = time.monotonic() - began

    assert "did not answer" in str(caught.value)
    assert took < 2


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("502 Bad Gateway", "answered 502: sad."),
        ("404 Not Found", "is not RabbitMQ's management API"),
        ("200 OK", "did not answer: Expecting value"),
    ],
)
def test_a_management_api_that_answers_no_json_is_a_typed_error(settings, status, expected):
    def answer(peer, _):
        peer.recv(65_536)
        peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nsad.".encode())

    with answering(settings, answer) as proxied, pytest.raises(ManagementUnavailable) as caught:
        queues.snapshot(topology.broker_map(proxied), proxied, depth_limits=proxied.depth_limits)

    assert expected in str(caught.value)


def test_a_queue_that_rabbitmq_has_no_statistics_of_yet_has_its_counts(applied, channel):
    """Right after a declaration, as after a start; the statistics come some seconds later."""
    for _ in range(3):
        send(channel, names.TASK_EXCHANGE)

    def counted():
        work = view(applied, names.WORK_QUEUE)
        return (work.ready, work.unacked, work.total, work.consumers) == (3, 0, 3, 0)

    eventually(counted, 2)  # a queue that takes 250 ms to answer is reported as empty


def test_a_slow_wire_to_the_broker_holds_no_answer_up(applied):
    """Right after a start, when each of the map's thirty queues is asked for."""
    with Proxy.to(applied.broker("gateway")) as proxy:
        proxy.delay(0.6)
        slow = applied.model_copy(update={"broker_url": SecretStr(proxy.url)})
        began = time.monotonic()
        found = queues.snapshot(topology.broker_map(slow), slow, depth_limits=slow.depth_limits)

    assert time.monotonic() - began < 12
    assert {names.WORK_QUEUE, names.DEAD_QUEUE} <= {queue.name for queue in found}


def test_without_the_amqp_port_the_counts_are_unknown_and_no_error(applied):
    url = applied.broker("gateway").replace(f":{applied.broker('gateway').rpartition(':')[2]}", ":1/x")
    found = depths(applied.model_copy(update={"broker_url": SecretStr(url)}), [names.WORK_QUEUE], 5.0)

    assert found == {}
