"""The stored message lies beside its record, and leaves when no copy of it can be needed any more."""

import contextlib

import pydantic
import pytest

from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.claims import ClaimAnswer
from support.proxy import DOWN, Proxy
from support.stores import Stores

SECRET = "sesame-open-yourself"
BODY = f'[[{{"message":"x","headers":{{"authorization":"Bearer {SECRET}"}}}}],{{}},{{}}]'.encode()
REFUSED = ErrorInfo("queue-full", "it is full", retryable=True)


@pytest.fixture
def task(case):
    """A case whose payload has a secret."""
    case.message = Message(BODY, case.message.headers, routing_key=case.message.routing_key)
    return case


def secrets(task):
    """The keys in which the payload's secret lies."""
    read = {"string": task.redis.get, "hash": task.redis.hgetall, "list": lambda key: task.redis.lrange(key, 0, -1)}
    keys = task.stores.redis.keys.task(task.task_id)
    held = {name: key for name, key in keys._asdict().items() if task.redis.exists(key)}
    return [name for name, key in held.items() if SECRET in str(read[task.redis.type(key)](key))]


def as_before(task):
    """The record as the version before wrote it: its message is a field of it."""
    keys = task.stores.redis.keys.task(task.task_id)
    task.redis.hset(keys.record, "message", task.redis.getdel(keys.message))


@pytest.mark.parametrize("written_by", ["this", "before"])
def test_the_message_leaves_with_success_with_the_refusal_and_with_the_discard_and_stays_until_then(task, written_by):
    def start():
        task.wipe()
        task.store.accept(task.message, max_attempts=4, idempotency_key=None)
        if written_by == "before":
            as_before(task)

    expected = ["record"] if written_by == "before" else ["message"]
    start()
    accepted = secrets(task)
    assert task.store.reject(task.message, error=REFUSED, idempotency_key=None)
    rejected = secrets(task)
    start()
    ticket = task.run()
    running = secrets(task)
    assert task.claims.complete(task.message, ticket, {"a": 1}, 4)
    succeeded = secrets(task)
    start()
    task.die()
    dead = secrets(task)
    assert task.dead_letters.discard(task.task_id, by="op")

    assert (accepted, running, dead) == (expected, expected, expected)
    assert (rejected, succeeded, secrets(task)) == ([], [], [])
    assert task.record().state is State.DEAD_LETTERED


@pytest.mark.parametrize("written_by", ["this", "before"])
def test_a_dead_letter_keeps_what_its_redrive_needs_without_an_end(task, written_by):
    task.accept()
    if written_by == "before":
        as_before(task)
    letter = task.die()
    task.dead_letters.record(letter, reason=Reason.PERMANENT, max_attempts=4)
    whole = task.store.whole(task.task_id)
    keys = task.stores.redis.keys.task(task.task_id)

    assert whole.message == task.message
    assert max(task.redis.ttl(keys.message), task.redis.ttl(keys.record)) == -1
    task.dead_letters.redrive(letter, redriven_copy(letter), by="op", max_attempts=4)
    assert task.store.whole(task.task_id).message == task.message
    if written_by == "this":  # a worker of the version before would leave it behind
        assert 0 < task.redis.ttl(keys.message) <= 60 * 86_400


def test_what_leads_out_of_an_end_again_brings_the_message_along(task):
    """Redis lost its last second: it has the discard no longer, or not the redrive that a copy comes from."""
    task.accept()
    letter = task.die()
    task.dead_letters.discard(task.task_id, by="op")
    next_cycle = redriven_copy(letter).message
    claimed = task.claim(next_cycle)
    running = task.store.whole(task.task_id)
    task.wipe()
    task.accept()
    task.dead_letters.record(task.message, reason=Reason.PERMANENT, max_attempts=4)
    task.dead_letters.discard(task.task_id, by="op")
    task.dead_letters.record(next_cycle, reason=Reason.PERMANENT, max_attempts=4)
    dead = task.store.whole(task.task_id)

    assert claimed.answer is ClaimAnswer.RUN
    assert (running.state, running.message.body, running.discarded) == (State.RUNNING, BODY, False)
    assert (dead.state, dead.message.body, dead.discarded) == (State.DEAD_LETTERED, BODY, False)


class Idle:
    """A publisher that must not be asked."""

    def publish(self, *_):
        raise AssertionError("nothing is certain yet")


def test_a_task_is_read_and_swept_without_its_payload(settings, case):
    sent = 0

    def watch(direction, data):
        nonlocal sent
        sent += len(data) if direction == DOWN else 0

    messages = [
        Message(b'[[{"message":"%s"}],{},{}]' % (b"x" * 250_000), {**case.message.headers, "id": new_task_id()})
        for _ in range(20)
    ]
    for message in messages:
        case.store.accept(message, max_attempts=4, idempotency_key=None)
        case.store.mark_published(message, queue="q", max_attempts=4, idempotency_key=None)
        case.stores.reminders.set(message.task_id, 0)
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy:
        behind = settings.model_copy(update={"redis_url": pydantic.SecretStr(proxy.url)})
        with contextlib.closing(Stores(behind, timeout=10)) as stores:
            stores.redis.run(("PING",))
            proxy.watch = watch
            record = stores.tasks.get(messages[0].task_id)
            for_one, sent = sent, 0
            swept = stores.sweeper(Idle()).sweep()

    assert (record.state, record.message, swept) == (State.QUEUED, None, 20)
    assert for_one < 1_000  # of 250,000
    assert sent < 20_000  # of 5,000,000
