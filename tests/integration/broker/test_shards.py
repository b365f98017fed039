"""Shards of the default lane on a real broker: each copy of a task in the queue of its shard, and in no other."""

import contextlib
import threading

import pytest

import topology
from dispatch.broker import provision
from dispatch.broker.depth import DepthGauge, depth
from dispatch.broker.queue_stats import snapshot
from dispatch.protocol import names
from dispatch.protocol.copies import delayed_copy, next_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.lanes import NO_LANES, parse_lanes
from dispatch.protocol.message import SHARD, Message
from dispatch.protocol.retry import Failure, FailureKind, Retry
from support.waiting import eventually

FAILED = Failure(FailureKind.RETRYABLE, "x", "x")
QUEUES = [names.shard_queue(shard) for shard in range(3)]


@pytest.fixture
def apply(settings):
    """A function that applies the map with some shards; the settings that have them."""

    def do(shards, lanes=NO_LANES):
        chosen = settings.model_copy(update={"shards": shards, "lanes": lanes})
        provision.apply(topology.broker_map(chosen), chosen)
        return chosen

    return do


def message(shard, kind="echo"):
    own = {} if shard is None else {SHARD: shard}
    headers = {"id": new_task_id(), "task": kind, "x-seq": 0, **own}
    return Message(b"[]", headers, routing_key=names.routing_key(kind))


def send(publisher, shard, kind="echo"):
    sent = message(shard, kind)
    publisher.publish(sent, names.TASK_EXCHANGE, sent.routing_key)


def taken(channel, queue):
    """The shards that the messages in a queue have; it is empty afterwards."""
    found = []
    while (got := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(got.headers.get(SHARD))
    return found


def test_every_copy_of_a_task_is_in_the_queue_of_its_shard(apply, publisher, channel):
    settings = apply(3)
    for shard in ("0", "1", "2"):
        send(publisher, shard)
        failed = next_copy(message(shard), FAILED, Retry(settings.ladder.rungs[0]), 1)
        for copy in (failed, delayed_copy(message(shard), 1)):
            publisher.publish(copy.message, copy.exchange, copy.routing_key)
    eventually(lambda: all(depth(channel, queue).ready == 3 for queue in QUEUES), 30, "all are back")

    assert [taken(channel, queue) for queue in QUEUES] == [["0"] * 3, ["1"] * 3, ["2"] * 3]
    assert provision.verify(topology.broker_map(settings), settings).differences == ()


@pytest.mark.parametrize("shard", [None, "", "3", "64", "-1", "x" * 300, 1, True, ["1"]])
def test_a_message_of_no_shard_that_there_is_goes_to_the_first_one(apply, publisher, channel, shard):
    apply(3)
    send(publisher, shard)

    assert [len(taken(channel, queue)) for queue in QUEUES] == [1, 0, 0]


def test_shards_come_and_change_while_tasks_come_and_none_is_without_a_queue(apply, publisher, channel):
    apply(1)
    over, sent = threading.Event(), []

    def flood():
        while not over.is_set():
            for shard in ("0", "1", "2"):
                send(publisher, shard)  # raises where it is returned
                sent.append(shard)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        for shards in (2, 3, 2, 3):
            so_far = len(sent)
            chosen = apply(shards)
            eventually(lambda so_far=so_far: len(sent) > so_far + 9, 20, "more were sent")
    finally:
        over.set()
        sender.join()
    found = [shard for queue in QUEUES for shard in taken(channel, queue)]

    assert all(found.count(shard) >= sent.count(shard) for shard in ("0", "1", "2"))
    for shard in ("0", "1", "2"):
        send(publisher, shard)
    assert [taken(channel, queue) for queue in QUEUES] == [["0"], ["1"], ["2"]]
    assert provision.verify(topology.broker_map(chosen), chosen).drift == 0


def test_with_lanes_only_the_default_lane_has_shards_in_whatever_order_they_come(apply, publisher, channel):
    lanes = parse_lanes("bulk=echo")
    for shards, chosen in ((2, NO_LANES), (2, lanes), (1, lanes), (2, lanes)):
        settings = apply(shards, chosen)
    for shard in ("0", "1"):
        send(publisher, shard)
        send(publisher, shard, "other")

    assert [taken(channel, queue) for queue in ("robot.task.q.bulk", *QUEUES[:2])] == [["0", "1"], ["0"], ["1"]]
    assert provision.verify(topology.broker_map(settings), settings).drift == 0


def test_the_guard_counts_what_is_ready_in_all_shards(apply, publisher):
    settings = apply(3)
    for shard in ("0", "1", "1", "2"):
        send(publisher, shard)
    with contextlib.closing(DepthGauge(settings, settings.lane_queues["default"])) as gauge:
        ready = gauge.read()

    def shown():
        views = snapshot(topology.broker_map(settings), settings, depth_limits=dict.fromkeys(QUEUES, 3))
        work = [view for view in views if view.role == "work"]
        return work if sum(view.ready or 0 for view in work) == 4 else None

    work = eventually(shown, 20, "RabbitMQ's statistics have them")

    assert ready == 4
    assert [view.name for view in work] == QUEUES
    assert {(view.lane, view.guard["refusing"]) for view in work} == {(None, True)}
