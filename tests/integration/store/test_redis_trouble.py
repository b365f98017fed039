"""A Redis that is full, read-only or killed: unavailable, and never a mistake of ours."""

import os
import signal
import subprocess

import pytest
import redis
from pydantic import SecretStr

from dispatch.errors import StoreUnavailable
from dispatch.protocol.ids import new_task_id
from support.case import Case
from support.waiting import eventually


@pytest.fixture
def own_case(settings, tmp_path):
    """A case on a Redis of its own, which may be mistreated, and a function that starts it again."""
    address = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(address), "--dir", str(tmp_path)]
    command += ["--save", "", "--appendonly", "yes"]
    started = []

    def start():
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        eventually(lambda: _answers(address), 10, "Redis answers")
        return started[-1]

    start()
    own = settings.model_copy(update={"redis_url": SecretStr(f"unix://{address}")})
    made = Case(own)
    yield made, start
    made.close()
    for process in started:
        process.kill()
        process.wait()


def _answers(address):
    client = redis.Redis(unix_socket_path=str(address))
    try:
        return client.ping()
    except redis.ConnectionError:
        return False
    finally:
        client.close()


@pytest.mark.parametrize(
    ("trouble", "relief", "refused"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), 1),  # only what is new
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), 3),
    ],
    ids=["full", "read-only"],
)
def test_a_redis_that_cannot_write_is_unavailable_and_not_our_mistake(own_case, trouble, relief, refused):
    case, _ = own_case
    case.accept()
    ticket = case.run()
    another = case.message.with_headers(id=new_task_id())
    case.redis.execute_command(*trouble)
    try:
        for write in (
            lambda: case.store.accept(another, max_attempts=4, idempotency_key=None),  # many commands at once
            lambda: case.claims.complete(case.message, ticket, {}, 4),
            lambda: case.dead_letters.discard(case.task_id, by="me"),
        )[:refused]:
            with pytest.raises(StoreUnavailable):
                write()
    finally:
        case.redis.execute_command(*relief)

    assert case.claims.complete(case.message, ticket, {}, 4)


def test_a_redis_that_was_killed_is_used_again_when_it_is_back(own_case):
    case, start = own_case
    case.accept()
    ticket = case.run()
    for kill in (True, False):
        if kill:
            process = case.redis.info("server")["process_id"]
            os.kill(process, signal.SIGKILL)
            eventually(lambda: _gone(case), 10, "Redis is gone")
            start()
        else:
            case.redis.script_flush()
        assert eventually(lambda: _renewed(case, ticket), 5, "the lease is renewed")

    assert case.claims.complete(case.message, ticket, {}, 4)


def _gone(case):
    try:
        case.claims.renew({case.ticket(): (case.message, 4)})
    except StoreUnavailable:
        return True
    return False


def _renewed(case, ticket):
    try:
        return case.claims.renew({ticket: (case.message, 4)}).lost == []
    except StoreUnavailable:
        return False
