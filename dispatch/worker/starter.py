"""Deliveries on their way to a handler: they wait here without a claim, and are claimed when one can run them *now*.

A claim begins an attempt and a lease. So what waits behind busy processes has neither, and keeps its place in the line; what
was claimed and can't start after all (its process died, or has a run before it that takes long) gives its claim back, which
uses up no attempt and counts no lost run.

Where handlers run is a `Places`: processes (`dispatch.worker.prefork`), or threads. Everything before and after the handler
is the same for all of them: a delivery in, `DeliveryRequest.on_accepted` when its handler begins, and
`DeliveryRequest.on_success` or `on_failure` at its end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from dispatch.crashpoints import reach
from dispatch.protocol.message import Message
from dispatch.store.claims import ClaimAnswer, Claimed
from dispatch.worker.batcher import Batcher
from dispatch.worker.lines import DeliveryLine, OneLine
from dispatch.worker.pace import Pace


class Places(Protocol):
    """Where handlers run. For the event loop's thread."""

    def take(self, seconds: float) -> Any | None:
        """Reserve room for a run that takes about so long, and could start now; None when there is none."""

    def leave(self, place: Any, seconds: float) -> None:
        """Give a reservation back."""

    def start(self, place: Any, requests: Sequence[Any]) -> None:
        """Run deliveries for which room is reserved; those that can't start after all go to `Starter.give_back`."""

    def recall(self) -> None:
        """Give back what was started and has not begun."""

    def end(self, request: Any, error: Exception) -> bool:
        """End a run that has begun: its process is killed, or its thread fenced, and it fails with an error; False when none runs."""


def _never(_: Message) -> None:
    """No pause holds it."""


class Starter:
    """The line of deliveries. For the event loop's thread.

    Args:
        batcher: claims.
        pace: how long runs take.
        held_by: the pause that holds a message's task; None when it may run.
        line: where deliveries wait; by default in the order in which they come.
    """

    def __init__(
        self,
        batcher: Batcher,
        pace: Pace,
        held_by: Callable[[Message], str | None] = _never,
        line: DeliveryLine | None = None,
    ) -> None:
        self._batcher = batcher
        self._held_by = held_by
        self._pace = pace
        self._waiting: DeliveryLine = OneLine() if line is None else line
        self._returned: list[Any] = []
        self._ready: dict[Any, list[Any]] = {}  # claimed, by place
        self._closed = False
        self.places: Places | None = None  #: set when the pool is there

    def add(self, request: Any) -> None:
        """A delivery that passed its checks, or one that was held."""
        self._waiting.append(request)

    def give_back(self, requests: Iterable[Any]) -> None:
        """Claimed deliveries that have not begun: they give up their claims, and are the first in the line again."""
        for request in requests:
            request.unclaim()
            self._returned.append(request)

    def forget(self) -> None:
        """The connection is lost, or the worker ends: the broker delivers again what has not begun."""
        self._waiting.clear()
        if self.places is not None:
            self.places.recall()
        self._give_back_ready()
        self._returned.clear()

    def close(self) -> None:
        """The worker ends: nothing starts any more."""
        self._closed = True
        self.forget()

    def turn(self) -> None:
        """End a turn of the event loop: start what was claimed, and claim what can start now."""
        if self._ready:
            self._start()
        if self._returned:
            self._waiting.extendleft(reversed(self._returned))
            self._returned.clear()
        if self._waiting and not self._closed:
            self._claim()
        self._batcher.kick()

    def _claim(self) -> None:
        while self.places is not None and (request := self._waiting.peek()) is not None:
            held_by = None if request.undoing or not request.deliverable else self._held_by(request.wire)
            if held_by is not None:
                request.hold(held_by)  # for which it needs no place
            elif request.deliverable:
                request.seconds = self._pace.seconds(request.wire.type)
                place = self.places.take(request.seconds)
                if place is None:
                    return
                if request.keys:
                    request.take_keys(functools.partial(self._keyed, request, place))
                else:
                    self._batcher.ask(request.to_claim(), functools.partial(self._answered, request, place))
            self._waiting.popleft()

    def _keyed(self, request: Any, place: Any, others: Any) -> None:
        """Its concurrency keys are taken, or `others` is the one that others hold."""
        starts = others is None and request.deliverable and not self._closed
        # Taking them may have waited for seconds, behind copies that RabbitMQ does not take: it may be paused by now.
        held_by = self._held_by(request.wire) if starts and not request.undoing else None
        if starts and held_by is None:
            self._batcher.ask(request.to_claim(), functools.partial(self._answered, request, place))
            return
        if self.places is not None:
            self.places.leave(place, request.seconds)
        request.not_keyed(others)  # a key that it has taken lapses, or is its task's still when that goes on
        if held_by is not None:
            request.hold(held_by)

    def _answered(self, request: Any, place: Any, answer: Any) -> None:
        if isinstance(answer, Claimed) and answer.answer is ClaimAnswer.RUN:
            request.claimed()
            self._ready.setdefault(place, []).append(request)
            return
        assert self.places is not None  # noqa: S101 - for the type checker
        self.places.leave(place, request.seconds)
        request.not_claimed(answer)

    def _start(self) -> None:
        if self._closed:
            self._give_back_ready()
            return
        assert self.places is not None  # noqa: S101 - for the type checker
        ready, self._ready = self._ready, {}
        for place, requests in ready.items():
            reach("claim.answered")
            for request in requests:
                if not request.deliverable:
                    self.places.leave(place, request.seconds)
                    request.unclaim()
            if here := [request for request in requests if request.deliverable]:
                self.places.start(place, here)

    def _give_back_ready(self) -> None:
        ready, self._ready = self._ready, {}
        for place, requests in ready.items():
            for request in requests:
                if self.places is not None:
                    self.places.leave(place, request.seconds)
                request.unclaim()
