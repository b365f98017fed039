"""The worker's consumer: each message is checked before Celery sees it; what can't run goes to the DLQ with a reason."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import kombu
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from dispatch.broker import faults, provision
from dispatch.broker.acks import Acks
from dispatch.broker.decoding import decode
from dispatch.config.settings import Settings
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import TOO_LARGE
from dispatch.telemetry import logger
from dispatch.telemetry.trouble import TroubleLog
from dispatch.worker import events
from dispatch.worker.envelope import Poison, check
from dispatch.worker.runner import most_values

log = logger(__name__)

#: Seconds between two attempts to connect; doubles. Celery itself waits only where nothing answers: six attempts a second,
#: with a line each, while RabbitMQ refuses the password.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

#: Seconds between two looks whether the worker is to end.
_LOOK = 0.1

#: Seconds for what Redis was asked for before a shutdown.
FINISH = 2.0

#: Exit status for what an operator has to correct first.
_EX_CONFIG = 2

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
        if self._worker.pool.threads:
            self.initial_prefetch_count = self._worker.pool.prefetch
        # Each queue's consumer has a prefetch of its own.
        self.initial_prefetch_count = -(-self.initial_prefetch_count // len(self.app.dispatch_settings.work_queues))
        self._prefetch = self.initial_prefetch_count
        self._worker.consumer = self
        self._flushing = False  #: a timer will send the batch of events
        self._acks = Acks(self.connection_errors)
        self._worker.shutdown.before = self._finish
        self._address = self.app.dispatch_settings.address("worker")
        self._troubles = TroubleLog()
        self._pause = FIRST_PAUSE

    @property
    def max_prefetch_count(self) -> int:
        """The prefetch after a reconnect: Celery would make it that of the processes of this moment."""
        return int(self._prefetch)

    def connect(self) -> Any:
        """Connect, and apply the topology: a broker that came back empty gets its queues again."""
        settings = self.app.dispatch_settings
        if settings.apply_topology:
            with self.ensure_connected(self.app.connection_for_read(heartbeat=0)) as connection:
                self._declare(connection, settings)
        connected = super().connect()
        self._worker.lanes.select(self.app.amqp.queues)
        self._troubles.over()
        self._pause = FIRST_PAUSE
        return connected

    def _declare(self, connection: kombu.Connection, settings: Settings) -> None:
        try:
            provision.declare(connection, self.app.dispatch_map, settings)
        except (provision.TopologyConflict, provision.TopologyRefused) as exc:
            log.critical("the worker can't work with this broker", reason=str(exc))
            raise SystemExit(_EX_CONFIG) from None

    def ensure_connected(self, conn: kombu.Connection) -> kombu.Connection:
        """Connect, however long it takes; the reason why it takes long is logged when it changes."""
        connected = conn.ensure_connection(self._not_connected, None, callback=self._meanwhile)
        self.first_connection_attempt = False
        return connected

    def _not_connected(self, exc: BaseException, _interval: float) -> None:
        self._troubles.met(faults.trouble(self._address, exc))

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """RabbitMQ answered and refused: Celery would try again at once."""
        self._not_connected(exc, 0.0)
        until, self._pause = time.monotonic() + self._pause, min(self._pause * 2, LONGEST_PAUSE)
        while time.monotonic() < until:
            self._meanwhile()
            time.sleep(_LOOK)

    def _meanwhile(self) -> None:
        """No loop turns without a connection: what ends in threads is recorded and handed over all the same, within its limits."""
        maybe_shutdown()
        if self._worker.pool.threads:
            self.pool.places.wait(0.0)
            self._worker.router.loop.run()
            self._worker.router.batcher.kick()

    def register_with_event_loop(self, hub: Any) -> None:
        """Called after each (re)connect."""
        super().register_with_event_loop(hub)
        self._flushing = False
        self._worker.lanes.consumer = self
        self._worker.router.loop.register(hub)
        places, starter = self.pool.places, self._worker.starter
        places.give_back, starter.places = starter.give_back, places
        hub.on_tick.add(self._end_turn)

    def _end_turn(self) -> None:
        """After what one turn of the loop brought: the acks of what has ended, and the next deliveries."""
        self._acks.flush()
        self._worker.starter.turn()

    def on_close(self) -> None:
        """The connection is lost: what has not begun is the broker's again."""
        self._worker.starter.forget()
        super().on_close()

    def on_send_event_buffered(self) -> None:
        """Celery would send the events of each turn of its loop by themselves."""
        if self.hub and not self._flushing:
            self._flushing = True
            self.hub.call_later(events.PAUSE, self._flush_batch)

    def _flush_batch(self) -> None:
        self._flushing = False
        self._flush_events()

    def call_soon_ack(self, p: Any, *args: Any, **options: Any) -> Any:
        """Called by a request for its ack, or to reject."""
        message = getattr(p, "__self__", None)
        if not self.hub or message is None or p != message.ack_log_error:
            return super().call_soon_ack(p, *args, **options)
        self._acks.add(message)
        return p

    def _finish(self, cold: bool) -> None:
        """The worker ends: nothing starts any more, and no turn of the loop follows.

        Celery would sleep through a soft shutdown. Here the runs that end in it are recorded and acked as they end.
        """
        self._worker.starter.close()
        conf, over = self.app.conf, time.monotonic()
        if cold:
            over += conf.worker_soft_shutdown_timeout
            conf.worker_soft_shutdown_timeout = 0.0  # Celery need not wait for the same once more
            log.warning("soft shutdown", seconds=round(over - time.monotonic(), 1), running=len(state.active_requests))
        until = max(over, time.monotonic() + FINISH)
        while self._goes_on(over, until):
            self.pool.places.wait(0.1, self._worker.router.loop.fd)
            self._worker.router.loop.run()
            self._acks.flush()
        self._worker.router.loop.run()  # the acks of the last hand-overs
        self._acks.flush()

    def _goes_on(self, over: float, until: float) -> bool:
        router, now = self._worker.router, time.monotonic()
        router.batcher.kick()
        if self._worker.shutdown.begun:  # another signal: Celery's own handler has done the rest
            return False
        return (bool(state.active_requests) and now < over) or (not router.idle and now < until)

    def stop(self) -> None:
        """Write the last acks while there is a channel."""
        with contextlib.suppress(OSError):
            self._acks.flush()
        super().stop()

    def shutdown(self) -> None:
        """Send the last batch before its connection is closed; no timer runs any more."""
        self._flush_events()
        super().shutdown()

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Check each message before Celery sees it."""
        accept = super().create_task_handler(*args, **options)
        known, shutdown = frozenset(self.app.dispatch_types), self._worker.shutdown
        keys, sealing = self.app.dispatch_settings.signing, self.app.dispatch_settings.sealing
        most = most_values(self.app.dispatch_settings.max_body)

        def on_task_received(message: Any) -> None:
            self._acks.delivered(message)
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
                    most_values=most,
                    keys=keys,
                    sealing=sealing,
                )
                message.headers["expires"] = None  # checked; Celery would ack and drop it when it runs out later
                message._decoded_cache = triple  # noqa: SLF001 - kombu would make objects of {"__type__": …}
            except Poison as exc:
                self._dead_letter(message, exc.reason, str(exc))
            except Exception as exc:  # no message may take the worker down
                log.exception("message could not be checked")
                self._dead_letter(message, Reason.MALFORMED, repr(exc))
            else:
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
        self._acks.delivered(message)  # kombu reports what it can't decode without a look of ours
        wire = decode(message)
        if TOO_LARGE in wire.headers:
            # The worker has no whole body to publish. The queue dead-letters at least once: the broker loses nothing either.
            log.error("poison message rejected", reason=reason, error=error, task_id=wire.task_id)
            message.reject_log_error(log, self.connection_errors)
            self._acks.settled(message)
            return
        if fault := self.app.dispatch_settings.signing.fault(wire):  # what Celery could not decode was never checked
            reason, error = Reason.UNAUTHENTIC, fault

        def acked() -> None:
            message.ack_log_error(log, self.connection_errors)
            self._acks.settled(message)

        self._worker.router.dead_letter(wire, reason, error, acked)
