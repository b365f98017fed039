"""Which addresses a request may reach, whatever its host resolves to."""

import ipaddress
import socket

import httpcore
import httpx
import pytest

from dispatch.errors import PermanentError
from support.cases import each
from tasks import egress

PUBLIC, OTHER = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


@each("address", [PUBLIC, OTHER, "1.1.1.1", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"])
def test_a_public_address_is_fine(address):
    assert egress.objection(ipaddress.ip_address(address)) is None


@each(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.3", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "private"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("fd12::1", "private"),
        ("fec0::1", "private"),
        ("169.254.169.254", "metadata service"),
        ("::ffff:169.254.169.254", "metadata service"),
        ("fd00:ec2::254", "metadata service"),
        ("100.100.100.200", "metadata service"),
        ("168.63.129.16", "metadata service"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("100.64.0.1", "reserved"),
        ("255.255.255.255", "private"),
        ("240.0.0.1", "private"),
        ("192.0.2.1", "private"),
        ("2001:db8::1", "private"),
        ("::7f00:1", "reserved"),
    ],
)
def test_any_other_address_is_named_for_what_it_is(address, kind):
    assert egress.objection(ipaddress.ip_address(address)) == kind


class Plain:
    """A backend that notes where it connects; some addresses do not answer."""

    def __init__(self, *silent):
        self.silent, self.asked = silent, []

    def connect_tcp(self, host, port, **options):
        self.asked.append((host, port, options))
        if host in self.silent:
            raise httpcore.ConnectTimeout
        return "a stream"


def connect(plain, listed=(), host="api.example"):
    backend = egress._CheckedBackend(
        plain, (httpcore.ConnectError, httpcore.ConnectTimeout), lambda address, port: (address, port) in listed
    )
    return backend.connect_tcp(host, 80, timeout=2)


@pytest.fixture
def dns(monkeypatch):
    """A name server: its answers in turn, each a list of addresses."""
    answers = []

    def getaddrinfo(_host, port, **_options):
        return [(0, 0, 0, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


def test_the_connection_goes_to_the_address_that_was_checked(dns):
    dns += [[PUBLIC], ["127.0.0.1"]]  # the second answer stays unused
    plain = Plain()

    assert connect(plain) == "a stream"
    assert plain.asked == [(PUBLIC, 80, {"timeout": 2})]
    assert dns == [["127.0.0.1"]]


def test_a_name_of_loopback_is_refused_before_any_connection(dns):
    dns += [["127.0.0.1", "::1"]]
    plain = Plain()

    with pytest.raises(PermanentError) as caught:
        connect(plain, {("127.0.0.1", 81)})

    assert caught.value.type == "address-not-allowed"
    assert str(caught.value) == (
        "api.example has no address that http.request may connect to: 127.0.0.1 (loopback), ::1 (loopback) at port 80 "
        "is neither public nor itself among DISPATCH_HTTP_ALLOWED_HOSTS"
    )
    assert plain.asked == []


def test_an_address_that_is_listed_itself_is_reached_by_name_and_as_it_is(dns):
    dns += [["::1", "127.0.0.1"], ["127.0.0.1"]]
    plain, listed = Plain(), {("127.0.0.1", 80)}

    connect(plain, listed)
    connect(plain, listed, host="127.0.0.1")

    assert [host for host, *_ in plain.asked] == ["127.0.0.1"] * 2


def test_a_private_address_beside_a_public_one_is_left_out(dns):
    dns += [["10.0.0.1", PUBLIC]]
    plain = Plain(PUBLIC)

    with pytest.raises(httpcore.ConnectTimeout):
        connect(plain)

    assert [host for host, *_ in plain.asked] == [PUBLIC]


def test_the_next_address_is_tried_after_one_that_is_silent_and_few_in_all(dns):
    many = [f"1.1.1.{n}" for n in range(1, 20)]
    dns += [[PUBLIC, OTHER, OTHER], many]
    one, none = Plain(PUBLIC), Plain(*many)

    assert connect(one) == "a stream"
    with pytest.raises(httpcore.ConnectTimeout):
        connect(none)

    assert [host for host, *_ in one.asked] == [PUBLIC, OTHER]
    assert [host for host, *_ in none.asked] == many[:4]


def test_a_name_without_an_address_may_have_one_later(monkeypatch, dns):
    dns += [[]]
    with pytest.raises(httpx.ConnectError):
        connect(Plain())

    def unknown(*_args, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(httpx.ConnectError, match="Name or service not known"):
        connect(Plain())
