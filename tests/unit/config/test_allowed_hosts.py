"""The allow-list of http.request: every entry is checked when a process starts."""

import pytest

from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from support.cases import each


def test_nothing_is_allowed_by_default():
    assert load({}).http_allowed_hosts == ()


@each(
    ("given", "kept"),
    [
        ("api.example:8443", ("api.example:8443",)),
        ("API.example, 192.0.2.7:080 ,", ("api.example", "192.0.2.7:80")),
        ("[0:0:0:0:0:0:0:1]:80,[::1]", ("[::1]:80", "[::1]")),
        ("robot_simulator:8090", ("robot_simulator:8090",)),
        ("xn--exmple-cua.com:443", ("xn--exmple-cua.com:443",)),
        ("0.0.0.0:1", ("0.0.0.0:1",)),
        ("", ()),
    ],
)
def test_an_entry_has_one_form(given, kept):
    settings = load({"DISPATCH_HTTP_ALLOWED_HOSTS": given})

    assert settings.http_allowed_hosts == kept
    assert settings.handlers().http_allowed_hosts == kept


@each(
    ("given", "why"),
    [
        ("::1", "entry 1 must be host:port, an IPv6 address in brackets: [::1]:80"),
        ("a:1,::1:80", "entry 2 must be host:port, an IPv6 address in brackets: [::1]:80"),
        ("a:80:80", "entry 1 must be host:port, an IPv6 address in brackets: [::1]:80"),
        ("[::1", "entry 1 must be host:port, an IPv6 address in brackets: [::1]:80"),
        ("http://u:hush@a.example", "entry 1 is a URL: write host:port"),
        ("a.example/path", "entry 1 is a URL: write host:port"),
        ("a:", "entry 1: the port must be a number from 1 to 65535"),
        ("a:x", "entry 1: the port must be a number from 1 to 65535"),
        ("a:0", "entry 1: the port must be a number from 1 to 65535"),
        ("a:65536", "entry 1: the port must be a number from 1 to 65535"),
        ("a:-1", "entry 1: the port must be a number from 1 to 65535"),
        ("*", "entry 1 has no valid host"),
        ("*.example:80", "entry 1 has no valid host"),
        (":80", "entry 1 has no valid host"),
        ("a b:80", "entry 1 has no valid host"),
        ("example.:80", "entry 1 has no valid host"),
        ("ex\u00e4mple.com", "entry 1 has no valid host"),
        (f"{'a' * 64}.example", "entry 1 has no valid host"),
        (".".join(["a" * 60] * 5), "entry 1 has no valid host"),
        ("127.1:80", "entry 1 has no valid host"),
        ("2130706433", "entry 1 has no valid host"),
        ("0x7f000001:80", "entry 1 has no valid host"),
        ("0177.0.0.1", "entry 1 has no valid host"),
        ("1.2.3.256", "entry 1 has no valid host"),
        ("[127.0.0.1]:80", "entry 1 has no valid host"),
        ("[localhost]:80", "entry 1 has no valid host"),
        ("[fe80::1%25eth0]:80", "entry 1 has no valid host"),
        ("[]:80", "entry 1 has no valid host"),
    ],
)
def test_an_entry_that_would_match_nothing_or_too_much_is_refused(given, why):
    with pytest.raises(ConfigurationError) as caught:
        load({"DISPATCH_HTTP_ALLOWED_HOSTS": given})

    assert str(caught.value).startswith(f"DISPATCH_HTTP_ALLOWED_HOSTS: {why}")
    assert "hush" not in str(caught.value)
