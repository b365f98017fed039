"""A message and a place in, a verdict of the broker out: confirmed and routed, or an error that says what is known.

Nothing here retries: a confirm that did not come does not mean that the message is not stored.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from kombu import Connection, Producer
from kombu.serialization import dumps

from dispatch.broker.confirms import ConfirmingConnection
from dispatch.errors import InDoubt, NotSent
from dispatch.protocol import names
from dispatch.protocol.message import Message
from dispatch.telemetry import tracing

#: Seconds without any confirm after which the broker counts as silent: new publishes are not written.
SILENT = 1.0

#: Seconds after which a connection that is only ever refused, or has messages returned, is replaced; doubles up to the longest while that is no help.
REFUSED, LONGEST_REFUSED = 1.0, 60.0

#: Seconds between two looks of the keeper, and the longest pause between two attempts to connect.
_TICK, _BACKOFF = 0.1, 1.0


class Publisher:
    """Publishes with confirms over a connection that is kept up in the background. Thread-safe.

    Args:
        urls: broker URLs, separated by ``;``, tried in turn.
        timeout: seconds to wait for a confirm unless a call says otherwise.
        connect_timeout: seconds for each step of connecting.
        on_open: called with the URL before each new connection is used, e.g. to apply the topology.
    """

    def __init__(
        self,
        urls: str,
        *,
        timeout: float = 2.0,
        connect_timeout: float = 1.0,
        on_open: Callable[[str], None] | None = None,
    ) -> None:
        self._urls = urls.split(";")
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._on_open = on_open
        self._link: ConfirmingConnection | None = None
        self._attempts = 0
        self._patience = REFUSED
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._keeper: threading.Thread | None = None
        self._pid = 0

    def start(self) -> None:
        """Begin to connect; called by the first publish, and again in a process that was forked since."""
        with self._changed:
            if self._pid == os.getpid() or self._stop.is_set():
                return
            self._pid = os.getpid()
            self._link = None  # a parent's connection must not be written to from here
            self._keeper = threading.Thread(target=self._keep, name="publisher", daemon=True)
            self._keeper.start()

    def ready(self) -> bool:
        """Whether a publish would be written now."""
        self.start()
        link = self._link
        return link is not None and link.usable and link.oldest() < SILENT

    def publish(self, message: Message, exchange: str, routing_key: str, *, timeout: float | None = None) -> float:
        """Send a message, persistent and mandatory, and wait for the broker's verdict.

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
        began = time.monotonic()
        deadline = began + (self._timeout if timeout is None else timeout)
        with tracing.publish(message, exchange):
            link = self._usable_link(deadline)
            future = link.publish(message, exchange, routing_key, deadline)
            try:
                future.result(max(0.001, deadline - time.monotonic()))
            except FutureTimeoutError as exc:
                raise InDoubt(f"RabbitMQ did not confirm within {deadline - began:.1f} s") from exc
        return time.monotonic() - began

    def close(self) -> None:
        """End the connection; what is in flight is in doubt."""
        self._stop.set()
        link = self._link
        if link is not None and self._pid == os.getpid():
            link.kill(NotSent("shutting down"))
        if self._keeper is not None and self._pid == os.getpid():
            self._keeper.join(1.0)

    def _usable_link(self, deadline: float) -> ConfirmingConnection:
        self.start()
        # A short wait spans a reconnect; a broker that is away must not hold every thread for the whole timeout.
        until = min(deadline, time.monotonic() + self._connect_timeout / 2)
        with self._changed:
            self._changed.wait_for(self._settled, max(0.0, until - time.monotonic()))
        link = self._link
        if link is None or not link.opened.is_set() or link.closed.is_set():
            raise NotSent("not connected to RabbitMQ")
        if link.blocked:
            raise NotSent("RabbitMQ has raised an alarm and takes no messages")
        if link.oldest() > SILENT:
            raise NotSent("RabbitMQ does not confirm messages at the moment")
        return link

    def _settled(self) -> bool:
        link = self._link
        return link is not None and link.opened.is_set() and not link.closed.is_set()

    # --- the keeper's thread -------------------------------------------------------------------------
    def _keep(self) -> None:
        pause, beat = _TICK, time.monotonic()
        while not self._stop.is_set():
            link = self._link
            if link is None or link.closed.is_set():
                if link is not None and link.opened.is_set():
                    pause = _TICK
                elif link is not None:
                    self._stop.wait(pause)
                    pause = min(pause * 2, _BACKOFF)
                self._connect()
                continue
            self._watch(link)
            if time.monotonic() - beat > 1.0:
                beat = time.monotonic()
                link.heartbeat()
            link.closed.wait(_TICK)

    def _connect(self) -> None:
        url = self._urls[self._attempts % len(self._urls)]
        self._attempts += 1
        link = ConfirmingConnection(url, connect_timeout=self._connect_timeout, on_open=self._on_open)
        link.start()
        deadline = time.monotonic() + 5 * self._connect_timeout
        while not (link.opened.is_set() or link.closed.is_set() or self._stop.is_set()):
            if time.monotonic() > deadline:
                link.kill(NotSent("RabbitMQ did not finish the handshake"))
                break
            link.opened.wait(0.01)
        with self._changed:
            self._link = link
            self._changed.notify_all()

    def _watch(self, link: ConfirmingConnection) -> None:
        """Give up a connection on which the broker went silent or refuses everything; an alarm is neither, it says so."""
        if not link.blocked and link.oldest() > max(SILENT, self._timeout) + SILENT:
            link.kill(InDoubt("RabbitMQ stopped confirming"))
        elif link.refused() > self._patience:
            self._patience = min(self._patience * 2, LONGEST_REFUSED)
            self._connect()
            link.retire()
        elif link.takes:
            self._patience = REFUSED


class _HookedProducer(Producer):  # type: ignore[misc]
    """What `Task.apply_async` publishes with: hands the finished message on instead of sending it itself."""

    #: Only asked which errors its transport can recover from; never connects.
    _unused = Connection("amqp://")

    def __init__(self, send: Callable[[Message, str, str], Any]) -> None:
        self._send = send

    @property
    def connection(self) -> Connection:
        return self._unused

    def publish(self, body: Any, routing_key: str | None = None, exchange: Any = None, **options: Any) -> Any:
        content_type, encoding, text = dumps(body, serializer="json")
        message = Message(
            body=text.encode() if isinstance(text, str) else text,
            headers=options.get("headers") or {},
            content_type=content_type,
            content_encoding=encoding,
            correlation_id=options.get("correlation_id"),
            routing_key=routing_key or "",
        )
        return self._send(message, getattr(exchange, "name", exchange) or names.TASK_EXCHANGE, routing_key or "")

    def close(self) -> None:
        """Nothing to close: the publisher is another's."""

    release = close
    __exit__ = Producer.__exit__


def hooked(send: Callable[[Message, str, str], Any]) -> Producer:
    """A producer for `apply_async` that hands each finished message to a function.

    Args:
        send: called with message, exchange and routing key.
    """
    return _HookedProducer(send)


def dispatch(
    task: Any,
    payload: Mapping[str, Any],
    *,
    task_id: str,
    headers: Mapping[str, Any],
    send: Callable[[Message, str, str], Any],
) -> None:
    """The one way into `apply_async`: build a task's message, and persist and publish it with ``send``.

    Args:
        task: the Celery task.
        payload: JSON-ready; the handler's one argument.
        task_id: a UUIDv7.
        headers: our own headers.
        send: called with message, exchange and routing key; what it raises comes out here.
    """
    task.apply_async(
        args=[payload],
        task_id=task_id,
        headers=dict(headers),
        producer=hooked(send),
        exchange=names.TASK_EXCHANGE,
        routing_key=names.routing_key(task.name),
        retry=False,
        mandatory=True,
        declare=[],
        # Celery would spend a third of the call on rendering the arguments, and show them in Flower's list.
        argsrepr="(…)",
        kwargsrepr="{}",
    )
