"""Lists read what they show, however much else the records hold."""

import contextlib
import dataclasses
import threading

import pydantic
import pytest

from dispatch.deadletters import janitor
from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.record import State
from dispatch.store import index
from dispatch.store.claims import Ticket
from support.proxy import DOWN, UP, Proxy
from support.stores import Stores

#: Bytes of each payload, and how many tasks there are.
PAYLOAD, TASKS = 200_000, 200


class Wire:
    """Stores whose Redis is behind a proxy that counts what Redis sends."""

    def __init__(self, settings, proxy):
        self.stores = Stores(settings.model_copy(update={"redis_url": pydantic.SecretStr(proxy.url)}), timeout=10)
        self.sent = 0
        self._lock = threading.Lock()
        self._before = {}
        proxy.watch = self._see

    def before(self, command, act):
        """Act once, before a command that is on its way reaches Redis."""
        self._before[command] = act

    def during(self, read):
        """What is read, and the bytes that Redis sent for it."""
        before = self.sent
        return read(), self.sent - before

    def _see(self, direction, data):
        if direction == DOWN:
            with self._lock:
                self.sent += len(data)
        for command in [name for name in self._before if direction == UP and name in data]:
            self._before.pop(command)()


@pytest.fixture
def wire(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy:
        made = Wire(settings, proxy)
        with contextlib.closing(made.stores):
            made.stores.redis.run(("PING",))
            yield made


@pytest.fixture
def stores(settings):
    with contextlib.closing(Stores(settings, timeout=10)) as made:
        yield made


def accept(stores, number, size=10, type="echo"):
    """One task that waits in the work queue."""
    headers = {
        "id": new_task_id(), "task": type, "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-principal": "ada",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-accepted-at": 1_700_000_000_000 + number, "x-request-id": "rq",
    }  # fmt: skip
    message = Message(
        f'[[{{"message":"{"x" * size}"}}],{{}},{{}}]'.encode(), headers, routing_key="robot.task.dispatch.echo"
    )
    stores.tasks.accept(message, max_attempts=4, idempotency_key=f"key-{number}")
    stores.tasks.mark_published(message, queue="q", max_attempts=4, idempotency_key=None)
    return message


def run(stores, message):
    ticket = Ticket(f"owner-{message.task_id}", f"fence-{message.task_id}", "w@test")
    stores.claims.claim(message, ticket, 4)
    stores.claims.progress(message.task_id, ticket.fence, {"percent": 50, "message": "half"})
    return ticket


def succeed(stores, message, size=10):
    assert stores.claims.complete(message, run(stores, message), {"echo": "y" * size}, 4)


def die(stores, message):
    stores.dead_letters.record(message, reason=Reason.PERMANENT, max_attempts=4)


def whole(stores, messages):
    """Their records as a list shows them: all but their messages."""
    records = stores.tasks.get_many([message.task_id for message in messages])
    return [dataclasses.replace(record, message=None, decision=None) for record in records]


def pages(read):
    """Every page of a list."""
    cursor, found = None, []
    while True:
        page = read(cursor)
        found.append(page.items)
        cursor = page.next
        if cursor is None:
            return found


def test_a_list_of_heavy_tasks_costs_what_it_shows_and_shows_what_it_did(stores, wire):
    waiting = [accept(stores, number, PAYLOAD) for number in range(TASKS - 3)]
    running, done, dead = (accept(stores, number, PAYLOAD) for number in range(TASKS - 3, TASKS))
    run(stores, running)
    succeed(stores, done)
    die(stores, dead)

    one, for_one = wire.during(lambda: wire.stores.tasks.list(principal="ada", status="RUNNING", limit=1))
    rare, for_rare = wire.during(lambda: wire.stores.tasks.list(principal="ada", status="SUCCESS", limit=50))
    every, for_every = wire.during(lambda: wire.stores.tasks.list(principal="ada", limit=200))
    letters, for_letters = wire.during(lambda: wire.stores.dead_letters.list(DeadLetterFilter(type="echo"), limit=200))

    assert one.items == whole(stores, [running])
    assert rare.items == whole(stores, [done])
    assert rare.items[0].result == {"echo": "y" * 10}
    assert every.items == whole(stores, [dead, done, running, *reversed(waiting)])
    assert [len(record.progress or ()) for record in every.items[:4]] == [0, 2, 2, 0]
    assert letters.items == whole(stores, [dead])
    # Of 42 MB. A brief and its entry are some hundred bytes, a listed record less than a thousand.
    assert max(for_one, for_rare) < 40_000
    assert for_letters < 2_000
    assert for_every < 200_000


def test_the_other_readers_of_many_tasks_do_not_read_payloads(stores, wire):
    messages = [accept(stores, number, PAYLOAD) for number in range(20)]
    for message in messages:
        die(stores, message)
    copy = redriven_copy(messages[7])
    stores.dead_letters.redrive(messages[7], copy, by="me", max_attempts=4)
    ids = [message.task_id for message in messages]

    redriven, sent = wire.during(lambda: janitor._being_redriven(wire.stores.tasks, ids))

    assert redriven == {messages[7].task_id}
    assert sent < 4_000


def test_large_results_end_a_page_early_and_none_is_left_out(stores, wire):
    size = 100_000
    messages = [accept(stores, number) for number in range(30)]
    for message in messages:
        succeed(stores, message, size)

    found, sent = wire.during(lambda: pages(lambda cursor: wire.stores.tasks.list(limit=200, cursor=cursor)))
    first, for_first = wire.during(lambda: wire.stores.tasks.list(limit=200))
    few = wire.stores.tasks.list(limit=2)

    assert [record for page in found for record in page] == whole(stores, reversed(messages))
    assert [len(page) for page in found] == [11, 11, 8]
    assert first.items == found[0]
    assert for_first < index.PAGE_BYTES + size + 40_000
    assert sent < 30 * size + 100_000
    assert [record.task_id for record in few.items] == [message.task_id for message in messages[:-3:-1]]


def test_a_single_result_above_the_limit_is_a_page_of_its_own(stores, monkeypatch):
    monkeypatch.setattr(index, "PAGE_BYTES", 10)
    messages = [accept(stores, number) for number in range(3)]
    for message in messages:
        succeed(stores, message, 100)

    assert [len(page) for page in pages(lambda cursor: stores.tasks.list(cursor=cursor))] == [1, 1, 1]


def test_a_filtered_list_goes_on_over_the_batches_as_before(stores):
    messages = [accept(stores, number // 50) for number in range(450)]  # many with the same score
    wanted = messages[::15]
    for message in wanted:
        run(stores, message)

    found = pages(lambda cursor: stores.tasks.list(state="RUNNING", limit=7, cursor=cursor))

    assert {record.task_id for page in found for record in page} == {message.task_id for message in wanted}
    assert sum(map(len, found)) == len(wanted)
    assert [len(page) for page in found] == [7, 7, 7, 7, 2]


def test_a_record_lost_between_choosing_and_reading_leaves_a_gap_that_the_next_one_fills(stores, wire):
    messages = [accept(stores, number) for number in range(5)]
    lost = messages[3]
    key = stores.redis.keys.task(lost.task_id).record
    wire.before(b"HSTRLEN", lambda: stores.redis.run(("DEL", key)))

    page = wire.stores.tasks.list(limit=3)

    assert [record.task_id for record in page.items] == [messages[number].task_id for number in (4, 2, 1)]
    assert [record.task_id for record in wire.stores.tasks.list(limit=3, cursor=page.next).items] == [
        messages[0].task_id
    ]
    assert stores.redis.run(("ZCARD", stores.redis.keys.index(None)))[0] == 5  # the entry goes with the next reading
    assert len(wire.stores.tasks.list().items) == 4
    assert stores.redis.run(("ZCARD", stores.redis.keys.index(None)))[0] == 4


def test_a_task_that_ends_between_choosing_and_reading_is_not_listed_as_what_it_was(stores, wire):
    messages = [accept(stores, number) for number in range(3)]
    tickets = [run(stores, message) for message in messages]
    wire.before(b"HSTRLEN", lambda: stores.claims.complete(messages[1], tickets[1], {"a": 1}, 4))

    page = wire.stores.tasks.list(state="RUNNING")

    assert [(record.task_id, record.state) for record in page.items] == [
        (messages[2].task_id, State.RUNNING),
        (messages[0].task_id, State.RUNNING),
    ]
