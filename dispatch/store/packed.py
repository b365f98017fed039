"""Messages in a tenth of the memory that their objects take, for as long as this process keeps them."""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Sequence

from dispatch.protocol.message import Message

#: Bytes that a task's objects take beside those of its texts: its message's headers above all.
TASK = 3_000

#: What goes along with a message.
Words = tuple[str | int, ...]


class PackedMessages:
    """Messages, and a few words with each.

    Args:
        entries: each message with its words.
    """

    def __init__(self, entries: Sequence[tuple[Message, Words]]) -> None:
        rows = [
            (
                message.body, {**message.headers}, message.content_type, message.content_encoding,
                message.correlation_id, message.routing_key, words,
            )
            for message, words in entries
        ]  # fmt: skip
        try:
            self._packed: bytes | None = zlib.compress(marshal.dumps(rows), 1)
            self.size = len(self._packed)  #: bytes
        except ValueError:  # a header of a type that only AMQP has
            self._packed, self._rows = None, rows
            self.size = sum(TASK + len(message.body) for message, _ in entries)

    def entries(self) -> list[tuple[Message, Words]]:
        """As they were."""
        rows = self._rows if self._packed is None else marshal.loads(zlib.decompress(self._packed))  # noqa: S302 - our own
        return [(Message(*fields), words) for *fields, words in rows]
