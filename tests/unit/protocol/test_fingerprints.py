"""Errors that differ in ids, numbers, quoted texts and addresses only have one fingerprint."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.fingerprints import fingerprint, fingerprint_stored, is_fingerprint, normalised
from dispatch.protocol.sealing import Sealing
from support.cases import each

SEALING = Sealing.parse("A" * 43 + "=")
LETTERS = "abcdefghijklmnopqrstuvwxyz"

words = st.sampled_from(
    [
        "robot",
        "failed",
        "order",
        "timeout",
        "while",
        "connecting",
        "to",
        "the",
        "vendor",
        "for",
        "after",
        "E_STUCK,",
        "(retry)",
        "[x]",
        "code:",
        "id=",
        "at",
    ]
)
host = st.text(LETTERS, min_size=1, max_size=8).map(lambda name: f"{name}.example")
particulars = {
    "number": st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)).map(str),
    "uuid": st.uuids().map(str),
    "hex": st.binary(min_size=4, max_size=20).map(bytes.hex),
    "pointer": st.integers(min_value=0, max_value=2**64).map(hex),
    "quoted": st.tuples(st.sampled_from("\"'`"), st.text(LETTERS + " .:/-", max_size=30)).map(lambda it: f"{it[0]}{it[1]}{it[0]}"),
    "url": st.tuples(host, st.text(LETTERS + "/-", max_size=10)).map(lambda it: f"https://{it[0]}/{it[1]}"),
    "mail": st.tuples(st.text(LETTERS, min_size=1, max_size=8), host).map("@".join),
    "address": st.ip_addresses().map(str),
    "id": st.tuples(st.sampled_from(["R-", "req_", "", "task/"]), st.integers(min_value=0)).map(lambda it: f"{it[0]}{it[1]}"),
}  # fmt: skip


@st.composite
def two_cases_of_an_error(draw):
    """Two messages with the same words in the same places, and other particulars of the same kinds."""
    shape = draw(
        st.lists(st.one_of(words, st.sampled_from([*particulars]).map(lambda kind: [kind])), min_size=1, max_size=12)
    )
    cases = [[part if isinstance(part, str) else draw(particulars[part[0]]) for part in shape] for _ in range(2)]
    return [" ".join(case) for case in cases]


@given(two_cases_of_an_error())
def test_particulars_do_not_count(cases):
    one, other = cases

    assert normalised(one) == normalised(other)
    assert fingerprint(one) == fingerprint(other)
    assert SEALING.error_fingerprint(one) == SEALING.error_fingerprint(other) != fingerprint(one)


@given(st.lists(words, min_size=1, max_size=8), st.lists(words, min_size=1, max_size=8))
def test_words_count(one, other):
    assert (fingerprint(" ".join(one)) == fingerprint(" ".join(other))) is (one == other)


@given(st.text(max_size=3_000))
def test_any_text_has_a_fingerprint_of_one_form(text):
    assert is_fingerprint(fingerprint(text))
    assert is_fingerprint(SEALING.error_fingerprint(text))
    assert fingerprint(text) == fingerprint(text[:2_000])


@given(st.text(LETTERS + LETTERS.upper() + " \n\t", max_size=100))
def test_case_and_white_space_do_not_count(text):
    assert fingerprint(text.upper()) == fingerprint("  " + re.sub(r"\s", "\n", text).lower())


@each(
    ("text", "normal"),
    [
        ("robot R-17 failed: E_STUCK wheel 3", "robot <*> failed: e_stuck wheel <*>"),
        ("KeyError: 'customer'", "keyerror: <*>"),
        ("can't reach the robot", "can't reach the robot"),
        ("HTTP 503 from https://api.example/v2/orders/9 after 1.5s", "http <*> from <*> after <*>"),
        ("no route to 10.0.0.7:8080, [fe80::1]:443", "no route to <*>, [<*>]:<*>"),
        ("orders [1, 2, 3] and (a, b)", "orders [<*>] and (a, b)"),
        ("object at 0x7f3e2c at deadbeefcafe", "object at <*> at <*>"),
        ("std::bad_alloc in worker::run", "std::bad_alloc in worker::run"),
        ("", ""),
    ],
)
def test_what_is_left_of_a_message(text, normal):
    assert normalised(text) == normal


def test_what_a_release_without_fingerprints_has_sealed_is_one_group():
    tokens = [SEALING.seal_text(text) for text in ("one", "two")]

    assert len({*tokens}) == 2
    assert {fingerprint_stored(token) for token in tokens} == {fingerprint("")}
    assert fingerprint_stored("robot 1 is away") == fingerprint("robot 2 is away")
