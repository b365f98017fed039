"""Why Redis can't be used: each reason, from a real server that has it, without a password; and once in the log."""

import contextlib
import subprocess

import pytest
import structlog.testing
from pydantic import SecretStr

from dispatch.config.groups import RedisSettings
from dispatch.errors import StoreError, StoreFull, StoreUnavailable
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logs
from support import redises
from support.cases import each
from support.proxy import Proxy
from support.waiting import eventually

WRITE = ("SET", "{a}b", "1")


@pytest.fixture(scope="module")
def server():
    """A Redis that may be mistreated, with a user who may read only."""
    with redises.single() as server:
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "reader", "on", ">hush", "~*", "+@read", "+ping")
        yield server


@pytest.fixture(scope="module")
def places(server, servers):
    with Proxy.to(server.url) as silent:
        silent.hold()
        yield {
            "redis": f"127.0.0.1:{server.port}",
            "amqp": servers.amqp_url.rpartition("@")[2],
            "http": servers.management_url.rpartition("@")[2],
            "silent": f"127.0.0.1:{silent.port}",
        }


@contextlib.contextmanager
def handle(url, timeout=0.3, share=False):
    made = RedisHandle(RedisSettings(redis_url=SecretStr(url)), timeout=timeout, share=share)
    try:
        yield made
    finally:
        made.close()


def trouble_of(url, share=False):
    with handle(url, share=share) as made, pytest.raises(StoreUnavailable) as caught:
        made.run(WRITE)
    return caught.value


@each(
    ("place", "reason"),
    [
        ("redis://nobody:hush@{redis}/0", "it does not accept this user and password"),
        ("redis://reader:hush@{redis}/0", "its user lacks a right"),
        ("redis://no-such-host.invalid:1/0", "its host name "),
        ("redis://127.0.0.1:1/0", "connection refused: nothing listens at its port"),
        ("redis://:hush@{silent}/0", "it did not answer in time"),
        ("redis://{amqp}/0", "something that is not Redis answers at its port"),
        ("redis://{http}/0", "something that is not Redis answers at its port"),
        ("redis://{redis}/99", "it has no database of that number"),
        ("rediss://{redis}/0", "it did not answer the TLS handshake; is its port one without TLS?"),
        ("redis+cluster://{redis}", "it is no Redis Cluster"),
        ("redis+sentinel://{redis}/robots", "no Sentinel answers at its port"),
        ("redis+sentinel://127.0.0.1:1/robots", "connection refused: nothing listens at its port"),
        ("unix:///no/such/socket", "its socket does not exist"),
    ],
)
def test_the_reason_is_known_and_the_password_is_not_shown(place, reason, places):
    exc = trouble_of(place.format(**places))
    shared = trouble_of(place.format(**places), share=True)

    assert exc.trouble.public.startswith(f"Redis: {reason}"), exc.trouble
    assert shared.trouble.public.startswith(f"Redis: {reason}"), shared.trouble
    assert exc.trouble.where in place.format(**places).replace(":hush@", "@")
    assert "hush" not in f"{exc.trouble} {exc}"
    assert "127.0.0.1" not in str(exc)  # its text may become part of a record


@each(
    ("ill", "well", "reason", "kind"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "it is a replica and takes no writes", StoreUnavailable),
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "its memory is full (maxmemory)", StoreFull),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0"), "it has too few replicas to take writes", StoreUnavailable),
    ],
)  # fmt: skip
def test_a_redis_that_answers_and_refuses_is_unavailable_with_its_reason(ill, well, reason, kind, server):
    logs.configure()
    with handle(server.url) as made, server.client() as admin, structlog.testing.capture_logs() as lines:
        made.run(WRITE)
        admin.execute_command(*ill)
        try:
            for _ in range(3):
                with pytest.raises(StoreUnavailable) as caught:
                    made.run(WRITE)
                made.run(("PING",))  # is carried out, and no sign that all is well
        finally:
            admin.execute_command(*well)
        made.run(WRITE)

    assert (type(caught.value), caught.value.trouble.reason) == (kind, reason)
    assert [(line["event"], line["reason"]) for line in lines] == [("Redis refuses", reason)]


def test_a_redis_that_loads_its_data_is_named(server):
    """Slowed down, so that it takes long enough to be met."""
    with server.client() as admin:
        admin.execute_command("CONFIG", "SET", "rdbcompression", "no")  # it looks at its clients at each KiB
        for number in range(40):
            admin.set(f"k{number}", "x" * 4_000)
        admin.execute_command("BGREWRITEAOF")
        eventually(lambda: not admin.info("persistence")["aof_rewrite_in_progress"], 10, "it is rewritten")
    server.kill()
    server.command += ["--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024"]
    with server.log.open("ab") as output:
        server.process = subprocess.Popen(server.command, stdout=output, stderr=output)
    with handle(server.url, timeout=1.0) as made:
        eventually(lambda: _reason(made) == "it is loading its data", 10, lambda: server.log.read_text()[-2_000:])
        eventually(lambda: _reason(made) == "", 20, "it is done")


def _reason(made):
    try:
        made.run(WRITE)
    except StoreUnavailable as exc:
        return exc.trouble.reason
    return ""


def test_a_mistake_of_ours_is_no_outage(server):
    with handle(server.url) as made:
        made.run(WRITE)
        with pytest.raises(StoreError, match="WRONGTYPE") as caught:
            made.run(("LPUSH", "{a}b", "x"))

    assert type(caught.value) is StoreError
    assert caught.value.trouble is None
