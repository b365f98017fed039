"""The worker's consumer: each message is checked before Celery sees it; what can't run goes to the DLQ with a reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import kombu
from celery.worker.consumer import Consumer

from dispatch.broker import provision
from dispatch.broker.decoding import decode
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import TOO_LARGE, Message
from dispatch.telemetry import logger, logs
from dispatch.worker.envelope import Poison, check
from dispatch.worker.runner import MAX_RESULT

log = logger(__name__)

#: Objects, lists and commas in a body beside its payload, which is a request's or, in a chain, a result.
_OWN_VALUES = 1_000

#: The consumer step that would declare 28 delay queues which we don't use.
_LEFT_OUT = "delayed_delivery"

#: Workers need not know of each other: what they share is in Redis. Mingling costs a second at each start.
_QUIET = {"without_mingle": True, "without_gossip": True}


class DispatchConsumer(Consumer):
    """Celery's consumer with envelope validation, our topology, and a loop that other threads can wake."""

    class Blueprint(Consumer.Blueprint):
        """Without the step that we leave out."""

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if _LEFT_OUT not in str(step))

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, worker_options={**(worker_options or {}), **_QUIET}, **options)
        self._worker = self.app.dispatch_worker
        self._worker.consumer = self

    def connect(self) -> Any:
        """Connect, and apply the topology: a broker that came back empty gets its queues again."""
        settings = self.app.dispatch_settings
        if settings.apply_topology:
            with self.ensure_connected(self.app.connection_for_read(heartbeat=0)) as connection:
                provision.declare(connection, self.app.dispatch_map, settings)
        return super().connect()

    def register_with_event_loop(self, hub: Any) -> None:
        """Called after each (re)connect."""
        super().register_with_event_loop(hub)
        self._worker.router.loop.register(hub)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Check each message before Celery sees it."""
        accept = super().create_task_handler(*args, **options)
        known, shutdown = frozenset(self.app.dispatch_types), self._worker.shutdown
        most_values = max(self.app.dispatch_settings.max_body, MAX_RESULT) + _OWN_VALUES

        def on_task_received(message: Any) -> None:
            if shutdown.begun:  # delivered before the broker handled the cancel: unacked, it goes back with the channel
                return
            try:
                triple = check(
                    message.headers,
                    message.body,
                    content_type=message.content_type,
                    encoding=message.content_encoding,
                    known=known,
                    now=dt.datetime.now(dt.UTC),
                    most_values=most_values,
                )
                message.headers["expires"] = None  # checked; Celery would ack and drop it when it runs out later
                message._decoded_cache = triple  # noqa: SLF001 - kombu would make objects of {"__type__": …}
            except Poison as exc:
                self._dead_letter(message, exc.reason, str(exc))
            except Exception as exc:  # no message may take the worker down
                log.exception("message could not be checked")
                self._dead_letter(message, Reason.MALFORMED, repr(exc))
            else:
                with logs.about(Message(b"", message.headers)):  # Celery's own lines, too
                    accept(message)

        return on_task_received

    # --- the ways on which stock Celery acks or rejects ----------------------------------------------
    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Kombu or Celery could not decode it."""
        self._dead_letter(message, Reason.UNDECODABLE, repr(exc))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Not a task message."""
        del body
        self._dead_letter(message, Reason.MALFORMED, "not a task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """No such task type."""
        del body
        self._dead_letter(message, Reason.UNKNOWN_TYPE, repr(exc))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery could not make a request of it."""
        del body
        self._dead_letter(message, Reason.MALFORMED, repr(exc))

    def _dead_letter(self, message: kombu.Message, reason: Reason, error: str) -> None:
        wire = decode(message)
        if TOO_LARGE in wire.headers:
            # The worker has no whole body to publish. The queue dead-letters at least once: the broker loses nothing either.
            log.error("poison message rejected", reason=reason, error=error, task_id=wire.task_id)
            message.reject_log_error(log, self.connection_errors)
            return
        acked = lambda: message.ack_log_error(log, self.connection_errors)  # noqa: E731
        self._worker.router.dead_letter(wire, reason, error, acked)
