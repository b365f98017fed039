"""Cursors are opaque, and nonsense is refused."""

import base64
import json

import pytest

from dispatch.store.index import _read_cursor, _write_cursor
from support.cases import each


def test_a_cursor_says_where_to_go_on():
    assert _read_cursor(_write_cursor("17.0", {"b", "a"})) == ("17.0", {"a", "b"})
    assert _read_cursor(None) == ("+inf", set())


@each("text", ["[", "{}", "[1]", '["nan",[]]', '["x",[]]', "[1,7]", "null", "[" * 100_000])
def test_a_cursor_that_is_not_ours_is_a_value_error(text):
    with pytest.raises(ValueError, match="cursor"):
        _read_cursor(base64.urlsafe_b64encode(text.encode()).decode())


@each("text", ["ä", "====", "%", json.dumps("x")])
def test_a_cursor_that_is_not_even_base64_is_a_value_error(text):
    with pytest.raises(ValueError, match="cursor"):
        _read_cursor(text)
