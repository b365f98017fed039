"""The way from Celery's `apply_async` to our publisher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kombu import Connection, Producer
from kombu.serialization import dumps

from dispatch.protocol import names
from dispatch.protocol.message import Message

#: Publishes a message: message, exchange, routing key.
Send = Callable[[Message, str, str], Any]


class CapturingProducer(Producer):
    """The producer that `Task.apply_async` publishes with: it passes the finished message on instead of sending it."""

    #: Only asked which errors its transport can recover from; never connects.
    _unused = Connection("amqp://")

    def __init__(self, send: Send) -> None:
        self._send = send

    @property
    def connection(self) -> Connection:
        """A connection that is never made."""
        return self._unused

    def publish(self, body: Any, routing_key: str | None = None, exchange: Any = None, **options: Any) -> Any:
        """Pass the message on."""
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


def capturing(send: Send) -> Producer:
    """A producer for `apply_async` that passes each finished message to a function.

    Args:
        send: called with message, exchange and routing key.
    """
    return CapturingProducer(send)


def dispatch(
    task: Any,
    payload: Mapping[str, Any],
    *,
    task_id: str,
    headers: Mapping[str, Any],
    send: Send,
) -> None:
    """The one way into `apply_async`: build a task's message, and pass it to ``send``.

    Args:
        task: the Celery task.
        payload: JSON-ready; the handler's one argument.
        task_id: a UUIDv7.
        headers: our own headers.
        send: called with message, exchange and routing key; its errors are raised here.
    """
    task.apply_async(
        args=[payload],
        task_id=task_id,
        headers=dict(headers),
        producer=capturing(send),
        # Celery would spend a third of the call on rendering the arguments, and Flower would list them.
        argsrepr="(…)",
        kwargsrepr="{}",
    )
