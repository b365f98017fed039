"""The frames of a publish are byte for byte what py-amqp writes."""

import struct
import types

import pytest
from amqp import Message as LibraryMessage
from amqp import spec
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_writer
from amqp.serialization import dumps
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch.broker import frames
from dispatch.protocol.message import Message
from support.cases import each

_TEXT = st.text(max_size=40)
_SHORT = st.text(max_size=60)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _TEXT
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_SHORT, inner, max_size=3), max_leaves=8
)
_MESSAGES = st.builds(
    Message,
    body=st.integers(0, 12_000).map(lambda size: b"x" * size),
    headers=st.dictionaries(
        _SHORT | st.sampled_from(sorted(frames._COMMON)),
        _VALUES | st.sampled_from([0, 1, True, False, 1.0]),
        max_size=8,
    ),
    content_type=st.none() | _SHORT,
    content_encoding=st.none() | _SHORT,
    correlation_id=st.none() | _SHORT,
)


def by_library(message, exchange, routing_key, tag, channel, frame_max):
    written = []
    connection = types.SimpleNamespace(frame_max=frame_max, bytes_sent=0)
    write = frame_writer(connection, types.SimpleNamespace(write=lambda data: written.append(bytes(data))))
    properties = {"delivery_mode": 2, "message_id": str(tag)}
    if message.correlation_id:
        properties["correlation_id"] = message.correlation_id
    content = LibraryMessage(
        message.body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        application_headers=dict(message.headers),
        **properties,
    )
    write(1, channel, spec.Basic.Publish, dumps("Bssbb", (0, exchange, routing_key, True, False)), content)
    return b"".join(written)


@settings(max_examples=80, deadline=None)
@given(_MESSAGES, _SHORT, _SHORT, st.integers(1, 10**9), st.integers(1, 2**16 - 1), st.sampled_from([4_096, 131_072]))
def test_frames_are_those_of_py_amqp(message, exchange, routing_key, tag, channel, frame_max):
    try:
        made = frames.publish(message, exchange, routing_key, message_id=str(tag), channel=channel, frame_max=frame_max)
    except ValueError:  # a table of more than a frame
        return

    assert made == by_library(message, exchange, routing_key, tag, channel, frame_max)


@each(
    "values",
    [
        ("a", "b", "a"),
        (1, True, 1),
        (True, 1, True),
        (None, 0, None),
        ("x" * 101, "x" * 100, "x" * 101),
        ([1], [2], [1]),
    ],
)
def test_a_common_header_has_its_own_value_in_each_message(values):
    for value in values:
        message = Message(b"{}", {"x-seq": value, "task": value})
        made = frames.publish(message, "e", "k", message_id="1", channel=1, frame_max=4_096)

        assert made == by_library(message, "e", "k", 1, 1, 4_096)


@each(
    "change",
    [
        {"headers": {"x": object()}},
        {"headers": {"x": b"raw"}},
        {"headers": {"n" * 256: 1}},
        {"headers": {"x": "y" * 5_000}},
        {"correlation_id": "y" * 256},
    ],
)
def test_what_does_not_fit_is_left_to_py_amqp(change):
    message = Message(**{"body": b"{}", "headers": {}, **change})

    with pytest.raises((ValueError, TypeError)):
        frames.publish(message, "x", "key", message_id="1", channel=1, frame_max=4_096)


@given(st.integers(0, 2**64 - 1), st.booleans(), st.sampled_from([(80, True), (120, False)]))
def test_a_confirm_is_read_as_py_amqp_reads_it(tag, multiple, method):
    number, acked = method
    payload = struct.pack(">HH", 60, number) + dumps("Lb", (tag, multiple))

    assert frames.confirm(frames.AmqpFrame(1, 1, payload)) == (tag, multiple, acked)


@each(
    "frame",
    [(2, 1, b"\0" * 13), (3, 1, b"\0" * 13), (8, 0, b""), (1, 1, b""), (1, 1, struct.pack(">HHQB", 60, 50, 1, 0)), (1, 1, struct.pack(">HHQB", 90, 80, 1, 0))],
)  # fmt: skip
def test_no_other_frame_is_a_confirm(frame):
    assert frames.confirm(frames.AmqpFrame(*frame)) is None


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 8]), st.integers(0, 9), st.binary(max_size=20))), st.data())
def test_frames_are_found_whole_whatever_the_pieces_are_in_which_they_come(expected, data):
    wire = b"".join(struct.pack(">BHI", kind, channel, len(text)) + text + b"\xce" for kind, channel, text in expected)
    buffer, found = bytearray(), []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        buffer += wire[:size]
        wire = wire[size:]
        found += [tuple(frame) for frame in frames.whole(buffer)]

    assert found == expected
    assert not buffer


def test_a_frame_without_its_end_is_an_error():
    with pytest.raises(UnexpectedFrame):
        list(frames.whole(bytearray(b"\x08\0\0\0\0\0\0\0")))
