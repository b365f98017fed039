"""Decode what comes from the broker: every client with the right to publish can send anything.

py-amqp parses what it receives on the worker's event loop. An exception there ends the worker, and then the next
one, since the broker delivers the message again. So every message becomes readable here, and fit to be sent on:
values that AMQP or JSON can't carry become text, what is too large is cut.

RabbitMQ takes bodies of 128 MiB (16 MiB since 4.0), and AMQP has no prefetch by size: forty of them would fill a
worker's memory. So the body of a message that is larger than `MAX_MESSAGE` is read and dropped, but for its beginning.
Such a message is never published again from here; the broker itself moves it to the DLQ, whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from amqp import abstract_channel, basic_message, method_framing, serialization
from amqp.spec import Basic
from kombu import serialization as kombu_serialization

from dispatch.protocol.message import COMPRESSION, MAX_MESSAGE, TOO_LARGE, UNREADABLE, Message

#: Bytes of all headers. They travel in one frame, of 128 KiB at most, and a hand-over adds its own.
MAX_HEADERS = 65_536

#: Characters of each value of headers that are too large together, and levels of tables within tables.
MAX_VALUE, MAX_NESTING = 1_000, 8

#: Content encodings whose text is made in a time that grows with the bytes. Others take the square of it (punycode, idna: 4 MiB
#: take hours), and nothing of ours writes any but UTF-8.
_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

#: Bytes of a header's name and of a routing key, by the protocol.
_MAX_NAME = 255

#: Bytes that are kept of a body that is too large.
_BEGINNING = 1_000

#: Bytes of a table that is fit to be sent on as it is, whatever JSON makes of it.
_SMALL = 4_096

#: Values of other types that are fit, too: what Celery's own headers have, beside a pair of time limits.
_PLAIN: tuple[Any, ...] = (True, False, {}, [])

#: Characters that JSON can make of one; and of a number, with what is around a header's name and value.
_LONGEST_ESCAPE, _AROUND = 12, 30

#: Of a table: a length; the types of text and of nothing; those of whole numbers, signed, of 32 and 64 bits.
_LENGTH, _TEXT, _NOTHING = struct.Struct(">I"), ord("S"), ord("V")
_NUMBERS = {ord("I"): struct.Struct(">i"), ord("l"): struct.Struct(">q"), ord("L"): struct.Struct(">q")}

_INT64 = range(-(2**63), 2**63)


_decode_properties, _decode_arguments = serialization.decode_properties_basic, serialization.loads
_read_item = serialization._read_item  # noqa: SLF001


def install() -> None:
    """Have py-amqp read what it can't parse as a message without properties, and drop bodies that are too large."""
    serialization.PROPERTY_CLASSES[Basic.CLASS_ID] = _tolerant
    serialization.loads = _loads
    abstract_channel.loads = _tolerant_arguments
    method_framing.Message = _Bounded
    kombu_serialization._decode = decoded  # noqa: SLF001 - of control messages, too, in types that kombu always takes


def decoded(body: bytes, encoding: str) -> str:
    """A body as text.

    Args:
        body: as it came.
        encoding: that its sender has named.

    Raises:
        LookupError: the encoding is none that we take.
        UnicodeDecodeError: the body is not in it.
    """
    if encoding.lower() not in _ENCODINGS:
        raise LookupError(f"the content encoding is {encoding[:_MAX_NAME]!r}, not UTF-8")
    return body.decode(encoding)


class _Body(bytes):
    """A body that py-amqp makes text of as soon as it has come, in whatever encoding its sender has named."""

    def decode(self, encoding: str = "utf-8", _errors: str = "") -> str:
        return decoded(bytes(self), encoding)


def _loads(types: str, buffer: bytes, offset: int) -> Any:
    if types == "F" and (table := _ordinary_table(buffer, offset)) is not None:
        return [table], offset + _LENGTH.size + _LENGTH.unpack_from(buffer, offset)[0]
    return _decode_arguments(types, buffer, offset)


class _Fit(dict[str, Any]):
    """Headers that AMQP and JSON both can carry: a small table of text, whole numbers and nothing."""


def _ordinary_table(buffer: bytes, offset: int) -> dict[str, Any] | None:
    """A table as py-amqp reads it, in a third of the time where its values are text, whole numbers and nothing.

    Returns:
        The table; None for one that only py-amqp's leniency can read.
    """
    table: dict[str, Any] = _Fit()
    try:
        at = offset + _LENGTH.size
        end = at + _LENGTH.unpack_from(buffer, offset)[0]
        while at < end:
            start, at = at + 1, at + 1 + buffer[at]
            name, kind = buffer[start:at].decode(), buffer[at]
            at += 1
            if kind == _TEXT:
                start = at + _LENGTH.size
                at = start + _LENGTH.unpack_from(buffer, at)[0]
                table[name] = buffer[start:at].decode()
            elif kind == _NOTHING:
                table[name] = None
            elif kind in _NUMBERS:
                table[name] = _NUMBERS[kind].unpack_from(buffer, at)[0]
                at += _NUMBERS[kind].size
            else:
                table[name], at = _read_item(buffer, at - 1)
                if table[name] not in _PLAIN and not _limits(table[name]):
                    table = dict(table)
        if end - offset > _SMALL:
            table = dict(table)
    except (IndexError, UnicodeDecodeError, struct.error):
        return None
    return table if at == end <= len(buffer) else None


def _limits(value: Any) -> bool:
    """Whether a value is a pair of time limits."""
    return type(value) is list and len(value) == 2 and all(each is None or _is_number(each) for each in value)


class _Lenient(bytes):
    """A frame whose text need not be UTF-8."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _Lenient(part) if isinstance(part, bytes) else part

    def decode(self, encoding: str = "utf-8", _errors: str = "") -> str:
        return super().decode(encoding, "backslashreplace")


def _tolerant_arguments(types: str, buffer: bytes, offset: int) -> Any:
    """The arguments of a method; the routing key of a delivery is whatever bytes its sender chose."""
    try:
        return _decode_arguments(types, buffer, offset)
    except UnicodeDecodeError:
        return _decode_arguments(types, _Lenient(buffer), offset)


class _Bounded(basic_message.Message):
    """A message on its way in, frame by frame."""

    body: Any
    ready: bool

    def inbound_header(self, buf: bytes, offset: int = 0) -> int:
        end: int = super().inbound_header(buf, offset)
        self.properties.get("application_headers", {}).pop(TOO_LARGE, None)  # a client must not set it
        self._digest = hashlib.blake2b(digest_size=16) if self.body_size > MAX_MESSAGE else None
        return end

    def inbound_body(self, buf: bytes) -> None:
        if self._digest is None:
            super().inbound_body(buf)
            if self.ready:
                self.body = _Body(self.body)
            return
        if not self.body_received:
            self.body = bytes(buf[:_BEGINNING])
        self._digest.update(buf)
        self.body_received += len(buf)
        if self.body_received >= self.body_size:
            size = f"{self.body_size} bytes, more than {MAX_MESSAGE}; blake2b {self._digest.hexdigest()}"
            self.properties.setdefault("application_headers", {})[TOO_LARGE] = size
            self.ready = True


def _tolerant(buffer: bytes, offset: int) -> tuple[dict[str, Any], int]:
    try:
        properties, end = _decode_properties(buffer, offset)
    except Exception as exc:  # noqa: BLE001 - ten kinds are known, from a year 60000 to tables nested 10,000 deep
        start = base64.b64encode(bytes(buffer[offset : offset + MAX_VALUE])).decode()
        return {"application_headers": {UNREADABLE: f"{type(exc).__name__}: {start}"}}, len(buffer)
    headers = properties.get("application_headers")
    if headers and "compression" in headers:
        headers[COMPRESSION] = headers.pop("compression")
    return properties, end


def decode(message: Any) -> Message:
    """A message as kombu delivered it, as ours."""
    body = message.body
    properties = message.properties or {}
    return Message(
        body=body.encode() if isinstance(body, str) else bytes(body or b""),
        headers=sendable(message.headers or {}),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=properties.get("correlation_id"),
        routing_key=_name((message.delivery_info or {}).get("routing_key") or ""),
    )


def sendable(headers: Mapping[Any, Any]) -> dict[str, Any]:
    """The headers as AMQP and JSON both can carry them.

    Args:
        headers: as py-amqp read them.

    Returns:
        Text, 64-bit numbers, booleans, and tables and lists of these, in one frame; the rest as text.
    """
    if type(headers) is _Fit:
        return dict(headers)
    plain, longest = {}, 0  # the longest that JSON can make of it
    for given, raw in headers.items():
        name = given if type(given) is str and given.isascii() and len(given) <= _MAX_NAME else _name(given)
        kind = type(raw)
        if kind is str and raw.isascii():
            value, size = raw, len(raw)
        elif raw is None or kind is bool or (kind is int and raw in _INT64):
            value, size = raw, 0
        else:
            value = _plain(raw)
            size = len(value) if isinstance(value, str) else len(json.dumps(value))
        plain[name] = value
        longest += (len(name) + size) * _LONGEST_ESCAPE + _AROUND
    if longest <= MAX_HEADERS or len(json.dumps(plain)) <= MAX_HEADERS:
        return plain
    kept: dict[str, Any] = {}
    room = MAX_HEADERS
    # What a hand-over needs is short and comes first.
    for name, value in sorted(plain.items(), key=lambda item: len(json.dumps(item))):
        text = json.dumps(value)
        short = value if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"
        room -= len(json.dumps({name: short}))
        if room < 0:
            break
        kept[name] = short
    return kept


def _plain(value: Any, level: int = 0) -> Any:
    if value is None or isinstance(value, bool) or _is_number(value):
        return value
    if isinstance(value, dict | list | tuple):
        return _table(value, level + 1) if level < MAX_NESTING else "…"
    return _text(value)


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and value in _INT64) or (isinstance(value, float) and math.isfinite(value))


def _table(value: Any, level: int) -> Any:
    if isinstance(value, dict):
        return {_name(name): _plain(each, level) for name, each in value.items()}
    return [_plain(each, level) for each in value]


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate is no text for Redis


def _name(name: Any) -> str:
    return _text(name).encode()[:_MAX_NAME].decode("utf-8", "ignore")


install()
