import pytest

from dispatch.gateway.http import headers
from support.cases import each


@each("given", ["rq-1", "A.b_c~d-9", "x" * 128])
def test_a_usable_request_id_is_kept(given):
    assert given == headers.request_id(given)


@each("given", [None, "", "x" * 129, "a b", "a,b", "ä", "a\nb", '"a"'])
def test_an_unusable_request_id_is_replaced_by_a_fresh_one(given):
    first, second = headers.request_id(given), headers.request_id(given)

    assert given != first
    assert first != second
    assert first == headers.request_id(first)


@each(
    ("given", "key"),
    [
        (None, None),
        ("abc", "abc"),
        ('"abc"', "abc"),
        (r'"a\"b\\c"', r"a\c".replace("\\", '"b\\')),
        ('a"b', 'a"b'),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        ("!~", "!~"),
    ],
)
def test_an_idempotency_key_comes_quoted_or_bare(given, key):
    assert key == headers.idempotency_key(given)


@each("given", ["", '""', '"', '"abc', '"a"b"', r'"a\b"', "a b", '"a b"', "x" * 256, "clé", "a\x7f"])
def test_an_unusable_idempotency_key_is_refused(given):
    with pytest.raises(headers.InvalidIdempotencyKey, match="1-255 visible ASCII"):
        headers.idempotency_key(given)


@each(
    ("given", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=7", 7),
        ("Wait = 7", 7),
        ('wait="7"', 7),
        ("respond-async, wait=5; x=y", 5),
        ("wait=5, wait=9", 5),
        ("wait=21", 20),
        ("wait=999999999", 20),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait=soon", 0),
        ("wait=99999999999999999999", 0),
        ("await=3", 0),
    ],
)
def test_prefer_wait_is_read_leniently_and_capped(given, seconds):
    assert seconds == headers.preferred_wait(given)


@each(
    ("given", "expected"),
    [
        (None, False),
        ('"4"', True),
        ('W/"4"', True),
        ('"3", "4"', True),
        ("*", True),
        ('"3"', False),
        ('"44"', False),
        ("4", False),
        ("", False),
    ],
)
def test_an_etag_is_compared_weakly(given, expected):
    assert expected == headers.etag_matches(given, "4")
