"""What the worker takes from the queue, and why not."""

import datetime as dt
import json
import time
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from dispatch.worker.envelope import Poison, check
from support.cases import each

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HEADERS = {"id": "t1", "task": "echo", "x-seq": 0}
BODY = json.dumps([[{"message": "x"}], {}, {"callbacks": None}]).encode()


def verdict(headers=None, body=BODY, content_type="application/json", encoding="utf-8"):
    try:
        check(
            HEADERS if headers is None else headers,
            body,
            content_type=content_type,
            encoding=encoding,
            known={"echo"},
            now=NOW,
            most_values=1_000,
        )
    except Poison as exc:
        return exc.reason
    return "ok"


def test_a_task_message_is_taken():
    assert verdict() == "ok"


def _with_values(count):
    """A body with that many objects, lists and commas; an odd number, its envelope has seven."""
    return b'[[{"a":[' + b",".join([b"[]"] * ((count - 7) // 2)) + b"]}],{},{}]"


@each(("values", "reason"), [(999, "ok"), (1_001, "undecodable"), (1_000_001, "undecodable")])
def test_a_body_has_no_more_values_than_a_request_may_have(values, reason):
    assert verdict(body=_with_values(values)) == reason


def test_a_body_with_too_many_values_is_refused_before_it_is_parsed():
    body = b'[[{"a":[' + b"[]," * (4_194_304 // 3) + b"[]]}],{},{}]"
    tracemalloc.start()
    try:
        reason = verdict(body=body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert reason == "undecodable"
    assert peak < 3 * len(body)  # parsed it takes 20 times as much as it has bytes


@each(
    ("headers", "reason"),
    [
        ({}, "malformed"),
        ({"task": "echo"}, "malformed"),
        ({"task": "echo", "id": 7}, "malformed"),
        ({"task": "echo", "id": "a b"}, "malformed"),
        ({"task": 7, "id": "t"}, "malformed"),
        ({**HEADERS, "x-seq": "1"}, "malformed"),
        ({**HEADERS, "x-seq": -1}, "malformed"),
        ({**HEADERS, "x-attempt": 2**60}, "malformed"),
        ({**HEADERS, "retries": True}, "malformed"),
        ({**HEADERS, "task": "not.registered"}, "unknown-type"),
        ({**HEADERS, "eta": "2026-01-01T00:00:00"}, "malformed"),
        ({**HEADERS, "expires": "soon"}, "malformed"),
        ({**HEADERS, "expires": "2025-12-31T23:59:59"}, "expired"),
        ({**HEADERS, "expires": "2026-01-02T00:00:00+00:00"}, "ok"),
    ],
)
def test_headers(headers, reason):
    assert verdict(headers) == reason


@each(
    ("body", "reason"),
    [
        (b"", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b"{", "undecodable"),
        (b"[" * 100_000, "undecodable"),
        (b"{}", "malformed"),
        (b"[[],{},{}]", "malformed"),
        (b'[["x"],{},{}]', "malformed"),
        (b'[[{}],{"a":1},{}]', "malformed"),
        (b"[[{}],{},7]", "malformed"),
        (b'[[{}],{},{"chord":{}}]', "ok"),
        (b'[[{}],{},{"chord":{"task":"x"}}]', "malformed"),
        (b'[[{}],{},{"errbacks":[1]}]', "malformed"),
        (b"[[{}],{},null]", "ok"),
    ],
)
def test_bodies(body, reason):
    assert verdict(body=body) == reason


def test_only_json_is_taken():
    assert verdict(content_type="application/x-python-serialize") == "undecodable"
    assert verdict(content_type=None) == "undecodable"
    assert verdict(encoding="no-such-encoding") == "undecodable"


@each("encoding", ["punycode", "idna", "utf-16", "unicode_escape"])
def test_no_encoding_is_taken_that_could_compute_for_hours(encoding):
    began = time.monotonic()

    assert verdict(body=b"a-" + b"9" * 1_000_000, encoding=encoding) == "undecodable"
    assert time.monotonic() - began < 5


_LEAF = st.one_of(st.none(), st.integers(), st.text())


@given(st.dictionaries(st.text(), st.recursive(_LEAF, st.lists, max_leaves=5)), st.binary())
def test_whatever_comes_is_judged_and_never_crashes(headers, body):
    assert verdict({**HEADERS, **headers}, body) in {
        "ok",
        "malformed",
        "undecodable",
        "unknown-type",
        "expired",
        "too-large",
    }
