"""One AMQP connection that publishes with correlated confirms, for many threads at once.

py-amqp waits for *any* ack on a channel; here each publish has a verdict of its own, found by its delivery tag.
All publishes of one turn of the event loop leave in one write, by the first of them. The locked writer and the one reader share a socket, so no caller may set a timeout on it after the handshake:
reads wait for as long as it takes, writes are bounded (`connections.share`), and a stuck connection is ended by shutting its
socket down from outside (`ConfirmingConnection.kill`).

Source of the rules: RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"; for an unroutable mandatory
message the broker sends ``basic.return`` before ``basic.ack``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from amqp import spec
from amqp.exceptions import AccessRefused, AMQPError, NotFound

from dispatch.broker import connections, frames
from dispatch.config.tls import Where
from dispatch.errors import InDoubt, Nacked, NotSent, PublishError, Unroutable
from dispatch.protocol.message import RETRY_QUEUE, Copy, Message

#: Seconds the socket may refuse to take bytes before the connection is given up.
WRITE_TIMEOUT = 1.0

#: Bytes that are read at once.
_READ = 65_536

#: Seconds between heartbeats that are agreed with the broker.
HEARTBEAT = 10


#: What decides where a message goes: its exchange, and the header that picks a rung.
_Target = tuple[str, str | None]


class ConfirmVerdict:
    """What the broker answers to one publish; for one caller to wait for."""

    __slots__ = ("_done", "_error", "_wake")

    def __init__(self) -> None:
        self._done = False
        self._error: PublishError | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def done(self) -> bool:
        """Whether it is there."""
        return self._done

    def exception(self) -> PublishError | None:
        """Why the message was not taken, as far as is known; None when it was."""
        return self._error

    def result(self, timeout: float) -> None:
        """Wait for it.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it is not there.
            PublishError: the message was not taken, or that is unknown.
        """
        if not (self._done or self._wake.acquire(timeout=timeout)):
            raise TimeoutError
        if self._error is not None:
            raise self._error

    def settle(self, error: PublishError | None) -> None:
        """It is there; only the first one counts."""
        if not self._done:
            self._error, self._done = error, True
            self._wake.release()


def _unsent(reason: str) -> ConfirmVerdict:
    """Of a message of which no byte was written."""
    verdict = ConfirmVerdict()
    verdict.settle(NotSent(reason))
    return verdict


@dataclasses.dataclass(slots=True)
class _Pending:
    verdict: ConfirmVerdict
    since: float
    target: _Target
    written: bool = True  #: False: no byte of it can have left
    returned: Unroutable | None = None


#: A publish that has its confirm, and what the broker did not do.
_Settled = tuple[_Pending, PublishError | None]


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
        self._out: list[tuple[_Pending, bytes]] = []  # of this turn of the event loop, in the order of their tags
        self._taken: set[_Target] = set()
        self._refused: dict[_Target, float] = {}  # since when, of those that have taken nothing yet
        self._retired = False
        self._connection: Any = None
        self._channel: Any = None
        self._frame_max = 0  # bytes; 0: py-amqp makes all frames
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
    def publish(self, message: Message, exchange: str, routing_key: str, deadline: float) -> ConfirmVerdict:
        """Write a message.

        Args:
            message: what to send, persistent and mandatory.
            exchange: where to.
            routing_key: how it is routed.
            deadline: monotonic seconds; after it nothing is written.

        Returns:
            A verdict without an error when the broker has confirmed and routed the message, or with `Nacked`, `Unroutable`,
            `InDoubt`, or `NotSent`.

        Raises:
            NotSent: provably nothing was written.
        """
        self._acquire(deadline)
        try:
            first = not self._out
            verdict, broken = self._add(message, exchange, routing_key)
            first = first and bool(self._out)
        finally:
            self._lock.release()
        if first:
            self._write_turn()
        if broken is not None:  # perhaps half a frame is out: the connection is of no use any more
            self.kill(broken)
        return verdict

    def publish_all(self, copies: Sequence[Copy], deadline: float) -> list[ConfirmVerdict]:
        """Write several messages together; arguments and verdicts as of `publish`, one for each.

        Raises:
            NotSent: provably nothing was written.
        """
        verdicts: list[ConfirmVerdict] = []
        broken: BaseException | None = None
        self._acquire(deadline)
        try:
            first = not self._out
            for copy in copies:
                verdict, broken = self._added(copy) if broken is None else (_unsent(str(broken)), broken)
                verdicts.append(verdict)
            first = first and bool(self._out)
        finally:
            self._lock.release()
        if first:
            self._write_turn()
        if broken is not None:
            self.kill(broken)
        return verdicts

    def _acquire(self, deadline: float) -> None:
        """Take the lock of a connection that takes messages.

        Raises:
            NotSent: it does not.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise NotSent("the connection to RabbitMQ does not take messages fast enough")
        if not self.usable:
            self._lock.release()
            raise NotSent("RabbitMQ has raised an alarm" if self.blocked else "not connected to RabbitMQ")

    def _added(self, copy: Copy) -> tuple[ConfirmVerdict, BaseException | None]:
        """As `_add`, where one message that no frames can be made of must not stop the others."""
        try:
            return self._add(copy.message, copy.exchange, copy.routing_key)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a message
            return _unsent(repr(exc)), None

    def _add(self, message: Message, exchange: str, routing_key: str) -> tuple[ConfirmVerdict, BaseException | None]:
        """Put a message into this turn's write; the lock is held. Returns what has broken the connection, too."""
        tag = self._tag + 1
        framed = self._framed(message, exchange, routing_key, tag)
        target = (exchange, message.text(RETRY_QUEUE))
        pending = _Pending(ConfirmVerdict(), time.monotonic(), target, written=framed is None)
        self._tag = tag
        self._pending[tag] = pending
        if framed is None:
            return pending.verdict, self._write_by_library(message, exchange, routing_key, tag)
        self._out.append((pending, framed))
        return pending.verdict, None

    def _framed(self, message: Message, exchange: str, routing_key: str, tag: int) -> bytes | None:
        """The frames of a publish; None where py-amqp has to make them."""
        if not self._frame_max:
            return None
        number, most = self._channel.channel_id, self._frame_max
        try:
            return frames.publish(message, exchange, routing_key, message_id=str(tag), channel=number, frame_max=most)
        except (ValueError, TypeError, struct.error):
            return None

    def _write_turn(self) -> None:
        """Write what this turn of the event loop has brought, also where the caller is ended in between."""
        try:
            time.sleep(0)  # every publish that is ready in this turn adds its own
        finally:
            broken = None
            with self._lock:
                try:
                    self._write_out()
                except (OSError, AMQPError) as exc:
                    broken = exc
                except BaseException as exc:
                    self._shut(exc)  # perhaps half a frame is out: nothing may follow it
                    raise
            if broken is not None:
                self.kill(broken)

    def _write_out(self) -> None:
        """Write what has come together; the lock is held."""
        out, self._out = self._out, []
        if out:
            for pending, _ in out:
                pending.written = True
            self._connection.bytes_sent += len(out)  # counts as a heartbeat
            self._connection._transport.write(b"".join([framed for _, framed in out]))  # noqa: SLF001 - see `kill`

    def _write_by_library(self, message: Message, exchange: str, routing_key: str, tag: int) -> BaseException | None:
        """Write one message by py-amqp; the lock is held. Returns what has broken the connection."""
        try:
            self._write_out()
            arguments = (0, exchange, routing_key, True, False)
            self._channel.send_method(spec.Basic.Publish, "Bssbb", arguments, self._message(message, tag))
        except (OSError, AMQPError) as exc:
            return exc
        except BaseException:
            # The frame could not be built: the broker never counts this one, so neither may we.
            del self._pending[tag]
            self._tag = tag - 1
            raise
        return None

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
        self._shut(reason)
        self._fail_pending()

    def _shut(self, reason: BaseException) -> None:
        """End the socket; the reader then fails what is in flight."""
        self.error = self.error or reason
        # Not `.transport`: before the connection is there, py-amqp's property would connect, and block.
        transport: Any = getattr(self._connection, "_transport", None)
        with contextlib.suppress(OSError, AttributeError):
            transport.sock.shutdown(socket.SHUT_RDWR)

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
        self._frame_max = self._connection.frame_max
        self._channel.events["basic_return"].add(self._on_return)

    def _read_for_ever(self) -> None:
        """Read for as long as it takes: `kill` ends the read."""
        transport = self._connection.transport
        arrived = bytearray(transport._read_buffer)  # noqa: SLF001 - with the last answer of the handshake
        while not self.closed.is_set() and self.error is None:
            self._handle(arrived)
            data = transport._quick_recv(_READ)  # noqa: SLF001 - see `connections.share`
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "RabbitMQ closed the connection")
            arrived += data

    def _handle(self, arrived: bytearray) -> None:
        """Settle the confirms of what has arrived; all other frames are py-amqp's."""
        settled: list[_Settled] = []
        try:
            for frame in frames.whole(arrived):
                confirm = frames.confirm(frame)
                if confirm is None:
                    self._connection.on_inbound_frame(frame)
                else:
                    self._connection.bytes_recv += 1  # counts as a heartbeat
                    settled += self._settled(confirm.tag, confirm.multiple, None if confirm.acked else Nacked())
        finally:
            self._wake(settled)

    def _message(self, message: Message, tag: int) -> Any:
        properties = {"delivery_mode": 2, "message_id": str(tag)}
        if message.correlation_id:
            properties["correlation_id"] = message.correlation_id
        return self._channel.prepare_message(
            message.body, None, message.content_type, message.content_encoding, dict(message.headers), properties
        )

    def _settled(self, tag: int, multiple: bool, error: PublishError | None) -> list[_Settled]:
        """The publishes that a confirm settles, each with its error; they wait no more."""
        with self._lock:
            tags = [tag] if not multiple else [waiting for waiting in self._pending if waiting <= tag]
            entries = [self._pending.pop(each, None) for each in tags]
        return [(entry, error or entry.returned) for entry in entries if entry is not None]

    def _wake(self, settled: list[_Settled]) -> None:
        for entry, error in settled:
            self._learn(entry.target, refused=error is not None, returned=entry.returned is not None)
            entry.verdict.settle(error)
        if self._retired and not self._pending:
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
            self._out.clear()
        # With one publish in flight, a missing exchange, or one that the user may not write to, is its: nothing was stored.
        lone = sum(entry.written for entry in waiting) == 1 and isinstance(self.error, NotFound | AccessRefused)
        for entry in waiting:
            text = f"the connection ended before the confirm: {self.error!r}"
            written = Unroutable(str(self.error)) if lone else InDoubt(text)
            entry.verdict.settle(written if entry.written else NotSent("the connection to RabbitMQ was closed"))
