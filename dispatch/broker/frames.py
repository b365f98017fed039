"""A publish as AMQP 0-9-1 has it on the wire: the bytes that py-amqp writes, in a tenth of its time; and its confirm. Pure.

py-amqp remains in charge of the connection; it writes what does not fit here, and handles every frame that is no confirm.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from amqp.exceptions import UnexpectedFrame

from dispatch.protocol.message import Message

_END = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3

#: Type, channel and length of a frame; what frames have beside their payload, bytes.
_frame = struct.Struct(">BHI").pack
OVERHEAD = 8

#: Class and method of ``basic.publish``, and its reserved field; the flags: mandatory, not immediate.
_PUBLISH, _MANDATORY = struct.pack(">HHH", 60, 40, 0), b"\x01"

#: Class, weight and size of the body; then the flags of the properties.
_content = struct.Struct(">HHQH").pack
_CONTENT_TYPE, _ENCODING, _HEADERS, _DELIVERY_MODE, _CORRELATION, _MESSAGE_ID = (
    1 << bit for bit in (15, 14, 13, 12, 10, 7)
)

_PERSISTENT = b"\x02"

_length = struct.Struct(">I").pack
_text = struct.Struct(">cI").pack
_small = struct.Struct(">ci").pack
_large = struct.Struct(">cq").pack
_real = struct.Struct(">cd").pack

_BOOLEANS = {True: b"t\x01", False: b"t\x00"}

#: Beyond it, either way, py-amqp writes a number in eight bytes.
_SMALL = 2**31 - 1


def publish(
    message: Message, exchange: str, routing_key: str, *, message_id: str, channel: int, frame_max: int
) -> bytes:
    """The frames of a persistent, mandatory publish.

    Args:
        message: what to send.
        exchange: where to.
        routing_key: how it is routed.
        message_id: for the property of that name.
        channel: the channel's number.
        frame_max: bytes of a frame at most, as agreed with the broker.

    Returns:
        All frames in a row.

    Raises:
        ValueError: it does not fit: a text or a table is too long, or a value has a type that no message of ours has.
        TypeError: the same.
        struct.error: a number is too large.
    """
    method = b"".join((_PUBLISH, _short(exchange), _short(routing_key), _MANDATORY))
    header = _header(message, message_id)
    most, body = frame_max - OVERHEAD, message.body
    if len(header) > most:
        raise ValueError("the headers need more than one frame")
    parts = [_frame(_METHOD, channel, len(method)), method, _END, _frame(_HEADER, channel, len(header)), header, _END]
    for start in range(0, len(body), most):
        part = body[start : start + most]
        parts += (_frame(_BODY, channel, len(part)), part, _END)
    return b"".join(parts)


def _header(message: Message, message_id: str) -> bytes:
    flags, properties = _HEADERS | _DELIVERY_MODE | _MESSAGE_ID, []
    if message.content_type is not None:
        flags |= _CONTENT_TYPE
        properties.append(_short(message.content_type))
    if message.content_encoding is not None:
        flags |= _ENCODING
        properties.append(_short(message.content_encoding))
    properties += (_table(message.headers), _PERSISTENT)
    if message.correlation_id:
        flags |= _CORRELATION
        properties.append(_short(message.correlation_id))
    properties.append(_short(message_id))
    return _content(60, 0, len(message.body), flags) + b"".join(properties)


def _short(text: str) -> bytes:
    """A short string: at most 255 bytes."""
    encoded = text.encode("utf-8", "surrogatepass")
    return bytes((len(encoded),)) + encoded


#: Of the names in tables, which are few.
_name = functools.lru_cache(1_024)(_short)


def _table(fields: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for name, value in fields.items():
        last = _last.get(name)
        if last is not None and last[0] is value:
            parts.append(last[1])
        elif name in _COMMON and (
            value is None or isinstance(value, int) or (isinstance(value, str) and len(value) <= _BRIEF)
        ):
            field = _field(name, value)
            _last[name] = value, field
            parts.append(field)
        else:
            parts += (_name(name), _value(value))
    table = b"".join(parts)
    return _length(len(table)) + table


#: By name, the value that a common header had last, and its field: those of a template are the same objects in each message.
_last: dict[str, tuple[str | int | None, bytes]] = {}


#: Headers of Celery's that are the same in all messages of a task type, or of a process.
_COMMON = frozenset({
    "lang", "task", "shadow", "eta", "expires", "group", "group_index", "retries", "parent_id", "argsrepr", "kwargsrepr", "origin",
    "ignore_result", "replaced_task_nesting", "stamped_headers", "x-cycle", "x-seq", "x-attempt", "x-principal",
})  # fmt: skip


#: Characters of a text that is kept: any client may write such a header.
_BRIEF = 100


@functools.lru_cache(1_024, typed=True)  # 1 and True are the same key, and other bytes
def _field(name: str, value: str | int | None) -> bytes:
    return _name(name) + _value(value)


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        return _text(b"S", len(encoded)) + encoded
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return _BOOLEANS[value]
    if isinstance(value, int):
        return _small(b"I", value) if -_SMALL <= value <= _SMALL else _large(b"L", value)
    if isinstance(value, float):
        return _real(b"d", value)
    return _nested(value)


def _nested(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"F" + _table(value)
    if isinstance(value, list | tuple):
        items = b"".join(map(_value, value))
        return b"A" + _length(len(items)) + items
    raise TypeError(f"{type(value).__name__} in a header")


class AmqpFrame(NamedTuple):
    """A frame that has arrived, as py-amqp takes it."""

    kind: int
    channel: int
    payload: bytes


class Confirm(NamedTuple):
    """The verdict of the broker on one publish, or on all up to it."""

    tag: int
    multiple: bool
    acked: bool


_read_frame = struct.Struct(">BHI").unpack_from
_read_confirm = struct.Struct(">HHQB").unpack_from

#: Class of ``basic``; its methods ack and nack, and the bytes of one.
_BASIC, _ACK, _NACK, _CONFIRM_SIZE = 60, 80, 120, 13


def whole(buffer: bytearray) -> Iterator[AmqpFrame]:
    """The whole frames at the begin of a buffer, which they leave.

    Args:
        buffer: what was read and not handled yet.

    Yields:
        Each frame, once it has left the buffer.

    Raises:
        UnexpectedFrame: a frame does not end where it should.
    """
    while len(buffer) >= OVERHEAD:
        kind, channel, size = _read_frame(buffer)
        end = size + OVERHEAD
        if len(buffer) < end:
            return
        if buffer[end - 1] != _END[0]:
            raise UnexpectedFrame(f"a frame ends in {buffer[end - 1]:#04x}")
        payload = bytes(buffer[OVERHEAD - 1 : end - 1])
        del buffer[:end]
        yield AmqpFrame(kind, channel, payload)


def confirm(frame: AmqpFrame) -> Confirm | None:
    """The confirm in a frame; None where it is something else."""
    if frame.kind != _METHOD or len(frame.payload) != _CONFIRM_SIZE:
        return None
    kind, method, tag, flags = _read_confirm(frame.payload)
    if kind != _BASIC or method not in (_ACK, _NACK):
        return None
    return Confirm(tag, bool(flags & 1), method == _ACK)
