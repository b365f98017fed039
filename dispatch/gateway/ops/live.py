"""``/ops/live``: what changes on open pages, as server-sent events; rendered once for all viewers with the same rights."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flask
from flask import Response

from dispatch.gateway.http import context, long_poll
from dispatch.gateway.http.long_poll import WaitingRoom
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops.door import Door
from dispatch.gateway.ops.frame import render
from dispatch.gateway.ops.pages import may, page, visitor
from dispatch.gateway.ops.pulse import Pulse, Reading
from dispatch.gateway.views import event_stream

#: Seconds without an event after which a comment keeps the connection alive, and its client is looked for.
HEARTBEAT = 10.0

#: Seconds of a stream: when its page connects again, its session is looked at anew.
LONGEST = 300.0

_STREAM_RETRY = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """A part of pages that changes."""

    name: str  #: of its event
    scope: str | None  #: that its viewers have
    #: Its text, by a reading and a viewer's scopes; equal texts are sent once. HTML, or whatever the page's script reads.
    text: Callable[[Reading, frozenset[str]], str]


class Topics:
    """The texts of topics, made once for each reading and kind of viewer.

    Args:
        topics: all of them.
    """

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._number = 0
        self._made: dict[tuple[str, frozenset[str]], str] = {}

    def named(self, names: Sequence[str]) -> list[Topic]:
        """Those of some names that the current visitor may follow."""
        known = [self._topics[name] for name in names if name in self._topics]
        return [topic for topic in known if topic.scope is None or may(topic.scope)]

    def text(self, topic: Topic, reading: Reading, scopes: frozenset[str]) -> str:
        """The text of a topic."""
        if reading.number != self._number:
            self._number, self._made = reading.number, {}
        key = (topic.name, scopes)
        if key not in self._made:
            self._made[key] = topic.text(reading, scopes)
        return self._made[key]


class LivePages:
    """The stream.

    Args:
        pulse: the readings.
        topics: what is sent of them.
        door: who may go on watching.
        room: places of event streams, shared with those of the API.
    """

    def __init__(self, pulse: Pulse, topics: Topics, door: Door, room: WaitingRoom) -> None:
        self._pulse, self._topics, self._door, self._room = pulse, topics, door, room

    @page("live", "/live")
    def live(self) -> Response:
        """Changes of the topics that the page has."""
        topics = self._topics.named(flask.request.args.get("topics", "").split(","))
        over = ending(self._door, None)
        return stream(self._room, self._events(topics, visitor().principal.scopes, over))

    def _events(self, topics: Sequence[Topic], scopes: frozenset[str], over: Callable[[], bool]) -> Iterator[str]:
        yield "retry: 2000\n\n"
        began = last = time.monotonic()
        number, sent = 0, dict.fromkeys((one.name for one in topics), "")
        while not over() and time.monotonic() - began < LONGEST:
            reading = self._pulse.follow(number, HEARTBEAT)
            if reading is not None and reading.number != number:
                number = reading.number
                for topic in topics:
                    text = self._topics.text(topic, reading, scopes)
                    if text != sent[topic.name]:
                        sent[topic.name], last = text, time.monotonic()
                        yield event(topic.name, text)
            if time.monotonic() - last >= HEARTBEAT:  # also where there are readings, and nothing has changed
                last = time.monotonic()
                yield ": keep-alive\n\n"


def ending(door: Door, scope: str | None) -> Callable[[], bool]:
    """Whether a stream is to end: its client has gone, its session is over, or its API key has no more right to it."""
    unneeded, still = long_poll.cancellation(), door.still(visitor(), scope)
    return lambda: unneeded() or not still()


def stream(room: WaitingRoom, events: Iterator[str]) -> Response:
    """A stream that has a place of its own while it lasts.

    Raises:
        Problem: 503, there is none.
    """
    who = context.principal().id
    if room.enter(who, long_poll.STREAM) is not long_poll.WaitPlace.TAKEN:
        raise Problem("stream-capacity", retry_after=_STREAM_RETRY)
    response = Response(events, mimetype=event_stream.MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
    response.call_on_close(functools.partial(room.leave, who, long_poll.STREAM))
    return response


def event(name: str, text: str) -> str:
    """A server-sent event with a text of any number of lines."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


def templated(environment: Any, template: str, shown: Callable[[Reading, frozenset[str]], Mapping[str, Any]]) -> Any:
    """The text of a topic that is a template.

    Args:
        environment: Jinja's.
        template: below ``templates/ops``.
        shown: what it needs, by a reading and a viewer's scopes.
    """
    return lambda reading, scopes: render(environment, template, {**shown(reading, scopes), "scopes": scopes})
