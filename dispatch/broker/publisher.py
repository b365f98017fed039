"""Publish a message and wait for the broker's verdict: confirmed and routed, or an error that states what is known.

Nothing here retries: a confirm that did not come does not mean that the message is not stored.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dispatch.background import Background
from dispatch.broker import connections, faults
from dispatch.broker.confirms import ConfirmingConnection, ConfirmVerdict
from dispatch.config.tls import Where
from dispatch.errors import InDoubt, NotSent, PublishError, Trouble
from dispatch.protocol.message import Copy, Message
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.telemetry import tracing
from dispatch.telemetry.trouble import TroubleLog

#: Seconds without any confirm after which the broker counts as silent: new publishes are not written.
SILENT = 1.0

#: Seconds after which a connection that is only ever refused, or has messages returned, is replaced; doubles up to the longest while that is no help.
REFUSED, LONGEST_REFUSED = 1.0, 60.0

#: Seconds between two checks of the connection, and the longest pause between two attempts to connect.
_TICK, _BACKOFF = 0.1, 1.0


class Publisher:
    """Publishes with confirms over a connection that is kept up in the background. Thread-safe.

    Args:
        where: the broker; its URLs are tried in turn.
        timeout: seconds to wait for a confirm by default.
        connect_timeout: seconds for each step of connecting.
        on_open: called with the address before each new connection is used, e.g. to apply the topology.
        keys: what messages are signed with.
    """

    def __init__(
        self,
        where: Where,
        *,
        timeout: float = 2.0,
        connect_timeout: float = 1.0,
        on_open: Callable[[Any], None] | None = None,
        keys: MessageKeys = NO_KEYS,
    ) -> None:
        self._addresses = connections.each(where)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._on_open = on_open
        self._keys = keys
        self._connection: ConfirmingConnection | None = None
        self._troubles = TroubleLog()
        self._attempts = 0
        self._patience = REFUSED
        self._closed = False
        self._pause = _TICK
        self._beat_at = 0.0
        self._changed = threading.Condition()
        self._keeper: _Keeper | None = None
        self._pid = 0

    def start(self) -> None:
        """Begin to connect; called by the first publish, and again in a process that was forked since."""
        if self._pid == os.getpid():
            return
        with self._changed:
            if self._pid == os.getpid() or self._closed:
                return
            self._pid = os.getpid()
            self._connection = None  # a parent's connection must not be written to from here
            self._keeper = _Keeper(self.check)
            self._keeper.start()

    def ready(self) -> bool:
        """Whether a publish would be written now."""
        self.start()
        connection = self._connection
        return connection is not None and connection.usable and connection.oldest() < SILENT

    @property
    def trouble(self) -> Trouble | None:
        """What keeps it from publishing; None when nothing does, as far as is known."""
        return self._troubles.now

    def publish(self, message: Message, exchange: str, routing_key: str, *, timeout: float | None = None) -> float:
        """Sign a message, send it, persistent and mandatory, and wait for the broker's verdict.

        The caller vouches for the message: it was made here, comes from a record, or was verified when it came.

        Args:
            message: what to send.
            exchange: where to.
            routing_key: how it is routed.
            timeout: seconds to wait.

        Returns:
            Seconds it took until the confirm.

        Raises:
            NotSent: nothing was written.
            Nacked: the broker refused it.
            Unroutable: the broker returned it.
            InDoubt: no verdict: it may be stored.
        """
        return self._publish(self._keys.sign(message), exchange, routing_key, timeout)

    def publish_many(self, copies: Sequence[Copy], *, timeout: float | None = None) -> list[PublishError | None]:
        """Sign copies, write them together, and wait for the verdict on each; otherwise as `publish`.

        Args:
            copies: what to send, and where to; their bodies are in memory together.
            timeout: seconds to wait for all of them.

        Returns:
            For each None, or what `publish` would have raised.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        try:
            connection = self._usable_connection(deadline)
            signed = [dataclasses.replace(copy, message=self._keys.sign(copy.message)) for copy in copies]
            verdicts = connection.publish_all(signed, deadline)
        except NotSent as exc:
            return [exc] * len(copies)
        return [_outcome(verdict, deadline) for verdict in verdicts]

    def publish_as_it_came(self, message: Message, exchange: str, routing_key: str) -> float:
        """Send a message that was not verified: it keeps the signature that it has, or none.

        Returns, raises: as `publish`.
        """
        return self._publish(message, exchange, routing_key, None)

    def _publish(self, message: Message, exchange: str, routing_key: str, timeout: float | None) -> float:
        began = time.monotonic()
        deadline = began + (self._timeout if timeout is None else timeout)
        with tracing.publish(message, exchange):
            connection = self._usable_connection(deadline)
            verdict = connection.publish(message, exchange, routing_key, deadline)
            try:
                verdict.result(max(0.001, deadline - time.monotonic()))
            except TimeoutError as exc:
                raise InDoubt(f"RabbitMQ did not confirm within {deadline - began:.1f} s") from exc
        return time.monotonic() - began

    def close(self) -> None:
        """End the connection; what is in flight is in doubt."""
        self._closed = True
        connection = self._connection
        if connection is not None and self._pid == os.getpid():
            connection.kill(NotSent("shutting down"))
        if self._keeper is not None and self._pid == os.getpid():
            self._keeper.stop(wait=1.0)

    def _usable_connection(self, deadline: float) -> ConfirmingConnection:
        self.start()
        # A short wait spans a reconnect; a broker that is away must not hold every thread for the whole timeout.
        until = min(deadline, time.monotonic() + self._connect_timeout / 2)
        if not self._open():
            with self._changed:
                self._changed.wait_for(self._open, max(0.0, until - time.monotonic()))
        connection = self._connection
        if connection is None or not connection.opened.is_set() or connection.closed.is_set():
            raise self._not_sent("not connected to RabbitMQ")
        if connection.blocked:
            raise self._not_sent("RabbitMQ has raised an alarm and takes no messages")
        if connection.oldest() > SILENT:
            raise NotSent("RabbitMQ does not confirm messages at the moment")
        return connection

    def _not_sent(self, text: str) -> NotSent:
        """With the reason that anyone may read: the text becomes part of a rejected record."""
        trouble = self.trouble
        exc = NotSent(text if trouble is None or trouble.refuses else f"{text}: {trouble.reason}")
        exc.trouble = trouble
        return exc

    def _open(self) -> bool:
        connection = self._connection
        return connection is not None and connection.opened.is_set() and not connection.closed.is_set()

    # --- on the thread that keeps the connection up --------------------------------------------------
    def check(self) -> float:
        """Connect where there is no connection, and watch the one that there is.

        Returns:
            Seconds until the next check.
        """
        connection = self._connection
        if connection is None or connection.closed.is_set():
            self._reconnect(connection)
            return 0.0
        self._watch(connection)
        if time.monotonic() - self._beat_at > 1.0:
            self._beat_at = time.monotonic()
            connection.heartbeat()
        connection.closed.wait(_TICK)
        return 0.0

    def _reconnect(self, lost: ConfirmingConnection | None) -> None:
        """At once after a connection that was open; with a rising pause after one that never was."""
        if lost is not None and lost.opened.is_set():
            self._pause = _TICK
        elif lost is not None and self._keeper is not None:
            self._keeper.pause(self._pause)
            self._pause = min(self._pause * 2, _BACKOFF)
        if not self._closed:
            self._connect()

    def _connect(self) -> None:
        address = self._addresses[self._attempts % len(self._addresses)]
        self._attempts += 1
        connection = ConfirmingConnection(address, connect_timeout=self._connect_timeout, on_open=self._on_open)
        connection.start()
        deadline = time.monotonic() + 5 * self._connect_timeout
        while not (connection.opened.is_set() or connection.closed.is_set() or self._closed):
            if time.monotonic() > deadline:
                connection.kill(NotSent("RabbitMQ did not finish the handshake"))
                break
            connection.opened.wait(0.01)
        with self._changed:
            self._connection = connection
            self._changed.notify_all()
        if connection.opened.is_set():
            self._troubles.over()
        elif not self._closed:
            self._troubles.met(faults.trouble(address, connection.error))

    def _watch(self, connection: ConfirmingConnection) -> None:
        """Give up a connection on which the broker went silent or refuses everything; an alarm is neither."""
        if connection.blocked:
            self._troubles.met(faults.alarm(connection.address))
        else:
            self._troubles.over()
        if not connection.blocked and connection.oldest() > max(SILENT, self._timeout) + SILENT:
            connection.kill(InDoubt("RabbitMQ stopped confirming"))
        elif connection.refused() > self._patience:
            self._patience = min(self._patience * 2, LONGEST_REFUSED)
            self._connect()
            connection.retire()
        elif connection.takes:
            self._patience = REFUSED


def _outcome(verdict: ConfirmVerdict, deadline: float) -> PublishError | None:
    try:
        verdict.result(max(0.001, deadline - time.monotonic()))
    except TimeoutError:
        return InDoubt("RabbitMQ did not confirm in time")
    except PublishError as exc:
        return exc
    return None


class _Keeper(Background):
    """Keeps the connection of one process up."""

    def __init__(self, check: Callable[[], float]) -> None:
        super().__init__("publisher", interval=_TICK)
        self._check = check

    def step(self) -> float:
        return self._check()
