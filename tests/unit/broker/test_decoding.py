"""What comes off the wire: whatever a client sends becomes a message that can be read, recorded and sent on."""

import datetime as dt
import decimal
import json
import struct
import types

import pytest
from amqp import abstract_channel, basic_message, method_framing, spec
from amqp.serialization import dumps
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import serialization
from kombu.exceptions import DecodeError

from celery_app import create_celery
from dispatch.broker import decoding
from dispatch.broker.celery_producer import dispatch
from dispatch.broker.decoding import COMPRESSION, MAX_HEADERS, MAX_NESTING, MAX_VALUE, decode, sendable
from dispatch.config import settings as configuration
from dispatch.protocol.copies import dead_copy, parked_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import MAX_MESSAGE, TOO_LARGE, UNREADABLE
from support.cases import each

#: Property flags: content type, and headers.
CONTENT_TYPE, HEADERS = 0x8000, 0x2000


def table(*fields):
    body = b"".join(bytes([len(name)]) + name + value for name, value in fields)
    return struct.pack(">I", len(body)) + body


def text(value):
    return b"S" + struct.pack(">I", len(value)) + value


def properties(headers=b"", flags=CONTENT_TYPE | HEADERS):
    kind = b"application/json"
    return struct.pack(">HB", flags, len(kind)) + kind + headers


def delivery(routing_key=b"robot.task.dispatch.echo"):
    """The method frame of a delivery."""
    short = lambda value: bytes([len(value)]) + value  # noqa: E731
    fields = short(b"tag") + struct.pack(">QB", 7, 0) + short(b"robot.task.topic") + short(routing_key)
    return struct.pack(">HH", *spec.Basic.Deliver) + fields


class Channel(abstract_channel.AbstractChannel):
    """py-amqp's own reading of a delivery, without a connection."""

    def __init__(self):
        self._METHODS = {spec.Basic.Deliver: spec.method(spec.Basic.Deliver, "sLbss", content=True)}
        self.is_closing = self.auto_decode = False
        self.received = []
        self._pending, self._callbacks = {}, {spec.Basic.Deliver: self._deliver}

    def _deliver(self, _tag, delivery_tag, _redelivered, exchange, routing_key, message):
        message.delivery_info = {"delivery_tag": delivery_tag, "exchange": exchange, "routing_key": routing_key}
        self.received.append(message)


def receive(header, *chunks, size=None, method=None):
    """Feed frames to py-amqp as they come from a socket; what decode makes of the message."""
    channel = Channel()
    on_frame = method_framing.frame_handler(
        types.SimpleNamespace(bytes_recv=0), lambda _number, *rest: channel.dispatch_method(*rest)
    )
    size = sum(map(len, chunks)) if size is None else size
    on_frame((1, 1, method or delivery()))
    on_frame((2, 1, struct.pack(">HHQ", 60, 0, size) + header))
    for chunk in chunks:
        on_frame((3, 1, chunk))
    if not channel.received:
        return None
    return decode(as_kombu(channel.received[0]))


def as_kombu(message):
    given = message.properties
    return types.SimpleNamespace(
        body=message.body,
        headers=given.get("application_headers"),
        properties=given,
        content_type=given.get("content_type"),
        content_encoding=given.get("content_encoding"),
        delivery_info=message.delivery_info,
    )


def written(message):
    """The content header that py-amqp writes of it; raises what cannot be sent on."""
    raw = basic_message.Message(
        message.body, content_type=message.content_type, application_headers=dict(message.headers)
    )
    return raw._serialize_properties()


def test_a_message_is_read_as_it_is():
    message = receive(properties(table((b"id", text(b"t")), (b"x-seq", b"l" + struct.pack(">q", 7)))), b"[[", b"]]")

    assert (message.body, message.content_type) == (b"[[]]", "application/json")
    assert message.headers == {"id": "t", "x-seq": 7}
    assert message.routing_key == "robot.task.dispatch.echo"


def test_an_empty_body_is_a_message_too():
    assert receive(properties(table())).body == b""


def nested(levels):
    value = b""
    for _ in range(levels):
        value = b"\x01aF" + struct.pack(">I", len(value)) + value
    return struct.pack(">I", len(value)) + value


@each(
    "headers",
    [
        table((b"odd", b"T" + struct.pack(">Q", 1_830_000_000_000))),
        table((b"odd", b"?")),
        nested(5_000),
        struct.pack(">I", 2**31) + b"\x03odd",
        b"",
    ],
    ids=["the year 60000", "an unknown type", "nested beyond recursion", "a length beyond the frame", "cut off"],
)
def test_properties_that_cannot_be_read_leave_a_message_with_the_reason(headers):
    message = receive(properties(headers), b"[]")

    assert message.body == b"[]"
    assert list(message.headers) == [UNREADABLE]
    assert len(message.headers[UNREADABLE]) < 2 * MAX_VALUE


@each(
    ("value", "read"),
    [
        (b"S" + struct.pack(">I", 2) + b"\xff\xfe", r"\xff\xfe"),
        (b"S" + struct.pack(">I", 3) + b"\xed\xa0\x80", "?"),
        (b"x" + struct.pack(">I", 2) + b"\xff\x00", "\\xff\x00"),
        (b"V", None),
        (b"t\x01", True),
        (b"d" + struct.pack(">d", float("nan")), "nan"),
        (b"D" + struct.pack(">Bi", 2, 125), "1.25"),
        (b"T" + struct.pack(">Q", 0), "1970-01-01 00:00:00"),
    ],
)
def test_odd_values_become_text_and_can_be_sent_on(value, read):
    message = receive(properties(table((b"odd", value))), b"[]")

    assert message.headers == {"odd": read}
    assert json.loads(message.to_json())["headers"] == {"odd": read}
    assert written(message)


def test_a_header_that_would_decompress_the_body_has_another_name():
    assert receive(properties(table((b"compression", text(b"zlib")))), b"x").headers == {COMPRESSION: "zlib"}


@each(
    ("key", "read"),
    [
        (b"robot.task.dispatch.\xff", r"robot.task.dispatch.\xff"),
        (b"robot.task.dispatch.\xed\xa0\x80", "robot.task.dispatch.?"),
        (b"robot." + b"\xff" * 249, ("robot." + r"\xff" * 249)[:255]),
    ],
    ids=["no UTF-8", "half of a surrogate pair", "as long as can be"],
)
def test_a_routing_key_that_is_no_text_can_be_read_and_sent_on(key, read):
    message = receive(properties(table()), b"{", method=delivery(key))
    dead = dead_copy(message, Reason.MALFORMED, "no task message", dead_id=message.dead_letter_id)

    assert message.routing_key == read
    assert dumps("s", [dead.routing_key])


def test_py_amqp_makes_no_text_of_a_body_in_an_encoding_that_could_compute_for_hours():
    content = receive(properties(table()), b"a-", b"999").body

    assert content == b"a-999"
    with pytest.raises(LookupError):
        decoding._Body(content).decode("punycode")


def test_a_body_that_is_too_large_is_dropped_but_for_its_beginning():
    chunk = b"x" * 65_536
    message = receive(properties(table()), *[chunk] * 65)

    assert message.body == b"x" * 1_000
    assert message.headers[TOO_LARGE].startswith(f"{65 * 65_536} bytes, more than {MAX_MESSAGE}; blake2b ")


def test_bodies_that_differ_after_their_beginning_have_other_digests():
    one, other, again = (receive(properties(table()), *[b"x" * 65_536] * 64, end) for end in (b"a", b"b", b"a"))

    assert one.headers == again.headers != other.headers


def test_a_body_of_just_the_allowed_size_is_whole():
    chunks = [b"x" * 65_536] * (MAX_MESSAGE // 65_536)
    message = receive(properties(table()), *chunks)

    assert len(message.body) == MAX_MESSAGE
    assert TOO_LARGE not in message.headers


def test_a_client_cannot_claim_that_its_body_was_too_large():
    assert receive(properties(table((TOO_LARGE.encode(), text(b"huge")))), b"[]").headers == {}


def test_a_large_body_without_headers_is_marked_too():
    message = receive(properties(flags=CONTENT_TYPE), *[b"x" * 65_536] * 65)

    assert list(message.headers) == [TOO_LARGE]


@each(
    ("value", "plain"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        (1.5, 1.5),
        (float("inf"), "inf"),
        (True, True),
        (None, None),
        (memoryview(b"a"), "a"),
        ("\ud800", "?"),
        (dt.date(2026, 1, 1), "2026-01-01"),
        (decimal.Decimal("1.25"), "1.25"),
        ((1, [2, {"a": (3,)}]), [1, [2, {"a": [3]}]]),
        ({7: 1, b"\xff": 2}, {"7": 1, r"\xff": 2}),
    ],
)
def test_what_a_header_may_carry(value, plain):
    assert sendable({"x": value}) == {"x": plain}


def test_tables_are_cut_at_their_deepest_level():
    value = 1
    for _ in range(MAX_NESTING + 5):
        value = {"a": value}
    depth, level = 0, sendable({"a": value})
    while isinstance(level, dict):
        depth, level = depth + 1, level["a"]

    assert (depth, level) == (MAX_NESTING + 1, "…")


@each("name", ["n" * 300, "ü" * 200, "€" * 100])
def test_a_name_fits_into_the_protocols_255_bytes(name):
    cut = next(iter(sendable({name: 1})))

    assert name.startswith(cut)
    assert 250 < len(cut.encode()) <= 255


def test_headers_that_are_too_large_together_keep_what_is_short():
    short = {"id": "t", "task": "echo", "x-seq": 3}
    kept = sendable({**{f"n{number}": "v" * 900 for number in range(100)}, **short, "long": "w" * 70_000})

    assert len(json.dumps(kept)) <= MAX_HEADERS
    assert short.items() <= kept.items()


def test_a_long_value_is_cut_when_the_headers_are_too_large():
    assert len(sendable({"id": "t", "long": "w" * 70_000})["long"]) == MAX_VALUE + 1


_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20), st.dates()
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=30)
@given(st.dictionaries(st.one_of(st.text(max_size=9), st.binary(max_size=9), st.integers()), _VALUES, max_size=5))
def test_whatever_the_headers_are_amqp_and_json_carry_them(headers):
    message = decode(raw_message(headers=headers))
    again = sendable(message.headers)

    assert again == message.headers
    assert json.loads(parked_copy(message).to_json())
    assert written(message)


def raw_message(**changes):
    plain = {"body": b"", "headers": {}, "properties": {}, "content_type": None, "content_encoding": None}
    return types.SimpleNamespace(**{**plain, "delivery_info": {}, **changes})


@each("body", ["text", b"text", memoryview(b"text"), bytearray(b"text")])
def test_a_body_is_bytes_whatever_kombu_made_of_it(body):
    assert decode(raw_message(body=body)).body == b"text"


def test_what_a_message_lacks_is_empty():
    message = decode(raw_message(body=None, headers=None, properties=None, delivery_info=None))

    assert (message.body, message.headers, message.correlation_id, message.routing_key) == (
        b"", {}, None, "",
    )  # fmt: skip


_WIRE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.text(max_size=9), _WIRE, max_size=6), st.binary(max_size=9), st.integers(0, 200))
@settings(max_examples=200, deadline=None)
def test_our_reading_of_a_table_is_py_amqps(table, before, cut):
    wire = before + dumps("F", [table])
    found = decoding._loads("F", wire + b"rest", len(before))

    assert found == decoding._decode_arguments("F", wire + b"rest", len(before))
    assert decoding._ordinary_table(wire[: len(before) + cut], len(before)) in (None, found[0][0])


@each(("name",), [("echo",), ("robot.clean",), ("http.request",)])
def test_the_headers_of_our_own_messages_are_read_the_short_way(name):
    sent = []
    task = create_celery(configuration.load({})).tasks[name]
    dispatch(task, {"message": "x"}, task_id="t-1", headers={"x-seq": 0}, send=lambda *one: sent.append(one[0]))
    headers = sent[0].headers
    ((found,), _) = decoding._loads("F", dumps("F", [headers]), 0)

    assert headers["timelimit"] != [None, None]
    assert type(found) is decoding._Fit
    assert sendable(found) == sendable(dict(found)) == headers


@each(
    ("limits",),
    [([float("inf"), None],), ([decimal.Decimal(1), None],), (["1", None],), ([None, None, None],), ([[1], 2],)],
)
def test_a_pair_of_limits_that_is_none_is_read_the_long_way(limits):
    ((found,), _) = decoding._loads("F", dumps("F", [{"timelimit": limits}]), 0)

    assert type(found) is dict


def test_py_amqp_reads_with_our_decoders():
    assert method_framing.Message is decoding._Bounded


@each(
    ("encoding", "taken"), [("utf-8", True), ("UTF-8", True), ("us-ascii", True), ("punycode", False), ("idna", False)]
)
def test_kombu_decodes_no_control_message_by_an_encoding_that_could_compute_for_hours(encoding, taken):
    arguments = (b"a-" + b"9" * 1_000, "application/text", encoding)
    if taken:
        assert serialization.loads(*arguments) == arguments[0].decode()
    else:
        with pytest.raises(DecodeError, match="content encoding"):
            serialization.loads(*arguments)
