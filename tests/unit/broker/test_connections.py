import ast
import contextlib
import fcntl
import resource
import socket
import ssl
from pathlib import Path

import kombu
import pytest

import dispatch
from dispatch.broker import connections
from dispatch.config.tls import BrokerAddress, Tls

ROOT = Path(dispatch.__file__).parents[1]

#: May call kombu's or py-amqp's own: the one place, and a producer that never connects.
_MAY = {"dispatch/broker/connections.py", "dispatch/broker/celery_producer.py"}


def test_no_other_module_makes_a_connection():
    modules = [
        *ROOT.glob("dispatch/**/*.py"),
        *ROOT.glob("launcher/*.py"),
        *ROOT.glob("*.py"),
        *ROOT.glob("tasks/*.py"),
    ]
    made = {
        f"{module.relative_to(ROOT)}:{node.lineno}"
        for module in modules
        if str(module.relative_to(ROOT)) not in _MAY
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"Connection", "kombu.Connection", "amqp.Connection", "BrokerConnection"}
    }

    assert made == set()


@pytest.mark.parametrize("make", [kombu.Connection, connections.connection])
def test_every_amqps_connection_of_the_process_is_verified(make):
    connection = make("amqps://h1/v;amqps://h2/v")

    assert isinstance(connection.transport, connections.TlsTransport)
    connection.maybe_switch_next()
    assert isinstance(connection.transport, connections.TlsTransport)
    assert connection.transport.default_connection_params["port"] == 5671


class _Opened(Exception):
    pass


def test_each_host_is_verified_by_its_own_name(monkeypatch):
    seen = []

    def connect(connection):
        seen.append((connection.host, dict(connection.ssl)))
        raise _Opened

    monkeypatch.setattr("amqp.Connection.connect", connect)
    connection = connections.connection(BrokerAddress("amqps://localhost:2/v;amqps://h2:1/v", Tls(ca="ca.pem")))
    for _ in range(3):
        with pytest.raises(_Opened):
            connection.transport.establish_connection()
        with pytest.raises(_Opened):  # the same connection once more
            connection.transport.establish_connection()
        connection.maybe_switch_next()

    assert [(host, options["server_hostname"]) for host, options in seen[::2]] == [
        ("127.0.0.1:2", "localhost"),
        ("h2:1", "h2"),
        ("127.0.0.1:2", "localhost"),
    ]
    assert seen[::2] == seen[1::2]
    assert {options["ca_certs"] for _, options in seen} == {"ca.pem"}
    assert {options["cert_reqs"] for _, options in seen} == {ssl.CERT_REQUIRED}
    assert {options["tls_minimum_version"] for _, options in seen} == {ssl.TLSVersion.TLSv1_2}


def test_a_name_that_is_set_is_every_hosts():
    options = connections.connection(BrokerAddress("amqps://h1/v", Tls(server_name="rabbit"))).ssl

    assert connections.verified(options, "h1")["server_hostname"] == "rabbit"


def test_options_that_are_not_ours_never_switch_the_verification_off():
    weak = {"cert_reqs": ssl.CERT_NONE, "server_hostname": None, "tls_minimum_version": ssl.TLSVersion.TLSv1}

    for options in (weak, "1", True, None, {}):
        found = connections.verified(options, "h1")
        assert (found["server_hostname"], found["cert_reqs"]) == ("h1", ssl.CERT_REQUIRED)
        assert found["tls_minimum_version"] == ssl.TLSVersion.TLSv1_2


def test_a_plain_url_has_no_tls():
    address = BrokerAddress("amqp://h1/v", Tls(ca="ca.pem"))

    assert connections.celery(address) == {"broker_url": "amqp://h1/v", "broker_use_ssl": False}
    assert connections.raw(address).ssl is False
    assert connections.raw(BrokerAddress("amqps://h1/v")).ssl["server_hostname"] == "h1"


@pytest.fixture
def high():
    """Two ends of a connection, the first with a number that ``select`` refuses."""
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, min(hard, 2_048)), hard))
    near, far = socket.socketpair()
    with (
        contextlib.closing(far),
        socket.socket(socket.AF_UNIX, fileno=fcntl.fcntl(near, fcntl.F_DUPFD, 1_100)) as moved,
    ):
        near.close()
        yield moved, far
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def test_a_wait_ends_with_bytes_with_room_and_with_its_time_whatever_the_sockets_number(high):
    near, far = high

    assert near.fileno() >= 1_100
    assert not connections.wait(near, 0.01)
    assert connections.wait(near, 5, write=True)
    far.send(b"x")
    assert connections.wait(near, 5)


def test_a_wait_ends_when_the_other_side_has_closed(high):
    near, far = high
    far.close()

    assert connections.wait(near, 5)


def test_a_wait_for_a_closed_connection_is_an_error_of_the_connection(high):
    near, _ = high
    near.close()

    with pytest.raises(OSError, match="closed"):
        connections.wait(near, 5)
