"""Changes as Redis publishes them: one subscription of the process for every waiter in it.

Redis drops a message that has no subscriber, so a waiter reads what it waits for after its channel is
confirmed, and again whenever the subscription has been away: it is woken for that.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

from dispatch.background import Background
from dispatch.errors import StoreUnavailable
from dispatch.store.client import Client

#: Seconds without a message after which Redis is asked whether it is still there.
QUIET = 5.0

#: Seconds between two looks for waiters that need not wait any more and for channels without one; a waiter that returns soon finds its own.
_SWEEP = 1.0

#: Seconds before the next attempt to subscribe.
_PAUSE = 0.5

_LOST = (redis.exceptions.RedisError, OSError)


class _Waiter:
    """One who waits for a channel.

    Args:
        over: whether there is nothing to wait for any more.
        pace: see `Changes`.
    """

    def __init__(self, over: Callable[[], bool], pace: Callable[[], None]) -> None:
        self.over = over
        self._pace = pace
        self.confirmed = threading.Event()  #: Redis has taken the subscription, or it has failed
        self.lost = False  #: it has failed
        self.news = threading.Event()  #: something may have changed

    def changed(self, seconds: float) -> bool:
        """Wait for a message; returns whether one came, or one may have been missed."""
        came = self.news.wait(seconds)
        if came:
            self.news.clear()
        self._pace()
        return came

    def note(self) -> None:
        """A message came, or the subscription is back."""
        if self.confirmed.is_set():
            self.news.set()
        self.confirmed.set()

    def fail(self) -> None:
        """The subscription is gone: a waiter that waits for its begin fails, others look whether Redis is still there."""
        self.lost = not self.confirmed.is_set()
        self.news.set()
        self.confirmed.set()


class Changes:
    """Messages for many waiters. Thread-safe; connects when the first one comes.

    Args:
        client: of Redis.
        timeout: seconds for Redis to confirm a subscription.
        pace: called by each waiter at the end of its wait, which may be that of a thousand others, too.
    """

    def __init__(self, client: Client, timeout: float, pace: Callable[[], None] = lambda: None) -> None:
        self._timeout = timeout
        self._pace = pace
        self._lock = threading.Lock()
        self._waiters: dict[str, set[_Waiter]] = {}
        self._confirmed: set[str] = set()  # channels whose messages come
        self._subscription = _Subscription(client, self)
        self._started = False

    @contextlib.contextmanager
    def listening(self, channel: str, over: Callable[[], bool]) -> Iterator[Callable[[float], bool]]:
        """Wait for messages; see `dispatch.store.scripts.RedisHandle.listening`."""
        waiter = _Waiter(over, self._pace)
        self._enter(channel, waiter)
        try:
            if not waiter.confirmed.wait(self._timeout) or waiter.lost:
                raise StoreUnavailable
            yield waiter.changed
        finally:
            self._leave(channel, waiter)

    def wake(self) -> None:
        """Have every waiter look again."""
        for waiter in self._all():
            waiter.note()

    def close(self) -> None:
        """End the subscription."""
        self._subscription.end()

    # --- used by the subscription ------------------------------------------------------------------
    def wanted(self) -> set[str]:
        """The channels that have a waiter."""
        with self._lock:
            return set(self._waiters)

    def check(self) -> None:
        """Wake those who need not wait any more: one thread asks for all, since a wake-up costs more than the question."""
        for waiter in self._all():
            if waiter.over():
                waiter.note()

    def give_up(self, asked: set[str]) -> set[str]:
        """Those of some channels that have no waiter; a later waiter finds them unconfirmed."""
        with self._lock:
            gone = asked - self._waiters.keys()
            self._confirmed -= gone
            return gone

    def confirm(self, channel: str) -> None:
        """Messages of a channel come from now on; what came before may have been missed."""
        with self._lock:
            self._confirmed.add(channel)
        self.note(channel)

    def note(self, channel: str) -> None:
        """A message of a channel came."""
        with self._lock:
            found = [*self._waiters.get(channel, ())]
        for waiter in found:
            waiter.note()

    def fail(self) -> None:
        """The subscription is gone."""
        with self._lock:
            self._confirmed.clear()
        for waiter in self._all():
            waiter.fail()

    def _all(self) -> list[_Waiter]:
        with self._lock:
            return [waiter for waiters in self._waiters.values() for waiter in waiters]

    def _enter(self, channel: str, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.setdefault(channel, set()).add(waiter)
            first, self._started = not self._started, True
            if channel in self._confirmed:
                waiter.confirmed.set()
        if first:
            self._subscription.start()
        if not waiter.confirmed.is_set():
            self._subscription.nudge()

    def _leave(self, channel: str, waiter: _Waiter) -> None:
        with self._lock:
            waiters = self._waiters[channel]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[channel]


class _Subscription(Background):
    """The one thread that reads and writes the connection: OpenSSL lets only one at a time into it.

    Args:
        client: of Redis.
        changes: knows what is wanted, and takes what comes.
    """

    def __init__(self, client: Client, changes: Changes) -> None:
        super().__init__("changes", interval=_PAUSE)
        self._client = client
        self._changes = changes
        self._pubsub: Any = None
        self._asked: set[str] = set()  # channels that Redis was asked for
        self._heard = self._swept = 0.0  # `time.monotonic` seconds
        self._pinged = False
        self._nudges: socket.socket | None = None  # readable when the thread should look what is wanted
        self._nudge: socket.socket | None = None

    def start(self) -> None:
        """Start the thread."""
        self._nudges, self._nudge = socket.socketpair()
        self._nudges.setblocking(False)
        self._nudge.setblocking(False)
        super().start()

    def nudge(self) -> None:
        """Have the thread look what is wanted."""
        if self._nudge is not None:
            with contextlib.suppress(OSError):  # enough nudges are there
                self._nudge.send(b"x")

    def end(self) -> None:
        """End the thread, whatever it waits for."""
        self.stop()
        self.nudge()
        self.stop(wait=1.0)

    def step(self) -> float:
        """Subscribe to what is wanted, wait for what comes, hand it on."""
        wanted = self._changes.wanted()
        try:
            if wanted or self._pubsub is not None:
                self._subscribe(wanted)
                self._receive()
            self._wait()
        except _LOST as exc:
            self._lose()
            raise StoreUnavailable(f"no changes from Redis: {exc}") from exc
        return 0.0

    def finish(self) -> None:
        """Close the connection."""
        self._lose()
        for end in (self._nudges, self._nudge):
            if end is not None:
                end.close()

    def _subscribe(self, wanted: set[str]) -> None:
        if self._pubsub is None:
            self._pubsub = self._client.pubsub()
            self._heard, self._pinged = time.monotonic(), False
        if new := wanted - self._asked:
            self._pubsub.subscribe(*new)
            self._asked |= new
        if time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            self._changes.check()
            if gone := self._changes.give_up(self._asked):
                self._asked -= gone
                self._pubsub.unsubscribe(*gone)

    def _receive(self) -> None:
        """Hand on what has arrived; asks Redis for a sign of life when nothing does."""
        while (message := self._pubsub.get_message(timeout=0)) is not None:
            self._heard, self._pinged = time.monotonic(), False
            if message["type"] == "message":
                self._changes.note(message["channel"])
            elif message["type"] == "subscribe" and message["channel"] in self._asked:
                self._changes.confirm(message["channel"])  # once more after redis-py has connected again by itself
        quiet = time.monotonic() - self._heard
        if self._pinged and quiet > QUIET + _PAUSE:
            raise redis.exceptions.TimeoutError("Redis is silent")
        if quiet > QUIET and not self._pinged and self._asked:
            self._pubsub.ping()
            self._pinged = True

    def _wait(self) -> None:
        """Until something arrives, or is wanted."""
        assert self._nudges is not None  # noqa: S101 - made before the thread
        poll = select.poll()
        poll.register(self._nudges, select.POLLIN)
        connection = getattr(getattr(self._pubsub, "connection", None), "_sock", None)
        if connection is not None:
            poll.register(connection, select.POLLIN)
        poll.poll(1_000 * (_PAUSE if self._pinged else _SWEEP))
        with contextlib.suppress(OSError):
            while self._nudges.recv(4_096):
                pass

    def _lose(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        self._asked = set()
        if pubsub is not None:
            with contextlib.suppress(*_LOST):
                pubsub.close()
        self._changes.fail()
