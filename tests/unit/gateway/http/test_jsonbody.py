import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.gateway.http import jsonbody
from support.cases import each

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_python_writes_is_read_back(value):
    assert value == jsonbody.parse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert value == jsonbody.parse(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(raw):
    with contextlib.suppress(jsonbody.MalformedJson):
        jsonbody.parse(raw)


@each(
    "raw",
    [
        b"",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b"NaN",
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"1e999",
        b"-1e999",
        b'{"a": 1, "a": 2}',
        b'{"x": {"a": 1, "\\u0061": 2}}',
        b"9223372036854775808",
        b"-9223372036854775809",
        b"1" * 5_000,
        b"\xff",
        '"é"'.encode("latin-1"),
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        rb'"\ud800"',
        rb'{"\udc00": 1}',
        b'"\xed\xa0\x80"',
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 200_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_two_readers_could_read_differently_is_refused(raw):
    with pytest.raises(jsonbody.MalformedJson):
        jsonbody.parse(raw)


@pytest.mark.parametrize(
    "raw", [rb'"\ud83d\ude00"', '"😀"'.encode(), b"[" * 64 + b"]" * 64, b"[{}]" + b" " * 9, b"9223372036854775807"]
)
def test_the_edge_of_what_is_allowed(raw):
    assert json.loads(raw) == jsonbody.parse(raw)


def test_many_small_objects_are_not_deep():
    raw = json.dumps([{"a": [1]}] * 1_000).encode()

    assert len(jsonbody.parse(raw)) == 1_000


def test_the_message_never_quotes_the_body():
    with pytest.raises(jsonbody.MalformedJson) as caught:
        jsonbody.parse(b'{"hunter2": 1, "hunter2": 2}')

    assert "hunter2" not in str(caught.value)


def test_a_fingerprint_ignores_spacing_and_order_but_nothing_else():
    one, same = jsonbody.parse(b'{"a": 1, "b": [1, 2]}'), jsonbody.parse(b'{"b":[1,2],"a":1}')

    assert jsonbody.fingerprint("POST", one) == jsonbody.fingerprint("POST", same)
    assert len(jsonbody.fingerprint("POST", one)) == 64
    assert jsonbody.fingerprint("POST", one) != jsonbody.fingerprint("PUT", one)
    assert jsonbody.fingerprint("POST", one) != jsonbody.fingerprint("POST", {"a": 1, "b": [2, 1]})
    assert jsonbody.fingerprint("POST", one) != jsonbody.fingerprint("POST", {"a": True, "b": [1, 2]})
