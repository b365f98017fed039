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
from collections.abc import Mapping
from typing import Any

from amqp import abstract_channel, basic_message, method_framing, serialization
from amqp.spec import Basic

from dispatch.protocol.message import MAX_MESSAGE, TOO_LARGE, UNREADABLE, Message

#: Where a foreign message's ``compression`` header goes: kombu would decompress the body, however large it gets.
COMPRESSION = "x-compression"

#: Bytes of all headers. They travel in one frame, of 128 KiB at most, and a hand-over adds its own.
MAX_HEADERS = 65_536

#: Characters of each value of headers that are too large together, and levels of tables within tables.
MAX_VALUE, MAX_NESTING = 1_000, 8

#: Bytes of a header's name and of a routing key, by the protocol.
_MAX_NAME = 255

#: Bytes that are kept of a body that is too large.
_BEGINNING = 1_000

_INT64 = range(-(2**63), 2**63)


_decode_properties, _decode_arguments = serialization.decode_properties_basic, serialization.loads


def install() -> None:
    """Have py-amqp read what it can't parse as a message without properties, and drop bodies that are too large."""
    serialization.PROPERTY_CLASSES[Basic.CLASS_ID] = _tolerant
    abstract_channel.loads = _tolerant_arguments
    method_framing.Message = _Bounded


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

    def inbound_header(self, buf: bytes, offset: int = 0) -> int:
        end: int = super().inbound_header(buf, offset)
        self.properties.get("application_headers", {}).pop(TOO_LARGE, None)  # a client must not set it
        self._digest = hashlib.blake2b(digest_size=16) if self.body_size > MAX_MESSAGE else None
        return end

    def inbound_body(self, buf: bytes) -> None:
        if self._digest is None:
            super().inbound_body(buf)
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
    plain = {_name(name): _plain(value) for name, value in headers.items()}
    if len(json.dumps(plain)) <= MAX_HEADERS:
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
