"""http.request: what may be asked for, and where it may go."""

import httpx
import pydantic
import pytest

from dispatch.config.settings import load
from dispatch.errors import PermanentError
from support.cases import each
from support.context import FakeContext
from tasks.http import HttpRequest, is_allowed, request
from tasks.http import _content as content
from tasks.upstream import Answer


def order(**changes):
    return HttpRequest.model_validate({"method": "GET", "url": "http://localhost/", **changes})


def allowed(url, hosts):
    return is_allowed(httpx.URL(url), load({}, http_allowed_hosts=hosts).handlers())


@each(
    ("url", "hosts"),
    [
        ("http://localhost/", "localhost"),
        ("https://localhost/", "localhost"),
        ("http://localhost:80/x?y#z", "localhost"),
        ("HTTP://LocalHost:8080/", "LOCALHOST:8080"),
        ("http://localhost/", "localhost:80"),
        ("https://localhost/", "localhost:443"),
        ("http://[::1]/", "[::1]"),
        ("http://[::1]:9/", "[::1]:9"),
        ("http://[0:0:0:0:0:0:0:1]/", "[::1]:80"),
        ("http://[::1]/", "[0:0::0:1]:80"),
        ("http://xn--exmple-cua.com/", "xn--exmple-cua.com"),
        ("http://b:2/", "a:1,b:2"),
    ],
)
def test_a_host_and_port_on_the_list_is_allowed(url, hosts):
    assert allowed(url, hosts)


@each(
    ("url", "hosts"),
    [
        ("http://localhost/", ""),
        ("http://127.0.0.1:15672/api/vhosts", ""),
        ("http://localhost:8081/", "localhost:8080"),
        ("http://localhost:8080/", "localhost"),
        ("http://localhost:443/", "localhost"),
        ("https://localhost:80/", "localhost"),
        ("https://localhost/", "localhost:80"),
        ("http://evil.example/", "localhost"),
        ("http://localhost.evil.example/", "localhost"),
        ("http://evil-localhost/", "localhost"),
        ("http://evil.example/?localhost", "localhost"),
        ("http://evil.example/#@localhost", "localhost"),
        ("http://127.0.0.1@evil.example/", "127.0.0.1"),
        ("http://localhost.:80/", "localhost"),
        ("http://127.1/", "127.0.0.1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://0x7f000001/", "127.0.0.1"),
        ("http://%31%32%37.0.0.1/", "127.0.0.1"),
        ("http://[::ffff:127.0.0.1]/", "127.0.0.1"),
        ("http://127.0.0.1/", "[::ffff:127.0.0.1]"),
        ("http://[::1]:9/", "[::1]:8"),
        ("http://[::1]:9/", "[::1]"),
    ],
)
def test_any_other_is_not(url, hosts):
    assert not allowed(url, hosts)


@each(
    "url",
    [
        "",
        "localhost/",
        "//localhost/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "http:///path",
        "http:localhost",
        "http://",
        "http://user@localhost/",
        "http://user:secret@localhost/",
        "http://@localhost/",
        "http://localhost:80\\@evil.example/",
        "http://local host/",
        "http://localhost\t/",
        "http://localhost/\r\nX: y",
        " http://localhost/",
        "http://localhost:0/",
        "http://localhost:65536/",
        "http://localhost:x/",
        "http://[::1/",
        "http://\uff4cocalhost/",
        "http://localhost/" + "x" * 4_096,
    ],
)
def test_urls_that_could_mean_something_else_are_refused(url):
    with pytest.raises(pydantic.ValidationError):
        order(url=url)


@each("url", ["http://localhost", "https://localhost:8443/a?b=c@d#e", "http://[::1]:80/", "http://localhost/user@x"])
def test_ordinary_urls_are_accepted(url):
    assert order(url=url).url == url


@each(
    "headers",
    [
        {"Host": "evil.example"},
        {"content-length": "3"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"IDEMPOTENCY-KEY": "x"},
        {"traceparent": "x"},
        {"Accept-Encoding": "gzip"},
        {"X-A": "1", "x-a": "2"},
        {"X A": "1"},
        {"": "1"},
        {"X-A": "1\r\nX-B: 2"},
        {"X-A": " 1"},
        {"X-A": "ü"},
        {"X-A": "x" * 4_097},
        {"X-A": 1},
        {f"X-{n}": "" for n in range(51)},
    ],
)
def test_headers_that_are_not_the_clients_to_set_are_refused(headers):
    with pytest.raises(pydantic.ValidationError):
        order(headers=headers)


def test_ordinary_headers_are_accepted():
    headers = {"Authorization": "Bearer x", "X-Empty": "", "Accept": "text/html, */*;q=0.1"}

    assert order(headers=headers).model_dump(mode="json")["headers"] == headers
    assert "Bearer x" not in repr(order(headers=headers))


@each(
    "changes",
    [
        {"method": "TRACE"},
        {"method": "get"},
        {"timeoutSeconds": 0},
        {"timeoutSeconds": 121},
        {"json": {}},
        {"method": "POST", "json": float("nan")},
        {"method": "POST", "json": {"a": ["\ud800"]}},
    ],
)
def test_other_requests_are_refused(changes):
    with pytest.raises(pydantic.ValidationError):
        order(**changes)


def test_a_null_body_is_a_body_and_none_is_not():
    assert order(method="POST", json=None).has_body
    assert not order(method="POST").has_body


def test_a_host_that_is_not_allowed_fails_for_good_without_naming_the_path():
    context = FakeContext(settings=load({}, http_allowed_hosts="localhost:1"))

    with pytest.raises(PermanentError) as caught:
        request(order(url="http://evil.example:81/hook/s3cret?token=s3cret"), context)

    assert caught.value.type == "host-not-allowed"
    assert str(caught.value) == "http://evil.example:81 is not among DISPATCH_HTTP_ALLOWED_HOSTS"


@each(
    ("body", "headers", "truncated", "shown"),
    [
        (b'{"a": 1}', {"Content-Type": "application/json; charset=utf-8"}, False, {"a": 1}),
        (b'{"a": 1}', {"Content-Type": "application/problem+json"}, False, {"a": 1}),
        (b'{"a": 1}', {"Content-Type": "text/plain"}, False, '{"a": 1}'),
        (b'{"a": 1}', {"Content-Type": "application/json"}, True, '{"a": 1}'),
        (b"{oops", {"Content-Type": "application/json"}, False, "{oops"),
        (b"NaN", {"Content-Type": "application/json"}, False, "NaN"),
        (b'"\\ud800"', {"Content-Type": "application/json"}, False, '"\\ud800"'),
        (b"[" * 60_000, {"Content-Type": "application/json"}, False, "[" * 60_000),
        ("ü".encode()[:1], {}, True, ""),
        ("ü".encode()[:1], {}, False, None),
        (b"\xff\xfe", {}, False, None),
        (b"x", {"Content-Encoding": "gzip"}, False, None),
        (b"", {}, False, ""),
    ],
)
def test_the_body_comes_back_as_json_text_or_not_at_all(body, headers, truncated, shown):
    assert content(Answer(200, httpx.Headers(headers), body, truncated)) == shown
