"""Lanes on a real broker: each task in one queue, also while lanes are added, changed and taken away."""

import threading

import pytest

import topology
from dispatch.broker import provision
from dispatch.broker.depth import depth
from dispatch.protocol import names
from dispatch.protocol.copies import delayed_copy, next_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.lanes import NO_LANES, parse_lanes
from dispatch.protocol.message import Message
from dispatch.protocol.retry import Failure, FailureKind, Retry
from support.waiting import eventually

LANES = parse_lanes("bulk=echo,http.request;robots=robot.*")
BULK, ROBOTS = "robot.task.q.bulk", "robot.task.q.robots"
WHERE = {
    "echo": BULK, "http.request": BULK, "robot": ROBOTS, "robot.clean": ROBOTS, "robot.a.b": ROBOTS, "other": names.WORK_QUEUE,
    "echo.more": names.WORK_QUEUE, "http": names.WORK_QUEUE, "robotics": names.WORK_QUEUE, "unknown.type": names.WORK_QUEUE,
}  # fmt: skip


@pytest.fixture
def apply(settings):
    """A function that applies the map of some lanes; the settings that have them."""

    def do(lanes):
        chosen = settings.model_copy(update={"lanes": lanes})
        provision.apply(topology.broker_map(chosen), chosen)
        return chosen

    return do


def message(kind):
    return Message(b"[]", {"id": new_task_id(), "task": kind, "x-seq": 0}, routing_key=names.routing_key(kind))


def taken(channel, queue):
    """The types of what lies in a queue, which is empty afterwards."""
    found = []
    while (got := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(got.headers["task"])
    return found


def send(publisher, kind):
    sent = message(kind)
    publisher.publish(sent, names.TASK_EXCHANGE, sent.routing_key)


def test_each_type_has_one_queue_however_it_comes_there(apply, publisher, channel):
    settings = apply(LANES)
    rung = settings.ladder.rungs[0]
    for kind in WHERE:
        send(publisher, kind)
        failed = next_copy(message(kind), Failure(FailureKind.RETRYABLE, "x", "x"), Retry(rung), 1)
        for copy in (failed, delayed_copy(message(kind), 1)):
            publisher.publish(copy.message, copy.exchange, copy.routing_key)
    queues = {queue: [kind for kind, its in WHERE.items() if its == queue] for queue in WHERE.values()}
    eventually(lambda: all(depth(channel, each).ready >= 3 * len(kinds) for each, kinds in queues.items()), 30)
    found = {queue: sorted(taken(channel, queue)) for queue in queues}

    assert {kind: LANES.queue_of(kind) for kind in WHERE} == WHERE
    assert found == {queue: sorted(kinds * 3) for queue, kinds in queues.items()}
    assert provision.verify(topology.broker_map(settings), settings).differences == ()


def test_lanes_come_change_and_go_while_tasks_come_and_none_is_without_a_queue(apply, publisher, channel):
    apply(NO_LANES)
    over, sent, kinds = threading.Event(), [], ("echo", "robot.clean", "other")

    def flood():
        while not over.is_set():
            for kind in kinds:
                send(publisher, kind)  # raises where it is returned
                sent.append(kind)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        for lanes in (LANES, parse_lanes("bulk=robot.*"), LANES):
            so_far = len(sent)
            chosen = apply(lanes)
            eventually(lambda so_far=so_far: len(sent) > so_far + 9, 20, "more were sent")
    finally:
        over.set()
        sender.join()
    found = [kind for queue in (names.WORK_QUEUE, BULK, ROBOTS) for kind in taken(channel, queue)]

    assert {kind: found.count(kind) >= sent.count(kind) for kind in kinds} == dict.fromkeys(kinds, True)
    for kind in kinds:
        send(publisher, kind)
    assert [taken(channel, queue) for queue in (names.WORK_QUEUE, BULK, ROBOTS)] == [
        ["other"],
        ["echo"],
        ["robot.clean"],
    ]
    assert provision.verify(topology.broker_map(chosen), chosen).drift == 0


def test_a_binding_of_before_is_drift_and_is_removed(apply, channel):
    chosen = apply(LANES)
    channel.queue_bind(names.WORK_QUEUE, names.TASK_EXCHANGE, f"{names.ROUTING_KEY}.#")
    channel.queue_bind(BULK, names.LANES_EXCHANGE, names.routing_key("moved"))
    wanted = topology.broker_map(chosen)
    planned = [(each.action.value, each.kind) for each in provision.plan(wanted, chosen)]
    provision.apply(wanted, chosen)

    assert planned == [("remove", "binding")] * 2
    assert provision.plan(wanted, chosen) == []


def test_lanes_that_are_not_set_any_more_are_extra_and_what_waits_in_them_stays(apply, publisher, channel, settings):
    apply(LANES)
    send(publisher, "echo")
    apply(NO_LANES)
    report = provision.verify(topology.broker_map(settings), settings)
    extra = {each.name for each in report.differences if each.kind == "queue"}

    assert (report.drift, extra) == (0, {BULK, ROBOTS})
    assert taken(channel, BULK) == ["echo"]
