"""A full work queue: a connection that is refused from its first message on is replaced, and workers go on."""

import contextlib
import time

import pytest
from kombu import Connection

from dispatch.broker import publisher as module
from dispatch.broker.management import Management
from dispatch.broker.model import Policy
from dispatch.broker.publisher import Publisher
from dispatch.errors import Nacked, NotSent
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import running_worker

PAYLOAD = {"message": "x"}


def _limit(bench, messages):
    definition = {"max-length": messages}
    with Management(bench.settings) as management:
        management.set_policy(Policy("zz-full", f"^{names.WORK_QUEUE}$", definition, 99, "queues"))


@pytest.fixture
def full(bench):
    """The work queue has no room; a call makes room."""
    _limit(bench, 1)
    eventually(lambda: _nacked(bench), 10, "the queue is full")
    return lambda: _limit(bench, 1_000)


def _nacked(bench):
    try:
        bench.submit("echo", PAYLOAD)
    except Nacked:
        return True
    return False


@contextlib.contextmanager
def _fresh(bench):
    opened = []
    made = Publisher(bench.settings.broker("gateway"), on_open=opened.append)
    try:
        yield made, opened
    finally:
        made.close()


def _verdict(publisher, message):
    try:
        publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)
    except (Nacked, NotSent) as exc:  # InDoubt would fail the test
        return type(exc)
    return None


def _message(bench):
    with Connection(bench.settings.broker("admin")) as connection:
        connection.default_channel.queue_purge(names.WORK_QUEUE)
    return bench.message(bench.submit("echo", PAYLOAD))


def test_a_connection_that_is_only_refused_is_replaced_without_a_doubt(bench, full):
    message = _message(bench)
    eventually(lambda: _nacked(bench), 10, "the queue is full again")
    with _fresh(bench) as (publisher, opened):
        verdicts = set()
        eventually(lambda: verdicts.add(_verdict(publisher, message)) or len(opened) > 1, 10, "a second connection")
        full()
        eventually(lambda: _verdict(publisher, message) is None, 10, "there is room")

    assert None not in verdicts
    assert Nacked in verdicts


def test_a_connection_that_has_taken_messages_stays_when_the_queue_is_full(bench, full):
    message = _message(bench)
    with Connection(bench.settings.broker("admin")) as connection:
        connection.default_channel.queue_purge(names.WORK_QUEUE)
    with _fresh(bench) as (publisher, opened):
        eventually(lambda: _verdict(publisher, message) is None, 10, "it takes one")
        eventually(lambda: _verdict(publisher, message) is Nacked, 10, "the queue is full")
        until = time.monotonic() + 3 * module.REFUSED
        verdicts = set()
        eventually(lambda: verdicts.add(_verdict(publisher, message)) or time.monotonic() > until, 10, "time passes")

    assert len(opened) == 1
    assert verdicts <= {Nacked, None}
    full()


def test_copies_for_the_full_work_queue_do_not_keep_it_full_in_the_hands_of_all_workers(bench):
    prefetch = bench.settings.concurrency_max * bench.settings.prefetch_multiplier
    hurried = [bench.submit("echo", PAYLOAD, delay=2) for _ in range(prefetch)]
    with _fresh(bench) as (gone, _):
        gone.close()
        for task_id in hurried:  # recorded, and not published: the copies in the delay levels are overtaken by none
            with pytest.raises(NotSent):
                bench.stores.send_now(gone).send(task_id, {State.DELAYED}, "sent-now", by="op")
    eventually(lambda: bench.depth(names.WORK_QUEUE) == prefetch, 20, "they are at the head of the work queue")
    behind = [bench.submit("echo", PAYLOAD) for _ in range(3)]
    _limit(bench, 1)
    eventually(lambda: _nacked(bench), 10, "the queue is full")
    with running_worker(bench.settings, abrupt=True):
        first = {bench.finished(task_id).state for task_id in behind}
        _limit(bench, 1_000)
        then = {bench.finished(task_id, 60).state for task_id in hurried}

    assert (first, then) == ({State.SUCCEEDED}, {State.SUCCEEDED})
    assert {bench.hops(task_id).count("started") for task_id in hurried} == {1}
