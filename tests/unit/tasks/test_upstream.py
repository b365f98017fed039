"""What an answer from outside means for a task."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.errors import PermanentError, RetryableError, Throttled
from support.cases import each
from tasks.upstream import MAX_BODY, Answer, client, exchange, failure, retry_after

#: Sun, 06 Nov 1994 08:49:37 GMT
DATE = 784_111_777.0


def answer(status, **headers):
    return Answer(status, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), b"", False)


def mocked(handler):
    return httpx.Client(transport=httpx.MockTransport(handler))


@each("status", [200, 201, 202, 204, 299])
def test_success_is_no_failure(status):
    assert failure(answer(status), peer="it") is None


@each(
    ("status", "kind", "type"),
    [
        (302, PermanentError, "upstream-redirect"),
        (304, PermanentError, "upstream-redirect"),
        (400, PermanentError, "upstream-rejected"),
        (401, PermanentError, "upstream-unauthorized"),
        (403, PermanentError, "upstream-rejected"),
        (404, PermanentError, "upstream-rejected"),
        (422, PermanentError, "upstream-rejected"),
        (408, RetryableError, "upstream-timeout"),
        (425, RetryableError, "upstream-error"),
        (429, Throttled, "upstream-throttled"),
        (500, RetryableError, "upstream-error"),
        (502, RetryableError, "upstream-unavailable"),
        (503, RetryableError, "upstream-unavailable"),
        (504, RetryableError, "upstream-timeout"),
        (101, RetryableError, "upstream-garbled"),
        (999, RetryableError, "upstream-error"),
    ],
)
def test_each_status_decides_what_follows(status, kind, type):
    error = failure(answer(status), peer="it", detail="why")

    assert (kind, type) == (error.__class__, error.type)
    assert str(error).startswith(f"it responded {status}: why")


@each("status", [429, 503, 500])
def test_the_wait_that_was_asked_for_is_handed_on(status):
    assert failure(answer(status, Retry_After="90"), peer="it").retry_after == 90.0
    assert failure(answer(status), peer="it").retry_after is None


@each(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("9999999999", 9_999_999_999.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 60.0),
        ("Sun Nov  6 08:49:37 1994", 60.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 60.0),
        ("Sun, 06 Nov 1994 08:47:37 GMT", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("١٢", None),
        ("9" * 5_000, None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, now=DATE - 60) == seconds


@given(st.text(max_size=40))
def test_retry_after_never_raises_and_is_never_negative(value):
    seconds = retry_after(value, now=DATE)

    assert seconds is None or seconds >= 0


@each(
    ("exc", "kind", "type"),
    [
        (httpx.ConnectError("refused"), RetryableError, "upstream-unavailable"),
        (httpx.ReadError("reset"), RetryableError, "upstream-unavailable"),
        (httpx.RemoteProtocolError("cut"), RetryableError, "upstream-unavailable"),
        (httpx.ConnectTimeout("slow"), RetryableError, "upstream-timeout"),
        (httpx.ReadTimeout("slow"), RetryableError, "upstream-timeout"),
        (httpx.LocalProtocolError("Illegal header value b'secret'"), PermanentError, "request-invalid"),
        (httpx.UnsupportedProtocol("ftp"), PermanentError, "request-invalid"),
    ],
)
def test_foreign_errors_are_translated(exc, kind, type):
    def fail(_):
        raise exc

    with mocked(fail) as http, pytest.raises(kind) as caught:
        exchange(http, "GET", "http://it/", peer="it", within=5)

    assert caught.value.type == type
    assert "secret" not in str(caught.value)


def test_a_long_answer_is_read_up_to_the_limit_only():
    taken = []

    def body():
        for number in range(1_000):
            taken.append(number)
            yield b"x" * 4_096

    with mocked(lambda _: httpx.Response(200, content=body())) as http:
        got = exchange(http, "GET", "http://it/", peer="it", within=5)

    assert (len(got.body), got.truncated) == (MAX_BODY, True)
    assert len(taken) < 20


def test_an_answer_of_exactly_the_limit_is_whole():
    with mocked(lambda _: httpx.Response(200, stream=httpx.ByteStream(b"x" * MAX_BODY))) as http:
        got = exchange(http, "GET", "http://it/", peer="it", within=5)

    assert (len(got.body), got.truncated) == (MAX_BODY, False)


def test_a_trickling_answer_ends_at_its_deadline():
    with mocked(lambda _: httpx.Response(200, content=iter([b"x", b"y"]))) as http, pytest.raises(RetryableError) as c:
        exchange(http, "GET", "http://it/", peer="it", within=-1)

    assert c.value.type == "upstream-timeout"


def test_clients_follow_no_redirect_and_take_nothing_from_the_environment():
    with client(30, headers={"user-agent": "mine"}) as http:
        assert (http.follow_redirects, http.trust_env) == (False, False)
        assert http.headers.get_list("User-Agent") == ["mine"]
        assert (http.timeout.connect, http.timeout.read) == (2.0, 30)
