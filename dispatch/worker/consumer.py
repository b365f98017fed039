"""What the worker takes from the work queue: only what it can run; everything else goes to the DLQ with a reason.

Stock Celery acks undecodable messages, dies of malformed ones, and drops expired ones; each would break P4.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Container, Iterable
from typing import Any

import kombu
from celery.worker.consumer import Consumer

from dispatch.broker import provision
from dispatch.broker.decoding import COMPRESSION, wire_message
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import ACCEPTED_AT, QUEUED_AT, TOO_LARGE, UNREADABLE, Message
from dispatch.telemetry import logger, logs
from dispatch.worker.router import Router

log = logger("dispatch.consumer")

#: The consumer step that would declare 28 delay queues which we don't use.
_LEFT_OUT = "delayed_delivery"

#: Workers need not know of each other: what they share is in Redis. Mingling costs a second at each start.
_QUIET = {"without_mingle": True, "without_gossip": True}


#: Objects and lists within one another that a body may have; the gateway allows fewer.
MAX_DEPTH = 100

#: What a header that counts something may be; Lua's numbers are exact below it.
_COUNT = range(2**53)

#: Epoch milliseconds that have a date, up to the year 9999.
_MOMENT = range(253_402_300_800_000)

_NUMBERS = {
    "x-cycle": _COUNT,
    "x-seq": _COUNT,
    "x-attempt": _COUNT,
    "retries": _COUNT,
    ACCEPTED_AT: _MOMENT,
    QUEUED_AT: _MOMENT,
}


class Poison(DispatchError):
    """The message can never run: it goes to the DLQ.

    Args:
        reason: ``undecodable``, ``malformed``, ``too-large``, ``unknown-type`` or ``expired``.
        message: what is wrong with it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check(
    headers: Any, body: Any, *, content_type: str | None, encoding: str | None, known: Container[str], now: dt.datetime
) -> list[Any]:
    """Whether a message can be given to a child.

    Args:
        headers: as they came.
        body: bytes or text.
        content_type: JSON is all we take.
        encoding: of the text.
        known: the names of the task types.
        now: for messages that carry an expiry of their own.

    Returns:
        The body: args, kwargs and what follows of Celery's embed.

    Raises:
        Poison: it can't.
    """
    if isinstance(headers, dict) and TOO_LARGE in headers:
        raise Poison("too-large", f"the body has {headers[TOO_LARGE]}")
    if isinstance(headers, dict) and UNREADABLE in headers:
        raise Poison("malformed", "the message's properties can't be read")
    if not isinstance(headers, dict) or "task" not in headers:
        raise Poison("malformed", "the message has no header 'task': it is no Celery task message, protocol 2")
    name = headers["task"]
    if not is_task_id(headers.get("id")):
        raise Poison("malformed", "the header 'id' is missing or is no usable task id")
    if not isinstance(name, str):
        raise Poison("malformed", "the header 'task' is no text")
    for header, allowed in _NUMBERS.items():
        value = headers.get(header, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise Poison("malformed", f"the header {header!r} is no whole number, or out of range")
    if COMPRESSION in headers:
        raise Poison("undecodable", "the body is compressed: it could fill the memory")
    if content_type != "application/json":
        raise Poison("undecodable", f"the content type is {content_type!r}, not 'application/json'")
    if name not in known:
        raise Poison("unknown-type", f"no worker here knows the task type {name!r}")
    triple = _check_body(body, encoding)
    if headers.get("eta") is not None:
        raise Poison("malformed", "eta and countdown are refused: a worker would hold the wait in its memory")
    _check_expiry(headers.get("expires"), now)
    return triple


def _check_body(body: Any, encoding: str | None) -> list[Any]:
    try:
        text = body if isinstance(body, str) else bytes(body).decode(encoding or "utf-8")
        triple = json.loads(text)
    except (LookupError, ValueError, RecursionError) as exc:
        raise Poison("undecodable", f"the body is no JSON: {exc}") from exc
    if not (isinstance(triple, list) and len(triple) == 3):
        raise Poison("malformed", "the body is not [args, kwargs, embed]")
    args, kwargs, embed = triple
    if not (isinstance(args, list) and len(args) == 1 and isinstance(args[0], dict)):
        raise Poison("malformed", "the body must carry one argument, the payload object")
    if kwargs != {}:
        raise Poison("malformed", "keyword arguments are not taken")
    if not isinstance(embed, dict | None):
        raise Poison("malformed", "the third part of the body is no object")
    if embed and (embed.get("chord") or embed.get("errbacks")):
        raise Poison("malformed", "chords and error callbacks are refused: they fire on each failed attempt")
    if _deeper(triple, MAX_DEPTH):
        raise Poison("undecodable", f"the body is nested deeper than {MAX_DEPTH}")
    return [args, kwargs, _links(embed or {})]


def _links(embed: dict[str, Any]) -> dict[str, Any]:
    """What comes after a success; Celery would take the rest of embed for properties of the request."""
    links = {name: embed.get(name) for name in ("callbacks", "chain")}
    for name, signatures in links.items():
        if signatures is not None and not (
            isinstance(signatures, list) and all(isinstance(signature, dict) for signature in signatures)
        ):
            raise Poison("malformed", f"{name} in the third part of the body is no list of signatures")
    return {**links, "errbacks": None, "chord": None}


def _deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_expiry(expires: Any, now: dt.datetime) -> None:
    if expires is None:
        return
    try:
        moment = dt.datetime.fromisoformat(expires)
    except (TypeError, ValueError) as exc:
        raise Poison("malformed", "the header 'expires' is no ISO 8601 time") from exc
    if (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) <= now:
        raise Poison("expired", f"it expired at {expires}")


class DispatchConsumer(Consumer):
    """Celery's consumer with envelope validation, our topology, and a loop that other threads can wake."""

    class Blueprint(Consumer.Blueprint):
        """Without the step that we leave out."""

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if _LEFT_OUT not in str(step))

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, worker_options={**(worker_options or {}), **_QUIET}, **options)
        self.app.dispatch_consumer = self

    @property
    def router(self) -> Router:
        """The worker's router."""
        router: Router = self.app.dispatch_router
        return router

    def connect(self) -> Any:
        """Connect, and apply the topology: a broker that came back empty gets its queues again."""
        settings: Settings = self.app.dispatch_settings
        if settings.apply_topology:
            with self.ensure_connected(self.app.connection_for_read(heartbeat=0)) as connection:
                provision.declare(connection, settings)
        return super().connect()

    def register_with_event_loop(self, hub: Any) -> None:
        """Called after each (re)connect."""
        super().register_with_event_loop(hub)
        self.router.loop.register(hub)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Validate each message before Celery sees it."""
        accept = super().create_task_handler(*args, **options)
        known, shutdown = frozenset(self.app.dispatch_types), self.app.dispatch_shutdown

        def on_task_received(message: Any) -> None:
            if shutdown.begun:  # it came before the cancel was heard: unacked, it goes back with the channel
                return
            try:
                triple = check(
                    message.headers,
                    message.body,
                    content_type=message.content_type,
                    encoding=message.content_encoding,
                    known=known,
                    now=dt.datetime.now(dt.UTC),
                )
                message.headers["expires"] = None  # checked; Celery would ack and drop it when it runs out later
                message._decoded_cache = triple  # noqa: SLF001 - kombu would make objects of {"__type__": …}
            except Poison as exc:
                self._bury(message, exc.reason, str(exc))
            except Exception as exc:  # whatever a message can do to us, it must not take the worker down
                log.exception("message could not be checked")
                self._bury(message, "malformed", repr(exc))
            else:
                with logs.about(Message(b"", message.headers)):  # what Celery says about it, too
                    accept(message)

        return on_task_received

    # --- the ways on which stock Celery acks or rejects ----------------------------------------------
    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Kombu or Celery could not decode it."""
        self._bury(message, "undecodable", repr(exc))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Not a task message."""
        del body
        self._bury(message, "malformed", "not a task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """No such task type."""
        del body
        self._bury(message, "unknown-type", repr(exc))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery could not make a request of it."""
        del body
        self._bury(message, "malformed", repr(exc))

    def _bury(self, message: kombu.Message, reason: str, error: str) -> None:
        wire = wire_message(message)
        if TOO_LARGE in wire.headers:
            # We have no whole body to publish. The queue dead-letters at least once, so the broker loses nothing either.
            log.error("poison message rejected", reason=reason, error=error, task_id=wire.task_id)
            message.reject_log_error(log, self.connection_errors)
            return
        self.router.bury(wire, reason, reason, error, lambda: message.ack_log_error(log, self.connection_errors))
