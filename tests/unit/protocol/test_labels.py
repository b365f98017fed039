"""Labels are one text on the wire, and any client may have written it."""

import pytest

from dispatch.protocol import labels
from support.cases import each

MOST = {f"{number}{'k' * 62}": "v" * 63 for number in range(8)}


@each("given", [{}, {"a": "1"}, {"robot": "r-7", "customer": "acme=best,\"x\":{'y'}"}, MOST])
def test_what_is_written_is_read(given):
    assert labels.read(labels.written(given)) == given


def test_the_same_labels_are_the_same_text():
    assert labels.written({"b": "2", "a": "1"}) == labels.written({"a": "1", "b": "2"}) == "a=1 b=2"


@each(
    "text",
    [
        None, 7, b"a=1", "", " ", "a", "a=", "=1", "A=1", "a=1 ", " a=1", "b=1 a=2", "a=1 a=2", "a=1  b=2", "a=1\nb=2", "a=é",
        "a=1\x00", f"a={'v' * 64}", f"{'k' * 64}=1", "a=1 " * 9, " ".join(f"k{number}=v" for number in range(9)), "a=" + "v" * 10_000,
    ],
)  # fmt: skip
def test_no_labels_are_read_from_what_is_not_exactly_such_a_text(text):
    assert labels.read(text) == {}


@each(
    ("text", "pair"), [("a=1", ("a", "1")), ("a=b=c", ("a", "b=c")), ("x.y-z_0=*?[a-z]{1}", ("x.y-z_0", "*?[a-z]{1}"))]
)
def test_a_label_of_a_filter_is_split_at_its_first_equals_sign(text, pair):
    assert labels.pair(text) == pair


@each("text", ["", "a", "a=", "=b", "a=b c", "a b=c", "A=b", "a=" + "v" * 64, "a=b\n"])
def test_what_is_no_label_is_a_value_error(text):
    with pytest.raises(ValueError, match="key=value"):
        labels.pair(text)
