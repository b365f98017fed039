"""Walk through the DLQ once: take messages out or leave them, without loading them all.

What is to be done about messages that have come together may be done side by side, each with its own steps and crash windows; they leave
the queue afterwards, in their order.

Messages that stay are held unacked until the end of the walk, by delivery tag alone, and then go back; RabbitMQ does
not promise their order. One walk at a time (`dispatch.deadletters.walk_lock`): what one holds, another would not see.
A crash in the middle returns every message that was not taken out.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from amqp.exceptions import AMQPError
from kombu import Connection

from dispatch.broker import connections, provision
from dispatch.broker.decoding import decode
from dispatch.broker.depth import depth
from dispatch.config.tls import Where
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.protocol import names
from dispatch.protocol.message import Message

#: Messages on one channel. A quorum queue gives a consumer 2,000 unacked messages at most (3.10), whatever its
#: prefetch: a walk that leaves more of them where they are goes on on another channel.
CHANNEL_SIZE = 500

#: Messages that are worked on side by side, at most; seconds to wait for another one.
MOST, _BESIDES = 16, 0.001

#: Seconds to wait for the next message before the queue's length is asked for, and until a silent broker is given up.
DELIVERY_WAIT, SILENCE = 0.1, 30.0

#: Seconds to wait for what a walk returns to be in the queue again; less comes when another client takes it at once.
RETURN_WAIT = 2.0


Done = TypeVar("Done")


class StopWalk(Exception):
    """Raised by a visitor: the walk is over, this message stays."""


def walk(broker: Where, lock: WalkLock, visit: Callable[[Message], bool], *, rate: float = 0.0) -> int:
    """Show every dead letter to a visitor.

    Args:
        broker: the ``replay`` role's.
        lock: held.
        visit: called with each dead letter; True takes it out, `StopWalk` ends the walk.
        rate: messages a second that are taken out at most; 0 is no limit.

    Returns:
        How many were taken out.

    Raises:
        Exception: what the visitor or the connection raised; what was not taken out is back in the queue.
    """
    return walk_side_by_side(broker, lock, visit, lambda _, taken: taken, rate=rate)


def walk_side_by_side(
    broker: Where,
    lock: WalkLock,
    work: Callable[[Message], Done],
    settle: Callable[[Message, Done], bool],
    *,
    at_once: Callable[[], int] = lambda: 1,
    rate: float = 0.0,
) -> int:
    """As `walk`, with several dead letters at once.

    Args:
        broker: the ``replay`` role's.
        lock: held.
        work: called with each dead letter, from several threads; what it raises, `StopWalk` included, ends the walk when those beside it
            are settled.
        settle: called with it, and with what ``work`` returned, one after the other, in the queue's order; True takes it out.
        at_once: asked how many may be under way now.
        rate: messages a second that are taken out at most; 0 is no limit.

    Returns, raises: as `walk`.
    """
    with (
        connections.connection(broker, heartbeat=30, connect_timeout=4) as connection,
        ThreadPoolExecutor(MOST) as pool,
    ):
        provision.connect(connection, broker)
        walking = _Walk(connection, lock, pool)
        return walking.through(work, settle, at_once, 1 / rate if rate > 0 else 0.0)


def waiting(broker: Where) -> int:
    """Messages in the DLQ now, without those that a walk holds.

    Args:
        broker: the ``replay`` role's.

    Raises:
        BrokerUnreachable: RabbitMQ can't be asked.
    """
    with connections.connection(broker, connect_timeout=4) as connection:
        provision.connect(connection, broker)
        return depth(connection.default_channel, names.DEAD_QUEUE).ready


class _Channel:
    """A channel with a consumer, and the messages that it holds."""

    def __init__(self, connection: Connection) -> None:
        self._channel = connection.channel()
        self._channel.basic_qos(0, CHANNEL_SIZE, False)
        self._held: dict[int, None] = {}  # every tag not acked, in order
        self.arrived: collections.deque[Any] = collections.deque()
        self.kept = 0  #: messages that were visited and stay
        self._consumer: str | None = self._channel.basic_consume(names.DEAD_QUEUE, callback=self._receive)

    def _receive(self, raw: Any) -> None:
        message = self._channel.message_to_python(raw)
        self._held[message.delivery_tag] = None
        self.arrived.append(message)

    def waiting(self) -> int:
        """Messages that no consumer holds; what was sent to this channel before is in `arrived` afterwards."""
        self._count()  # deliveries that the channel has queued are handed out between the two answers
        return self._count()

    def _count(self) -> int:
        return int(self._channel.queue_declare(names.DEAD_QUEUE, passive=True).message_count)

    def take_out(self, messages: Sequence[Any]) -> None:
        """Ack messages: in one step, where they are all that is held up to the last of them."""
        tags = [message.delivery_tag for message in messages]
        together = len(tags) > 1 and tags == [*itertools.islice(self._held, len(tags))]
        for tag in tags[-1:] if together else tags:
            self._channel.basic_ack(tag, together)
        for tag in tags:
            del self._held[tag]

    def cancel(self) -> None:
        if self._consumer is not None:
            self._channel.basic_cancel(self._consumer)
            self._consumer = None

    def give_back(self) -> int:
        """Return what is held; with 32 or more under way a quorum queue changes their order (measured on 3.10).

        Returns:
            How many they are.
        """
        for tag in self._held:
            self._channel.basic_reject(tag, True)
        return len(self._held)

    def close(self) -> None:
        """Return also what is still on its way to this channel."""
        self._channel.close()


class _Walk:
    def __init__(self, connection: Connection, lock: WalkLock, pool: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._lock = lock
        self._pool = pool
        self._channels: list[_Channel] = []
        self._left = 0  # messages that are in the queue when the walk has ended, unless others take some

    def through(
        self,
        work: Callable[[Message], Done],
        settle: Callable[[Message, Done], bool],
        at_once: Callable[[], int],
        pause: float,
    ) -> int:
        taken = 0
        try:
            for channel, messages in self._messages(at_once):
                began = time.monotonic()
                wires = [decode(message) for message in messages]
                out, failed = [], None
                try:
                    for message, wire, result in zip(messages, wires, self._done(work, wires), strict=True):
                        try:
                            done = result()
                        except Exception as exc:  # noqa: BLE001 - what was done for the others is settled first
                            failed = failed or exc
                            continue
                        if settle(wire, done):
                            out.append(message)
                        else:
                            channel.kept += 1
                finally:
                    channel.take_out(out)
                    taken += len(out)
                    self._left -= len(out)
                if failed is not None:
                    raise failed
                self._drain_until(began + pause * len(out))
        except StopWalk:
            pass
        finally:
            self._give_back()
        return taken

    def _done(self, work: Callable[[Message], Done], wires: Sequence[Message]) -> list[Callable[[], Done]]:
        """Work on messages; for each, what waits for its result, or raises what it raised."""
        if len(wires) == 1:
            return [lambda: work(wires[0])]
        futures: list[Future[Done]] = [self._pool.submit(contextvars.copy_context().run, work, wire) for wire in wires]
        return [future.result for future in futures]

    def _messages(self, at_once: Callable[[], int]) -> Iterator[tuple[_Channel, list[Any]]]:
        """At most as many as waited at the start: new ones are for the next walk. Those that have come go together."""
        queue = self._connection.default_channel.queue_declare(names.DEAD_QUEUE, passive=True)
        self._left = left = queue.message_count
        while left > 0:
            channel = _Channel(self._connection)
            self._channels.append(channel)
            while left > 0 and channel.kept < CHANNEL_SIZE:
                message = self._next(channel)
                if message is None:
                    return
                messages = [message, *self._more(channel, min(left, max(1, at_once()), MOST) - 1)]
                left -= len(messages)
                yield channel, messages
            channel.cancel()

    def _more(self, channel: _Channel, most: int) -> list[Any]:
        """What has come besides."""
        messages: list[Any] = []
        while len(messages) < most:
            if not channel.arrived:
                self._drain(_BESIDES)
            if not channel.arrived:
                break
            messages.append(channel.arrived.popleft())
        return messages

    def _next(self, channel: _Channel) -> Any:
        began = time.monotonic()
        while not channel.arrived:
            self._drain(DELIVERY_WAIT)
            if not channel.arrived and channel.waiting() == 0 and not channel.arrived:
                return None
            if time.monotonic() - began > SILENCE:
                raise OSError("RabbitMQ stopped delivering dead letters")
        self._lock.keep()
        return channel.arrived.popleft()

    def _drain_until(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self._drain(min(left, 1.0))

    def _drain(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=seconds)
        self._connection.heartbeat_check()
        self._lock.keep()

    def _give_back(self) -> None:
        """As far as the connection lives; without it RabbitMQ returns the messages itself."""
        with contextlib.suppress(OSError, AMQPError):
            for channel in self._channels:
                channel.cancel()
            held = sum(channel.give_back() for channel in self._channels)
            for channel in self._channels:
                channel.close()
            self._wait_until_back(max(held, self._left))

    def _wait_until_back(self, messages: int) -> None:
        """A quorum queue takes returns later than it answers questions: a walk that begins before would miss them."""
        deadline = time.monotonic() + RETURN_WAIT
        while depth(self._connection.default_channel, names.DEAD_QUEUE).ready < messages:
            if time.monotonic() >= deadline:
                break
            time.sleep(0.005)
