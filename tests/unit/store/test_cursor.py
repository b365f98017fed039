"""Cursors are opaque, and nonsense is refused."""

import base64
import json

import pytest

from dispatch.store.index import _read_cursor, _write_cursor
from support.cases import each


def test_a_cursor_holds_the_place_to_go_on_from():
    assert _read_cursor(_write_cursor("17.0", "a"), None) == ("17.0", "a")
    assert _read_cursor(None, None) == ("+inf", None)


def test_a_cursor_leads_to_no_later_time_than_the_list_has():
    assert _read_cursor(None, 17) == ("(17", None)
    assert _read_cursor(_write_cursor("17.0", "a"), 17) == ("(17", None)
    assert _read_cursor(_write_cursor("16.5", "a"), 17) == ("16.5", "a")
    assert _read_cursor(_write_cursor("inf", "a"), 17) == ("(17", None)


def test_a_cursor_of_the_version_before_goes_on_where_it_ended():
    old = base64.urlsafe_b64encode(b'["17.0",["a","b"]]').decode()

    assert _read_cursor(old, None) == ("17.0", "a")


@each(
    "text",
    [
        "[",
        "{}",
        "[1]",
        '["nan",[]]',
        '["x",[]]',
        "[1,7]",
        "[1,true]",
        '[1,{"a":1}]',
        f"[1{'0' * 400},null]",
        "null",
        "[" * 100_000,
    ],
)
def test_a_cursor_that_is_not_ours_is_a_value_error(text):
    with pytest.raises(ValueError, match="cursor"):
        _read_cursor(base64.urlsafe_b64encode(text.encode()).decode(), None)


@each("text", ["ä", "====", "%", json.dumps("x")])
def test_a_cursor_that_is_not_even_base64_is_a_value_error(text):
    with pytest.raises(ValueError, match="cursor"):
        _read_cursor(text, None)
