"""One AMQP connection that publishes with correlated confirms, for many threads at once.

py-amqp waits for *any* ack on a channel; here each publish has a future of its own, found by its delivery tag.
The locked writer and the one reader share a socket, so nobody may set a timeout on it after the handshake:
reads wait in ``poll``, writes are bounded by ``SO_SNDTIMEO``, and a stuck connection is ended by shutting its
socket down from outside (`ConfirmingConnection.kill`).

Source of the rules: RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"; for an unroutable mandatory
message the broker sends ``basic.return`` before ``basic.ack``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from amqp import spec
from amqp.exceptions import AMQPError, NotFound

from dispatch.broker import connections
from dispatch.config.tls import Where
from dispatch.errors import InDoubt, Nacked, NotSent, PublishError, Unroutable
from dispatch.protocol.message import RETRY_QUEUE, Message

#: Seconds the socket may refuse to take bytes before the connection is given up.
WRITE_TIMEOUT = 1.0

#: Seconds between heartbeats that are agreed with the broker.
HEARTBEAT = 10


#: What decides where a message goes: its exchange, and the header that picks a rung.
_Target = tuple[str, str | None]


@dataclasses.dataclass(slots=True)
class _Pending:
    future: Future[None]
    since: float
    target: _Target
    returned: Unroutable | None = None


class ConfirmingConnection:
    """A connection, from its first packet to its end; a new one is made for each.

    Args:
        address: the broker's, by one URL.
        connect_timeout: seconds for each step of the handshake.
        on_open: called with the address before the connection is made; may declare things.
    """

    def __init__(self, address: Where, *, connect_timeout: float, on_open: Callable[[Any], None] | None = None) -> None:
        self.address = address
        self.opened = threading.Event()
        self.closed = threading.Event()
        self.blocked = False  #: the broker has an alarm and takes nothing
        self.error: BaseException | None = None
        self.since = time.monotonic()
        self._on_open = on_open
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._pending: OrderedDict[int, _Pending] = OrderedDict()
        self._tag = 0
        self._taken: set[_Target] = set()
        self._refused: dict[_Target, float] = {}  # since when, of those that have taken nothing yet
        self._retired = False
        self._connection: Any = None
        self._channel: Any = None
        self._thread = threading.Thread(target=self._run, name="confirms", daemon=True)

    def start(self) -> None:
        """Connect and read, in a thread of its own."""
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether a publish can be written now."""
        return self.opened.is_set() and not self.closed.is_set() and not self.blocked and not self._retired

    def oldest(self) -> float:
        """Seconds the longest-waiting publish has waited; 0 when none does."""
        try:
            return time.monotonic() - next(iter(self._pending.values())).since
        except (StopIteration, RuntimeError):  # changed under our eyes: then something is moving
            return 0.0

    def refused(self) -> float:
        """Seconds since the first refusal of a target where another connection may help; 0 when there is none.

        A queue that is full took some before. But a connection whose first message for a quorum queue comes while that
        has no leader is refused from then on, also when there is one (3.10). And where messages are returned the broker
        may have lost its queues: a new connection applies the topology.
        """
        try:
            return time.monotonic() - min(self._refused.values())
        except (ValueError, RuntimeError):  # nothing is refused, or it changed under our eyes
            return 0.0

    @property
    def takes(self) -> bool:
        """Whether every target that was written to has taken something."""
        return bool(self._taken) and not self._refused

    def retire(self) -> None:
        """Take no more messages, and end the connection when the verdict on the last one is there."""
        with self._lock:
            self._retired = True
            idle = not self._pending
        if idle:
            self.kill(NotSent("another connection has taken over"))

    # --- writing (any thread) ----------------------------------------------------------------------
    def publish(self, message: Message, exchange: str, routing_key: str, deadline: float) -> Future[None]:
        """Write a message.

        Args:
            message: what to send, persistent and mandatory.
            exchange: where to.
            routing_key: how it is routed.
            deadline: monotonic seconds; after it nothing is written.

        Returns:
            A future that ends without a value when the broker has confirmed and routed the message, or with
            `Nacked`, `Unroutable` or `InDoubt`.

        Raises:
            NotSent: provably nothing was written.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise NotSent("the connection to RabbitMQ does not take messages fast enough")
        broken: BaseException | None = None
        try:
            if not self.usable:
                raise NotSent("RabbitMQ has raised an alarm" if self.blocked else "not connected to RabbitMQ")
            tag = self._tag + 1
            basic = self._message(message, tag)
            future: Future[None] = Future()
            self._tag = tag
            self._pending[tag] = _Pending(future, time.monotonic(), (exchange, message.text(RETRY_QUEUE)))
            try:
                arguments = (0, exchange, routing_key, True, False)
                self._channel.send_method(spec.Basic.Publish, "Bssbb", arguments, basic)
            except (OSError, AMQPError) as exc:
                broken = exc
            except BaseException:
                # The frame could not be built: the broker never counts this one, so neither may we.
                del self._pending[tag]
                self._tag = tag - 1
                raise
        finally:
            self._lock.release()
        if broken is not None:  # perhaps half a frame is out: the connection is of no use any more
            self.kill(broken)
        return future

    def heartbeat(self) -> None:
        """Keep the connection alive and notice when it is not; call about once a second."""
        if self.opened.is_set() and self._lock.acquire(timeout=0.1):
            try:
                if not self.closed.is_set():
                    self._connection.heartbeat_tick(2)
            except (OSError, AMQPError, AttributeError) as exc:
                self.error = exc
            finally:
                self._lock.release()
            if self.error is not None:
                self.kill(self.error)

    def kill(self, reason: BaseException) -> None:
        """End the connection at once, without a close method to the broker, which could block."""
        self.error = self.error or reason
        # Not `.transport`: before the connection is there, py-amqp's property would connect, and block.
        transport: Any = getattr(self._connection, "_transport", None)
        with contextlib.suppress(OSError, AttributeError):
            transport.sock.shutdown(socket.SHUT_RDWR)
        self._fail_pending()

    # --- reading (the link's own thread) -------------------------------------------------------------
    def _run(self) -> None:
        try:
            self._open()
            self.opened.set()
            self._read_for_ever()
        except Exception as exc:  # noqa: BLE001 - whatever ends the connection ends it for every publish in flight
            self.error = self.error or exc
        finally:
            self.closed.set()
            self._fail_pending()
            with self._lock, contextlib.suppress(Exception):  # no publish is being written
                self._connection.collect()

    def _open(self) -> None:
        if self._on_open is not None:
            self._on_open(self.address)
        self._connection = connections.raw(
            self.address,
            connect_timeout=self._connect_timeout,
            write_timeout=WRITE_TIMEOUT,
            heartbeat=HEARTBEAT,
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.confirm_select()
        connections.share(self._connection, WRITE_TIMEOUT)
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)

    def _read_for_ever(self) -> None:
        transport = self._connection.transport
        while not self.closed.is_set() and self.error is None:
            tls = getattr(transport.sock, "pending", None)
            ready = transport._read_buffer or (tls is not None and tls())  # noqa: SLF001 - a buffered frame makes no socket ready
            if ready or connections.wait(transport.sock, 1.0):
                self._connection.drain_events()

    def _message(self, message: Message, tag: int) -> Any:
        properties = {"delivery_mode": 2, "message_id": str(tag)}
        if message.correlation_id:
            properties["correlation_id"] = message.correlation_id
        return self._channel.prepare_message(
            message.body, None, message.content_type, message.content_encoding, dict(message.headers), properties
        )

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, Nacked())

    def _settle(self, tag: int, multiple: bool, error: PublishError | None) -> None:
        with self._lock:
            tags = [tag] if not multiple else [waiting for waiting in self._pending if waiting <= tag]
            settled = [entry for entry in (self._pending.pop(each, None) for each in tags) if entry is not None]
            done = self._retired and not self._pending
        for entry in settled:
            self._learn(entry.target, refused=error is not None, returned=entry.returned is not None)
            _resolve(entry.future, error or entry.returned)
        if done:
            self.kill(NotSent("another connection has taken over"))

    def _learn(self, target: _Target, *, refused: bool, returned: bool) -> None:
        if returned or (refused and target not in self._taken):
            self._refused.setdefault(target, time.monotonic())
        elif not refused:
            self._taken.add(target)
            self._refused.pop(target, None)

    def _on_return(self, exc: Any, exchange: str, routing_key: str, message: Any) -> None:
        tag = int(message.properties.get("message_id", 0))
        entry = self._pending.get(tag)
        if entry is not None:
            entry.returned = Unroutable(f"{exc.reply_text}: exchange {exchange!r}, routing key {routing_key!r}")

    def _on_blocked(self, _reason: str) -> None:
        self.blocked = True

    def _on_unblocked(self) -> None:
        self.blocked = False

    def _fail_pending(self) -> None:
        self.closed.set()
        with self._lock:
            waiting, self._pending = list(self._pending.values()), OrderedDict()
        # With one publish in flight, a missing exchange is that one's and nothing was stored.
        lone = len(waiting) == 1 and isinstance(self.error, NotFound)
        for entry in waiting:
            text = f"the connection ended before the confirm: {self.error!r}"
            _resolve(entry.future, Unroutable(str(self.error)) if lone else InDoubt(text))


def _resolve(future: Future[None], error: PublishError | None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
