"""Server-sent events: bytes in, events out. Pure."""

from __future__ import annotations

import codecs
import dataclasses
import re

#: The line ends of the format; `str.splitlines` knows others, which may stand inside of data (U+2028, U+0085).
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclasses.dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream."""

    id: str
    event: str
    data: str


class Decoder:
    """Decodes one connection's stream, in pieces of any size."""

    def __init__(self) -> None:
        self.retry: float | None = None  #: seconds after which to reconnect, as the server asked
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """The events that a piece completes; one that the stream ends within is none.

        Args:
            piece: the next bytes.
        """
        self._rest += self._text.decode(piece)
        *lines, rest = _LINE_END.split(self._rest)
        if self._rest.endswith("\r") and lines:  # perhaps the first half of a line end
            rest = lines.pop() + "\r"
        self._rest = rest
        return [event for event in map(self._line, lines) if event is not None]

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self.retry = int(value) / 1_000
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        found = ServerSentEvent(self._id, self._event, "\n".join(self._data)) if self._data else None
        self._event, self._data = "", []
        return found
