"""Why RabbitMQ can't be used: each reason, from a real server that has it, without a password."""

import contextlib
import socket
import threading

import pytest

from dispatch.broker import connections, provision
from dispatch.broker.publisher import Publisher
from dispatch.config.tls import BrokerAddress
from support.cases import each
from support.proxy import Proxy
from support.waiting import eventually

LIMITS = {"connect_timeout": 0.5, "transport_options": {"read_timeout": 0.5, "write_timeout": 0.5}}


@pytest.fixture(scope="module")
def places(servers, module_settings):
    """Parts of URLs: the real broker's, and those of what is none."""
    url = module_settings.broker("admin")
    host, _, name = url.rpartition("@")[2].partition("/")
    with servers.management() as api:
        api.put("/api/users/stranger", json={"password": "hush", "tags": ""}).raise_for_status()
    with Proxy.to(url) as silent, _closing() as closing:
        silent.hold()
        yield {
            "broker": host,
            "vhost": name,
            "redis": servers.redis_url.removeprefix("redis://").partition("/")[0],
            "http": servers.management_url.rpartition("@")[2],
            "silent": f"127.0.0.1:{silent.port}",
            "closing": f"127.0.0.1:{closing}",
        }
    with servers.management() as api:
        api.delete("/api/users/stranger").raise_for_status()


@contextlib.contextmanager
def _closing():
    """A server that closes each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@each(
    ("place", "reason"),
    [
        ("guest:guest@{broker}/no-such-vhost", "its vhost does not exist"),
        ("stranger:hush@{broker}/{vhost}", "its user has no access to the vhost"),
        ("guest:hush@{broker}/{vhost}", "it does not accept this user and password"),
        ("nobody:hush@{broker}/{vhost}", "it does not accept this user and password"),
        ("guest:hush@no-such-host.invalid/{vhost}", "its host name "),  # unknown, or without a name server to ask
        ("guest:hush@127.0.0.1:1/{vhost}", "connection refused: nothing listens at its port"),
        ("guest:hush@{silent}/{vhost}", "it did not answer in time"),
        ("guest:hush@{closing}/{vhost}", "it closed the connection"),
        ("guest:hush@{redis}/{vhost}", "something that does not speak AMQP answers at its port"),
        ("guest:hush@{http}/{vhost}", "something that does not speak AMQP answers at its port"),
    ],
)
def test_the_reason_is_known_and_the_password_is_not_shown(place, reason, places):
    address = BrokerAddress(f"amqp://{place.format(**places)}")
    with (
        connections.connection(address, **LIMITS) as connection,
        pytest.raises(provision.BrokerUnreachable) as caught,
    ):
        provision.connect(connection, address)
    trouble = caught.value.trouble

    assert trouble.public.startswith(f"RabbitMQ: {reason}")
    assert f"RabbitMQ at {trouble.where}: {reason}" in str(caught.value)
    assert trouble.where == place.format(**places).replace(":guest@", "@").replace(":hush@", "@")
    assert "hush" not in f"{trouble} {caught.value}"


@each(
    ("place", "reason"),
    [
        ("guest:guest@{broker}/no-such-vhost", "its vhost does not exist"),
        ("guest:hush@{broker}/{vhost}", "it does not accept this user and password"),
        ("guest:hush@{http}/{vhost}", "something that does not speak AMQP answers at its port"),
    ],
)
def test_a_publisher_has_the_reason(place, reason, places):
    made = Publisher(f"amqp://{place.format(**places)}", connect_timeout=0.2)
    made.start()
    try:
        eventually(lambda: made.trouble and made.trouble.reason == reason, 15, lambda: str(made.trouble))
    finally:
        made.close()


def test_tls_on_a_port_without_it_is_named(places):
    address = BrokerAddress(f"amqps://guest:hush@{places['broker']}/robot")
    with (
        connections.connection(address, **LIMITS) as connection,
        pytest.raises(provision.BrokerUnreachable) as caught,
    ):
        provision.connect(connection, address)

    assert caught.value.trouble.reason == "TLS failed: wrong version number; is its port one without TLS?"
