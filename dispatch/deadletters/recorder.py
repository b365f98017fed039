"""The dead tap: workers read a second copy of every letter and write into the record that the task is dead.

So also what the *broker* dead-lettered (expired, delivery limit) ends as FAIL with a reason. Idempotent: a letter
may be seen any number of times, by any number of workers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Queue

from dispatch.broker import provision
from dispatch.broker.decoding import wire_message
from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import StoreUnavailable
from dispatch.protocol import names
from dispatch.protocol.dead_letters import death, readable
from dispatch.protocol.message import TRACEPARENT, Message
from dispatch.store.handovers import DeadLetterAnswer, Handovers
from dispatch.telemetry import logger, metrics, task_log, tracing

log = logger("dispatch.deadtap")

#: Letters in hand at most; of these, letters of tasks that a worker still runs.
PREFETCH, MAX_WAITING = 100, 50

#: Seconds between two looks at a letter whose task still runs, or that Redis could not take.
LOOK_AGAIN, RECONNECT = 1.0, 1.0


class DeadLetterRecorder:
    """Reads the tap on a thread and a connection of its own.

    Args:
        settings: the worker's.
        max_attempts: of a task type, for records that have to be recreated.
    """

    def __init__(self, settings: Settings, *, max_attempts: Callable[[str], int]) -> None:
        self._settings = settings
        self._max_attempts = max_attempts
        self._handovers = Handovers(settings)
        self._waiting: list[tuple[float, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dead-tap", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; what is in hand goes back."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._waiting.clear()
            try:
                self._read()
            except Exception as exc:  # noqa: BLE001 - whatever it was: the letters are unacked and come again
                log.warning("dead tap reconnects", reason=repr(exc))
                self._stop.wait(RECONNECT)

    def _read(self) -> None:
        with Connection(self._settings.broker("worker"), heartbeat=20, connect_timeout=4) as connection:
            provision.connect(connection)
            self._listen(connection)

    def _listen(self, connection: Connection) -> None:
        queue = Queue(names.DEAD_TAP, no_declare=True)
        with Consumer(connection, [queue], accept=None, auto_declare=False, prefetch_count=PREFETCH) as consumer:
            consumer.on_message = self._on_message
            while not self._stop.is_set():
                with contextlib.suppress(socket.timeout):
                    connection.drain_events(timeout=0.5)
                connection.heartbeat_check()
                self._look_again()

    def _on_message(self, message: Any) -> None:
        if not self._record(message):
            self._waiting.append((time.monotonic() + LOOK_AGAIN, message))
        if len(self._waiting) > MAX_WAITING:
            self._stop.wait(LOOK_AGAIN)
            self._waiting.pop(0)[1].requeue()  # make room for others: to the back of the queue

    def _look_again(self) -> None:
        now = time.monotonic()
        due = [message for at, message in self._waiting if at <= now]
        self._waiting = [entry for entry in self._waiting if entry[0] > now]
        for message in due:
            self._on_message(message)

    def _bury(self, letter: Message, reason: str) -> DeadLetterAnswer:
        told = tracing.messaging("process", letter, names.DEAD_TAP, reason=reason)
        with tracing.span("dead letter", kind="consumer", parent=letter.text(TRACEPARENT), attributes=told):
            return self._handovers.bury(
                letter, expired=reason == "expired", reason=reason, max_attempts=self._max_attempts(letter.type)
            )

    def _record(self, message: Any) -> bool:
        """Write the record and ack; False when it has to be tried again."""
        letter = readable(wire_message(message))
        reason = death(letter)
        try:
            burial = self._bury(letter, reason)
        except StoreUnavailable as exc:
            task_log(letter).warning("letter not recorded yet", reason=str(exc))
            return False
        except Exception:  # one letter's trouble must not keep the tap from all that come after it
            log.exception("letter can't be recorded; it stays in the DLQ", task_id=letter.task_id)
            message.ack()
            return True
        if burial is DeadLetterAnswer.BUSY:
            return False
        if burial in (DeadLetterAnswer.OK, DeadLetterAnswer.DONE):
            metrics.DEAD_LETTERS.inc(metrics.one_of(reason, metrics.DEAD_REASONS))
        reach("tap.recorded")
        task_log(letter).info("letter", reason=reason, record=burial.value)
        message.ack()
        return True
