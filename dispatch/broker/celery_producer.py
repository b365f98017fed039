"""The way from Celery's `apply_async` to our publisher."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from kombu import Connection, Producer
from kombu.serialization import dumps

from dispatch.broker.message_template import MessageTemplate, cut
from dispatch.protocol import names
from dispatch.protocol.message import Message
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.telemetry import tracing

#: Publishes a message: message, exchange, routing key.
Send = Callable[[Message, str, str], Any]


class CapturingProducer(Producer):
    """The producer that `Task.apply_async` publishes with: it passes the finished message on, sealed, instead of sending it."""

    #: Only asked which errors its transport can recover from; never connects.
    _unused = Connection("amqp://")

    def __init__(self, send: Send, sealing: Sealing) -> None:
        self._send = send
        self._sealing = sealing

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
        message = self._sealing.seal(message)
        return self._send(message, getattr(exchange, "name", exchange) or names.TASK_EXCHANGE, routing_key or "")

    def close(self) -> None:
        """Nothing to close: the publisher is another's."""

    release = close
    __exit__ = Producer.__exit__


def capturing(send: Send, sealing: Sealing = UNSEALED) -> Producer:
    """A producer for `apply_async` that passes each finished message to a function.

    Args:
        send: called with message, exchange and routing key.
        sealing: of the message's body.
    """
    return CapturingProducer(send, sealing)


def dispatch(
    task: Any,
    payload: Mapping[str, Any],
    *,
    task_id: str,
    headers: Mapping[str, Any],
    send: Send,
    sealing: Sealing = UNSEALED,
) -> None:
    """The one way into `apply_async`: build a task's message, from its type's template where that fits, and pass it to ``send``.

    Args:
        task: the Celery task.
        payload: JSON-ready; the handler's one argument.
        task_id: a UUIDv7.
        headers: our own headers.
        send: called with message, exchange and routing key; its errors are raised here.
        sealing: of the message's body.
    """
    template = _template(task, headers)
    if template is not None and template.fits(headers):
        message = template.fill(payload, task_id, headers)
        send(sealing.seal(message), names.TASK_EXCHANGE, message.routing_key)
    else:
        _apply(task, payload, task_id, headers, capturing(send, sealing))


def _apply(task: Any, payload: Mapping[str, Any], task_id: str, headers: Mapping[str, Any], producer: Producer) -> None:
    task.apply_async(
        args=[payload],
        task_id=task_id,
        headers=dict(headers),
        producer=producer,
        # Celery would spend a third of the call on rendering the arguments, and Flower would list them.
        argsrepr="(…)",
        kwargsrepr="{}",
    )


def _template(task: Any, headers: Mapping[str, Any]) -> MessageTemplate | None:
    """The task type's, made at its first message; a task of another base class has none."""
    templates: dict[int, MessageTemplate | None] | None = getattr(task, "message_templates", None)
    if templates is None or tracing.enabled():
        return None
    process = os.getpid()
    if process not in templates:

        def make(payload: Mapping[str, Any], task_id: str, own: Mapping[str, Any]) -> tuple[Message, str, str]:
            sent: list[tuple[Message, str, str]] = []
            _apply(task, payload, task_id, own, capturing(lambda *one: sent.append(one)))
            return sent[0]

        templates[process] = cut(make, headers)
    return templates[process]
