"""The recorder: workers consume a second copy of every dead letter and record FAIL with its reason.

So what the *broker* dead-lettered (expired, delivery limit) ends as FAIL, too. Idempotent: a dead letter may be recorded
any number of times, by any number of workers.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Queue

from dispatch.background import Background
from dispatch.broker import connections, provision
from dispatch.broker.decoding import decode
from dispatch.config.tls import Where
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.protocol import names, webhooks
from dispatch.protocol.dead_letters import CLAIMS_TOO_MUCH, Reason, normalized, reason_of
from dispatch.protocol.message import DEAD_REASON, TRACEPARENT, Message
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.store.dead_letters import DeadLetterAnswer, DeadLetterRecords
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logger, metrics, task_log, tracing

log = logger(__name__)

#: Answers about the first copy of a death.
_FIRST = (DeadLetterAnswer.OK, DeadLetterAnswer.DONE)

#: Answers about a task that has ended in this cycle.
_ENDED = (*_FIRST, DeadLetterAnswer.AGAIN)

#: Dead letters in hand at most; of these, those of tasks that a worker still runs.
PREFETCH, MAX_WAITING = 100, 50

#: Seconds before a dead letter is recorded again whose task still runs, or that Redis could not take.
RECORD_AGAIN = 1.0

#: Seconds before a lost connection is made again.
RECONNECT = 1.0


class DeadLetterRecorder(Background):
    """Consumes the recorder queue on a thread and a connection of its own.

    Args:
        broker: the worker's.
        records: of dead letters.
        ladders: of the task types, for records that have to be rebuilt.
        keys: that a dead letter must be signed with.
        ended: does what the end of a task asks for.
    """

    def __init__(
        self,
        broker: Where,
        records: DeadLetterRecords,
        ladders: Ladders,
        keys: MessageKeys = NO_KEYS,
        *,
        ended: Callable[[Message], None] = lambda _: None,
    ) -> None:
        super().__init__("recorder", interval=RECONNECT)
        self._broker = broker
        self._records = records
        self._ladders = ladders
        self._keys = keys
        self._ended = ended
        self._waiting: list[tuple[float, Any]] = []
        self._failure = ""  #: why the latest dead letter could not be recorded

    def step(self) -> None:
        """Consume until the connection breaks; what was in hand is unacked and delivered again."""
        self._waiting.clear()
        with connections.connection(self._broker, heartbeat=20, connect_timeout=4) as connection:
            provision.connect(connection, self._broker)
            self._consume(connection)

    def _consume(self, connection: Connection) -> None:
        queue = Queue(names.RECORDER_QUEUE, no_declare=True)
        with Consumer(connection, [queue], accept=None, auto_declare=False, prefetch_count=PREFETCH) as consumer:
            consumer.on_message = self._on_message
            while not self.stopping:
                with contextlib.suppress(socket.timeout):
                    connection.drain_events(timeout=0.5)
                connection.heartbeat_check()
                self._record_waiting()

    def _on_message(self, message: Any) -> None:
        if not self._record(message):
            self._waiting.append((time.monotonic() + RECORD_AGAIN, message))
        if len(self._waiting) > MAX_WAITING:
            self.pause(RECORD_AGAIN)
            self._waiting.pop(0)[1].requeue()  # make room for others: to the back of the queue

    def _record_waiting(self) -> None:
        now = time.monotonic()
        due = [message for at, message in self._waiting if at <= now]
        self._waiting = [entry for entry in self._waiting if entry[0] > now]
        for message in due:
            self._on_message(message)

    def _record(self, message: Any) -> bool:
        """Record a death and ack; False when it has to be tried again."""
        arrived = decode(message)
        if fault := self._keys.fault(arrived):
            self._pass_over(arrived, fault)
            message.ack()
            return True
        dead_letter = normalized(arrived)
        reason = reason_of(dead_letter)
        try:
            answer = self._transition(dead_letter, reason)
        except StoreUnavailable as exc:
            if self._failure != str(exc):  # not for each dead letter, at each of its tries
                task_log(dead_letter).warning("dead letter not recorded yet", reason=str(exc))
            self._failure = str(exc)
            return False
        except Exception:  # one dead letter must not keep the recorder from all that come after it
            log.exception("dead letter can't be recorded; it stays in the DLQ", task_id=dead_letter.task_id)
            message.ack()
            return True
        self._failure = ""
        if answer is DeadLetterAnswer.BUSY:
            return False
        if answer is DeadLetterAnswer.FOREIGN:
            self._pass_over(dead_letter, CLAIMS_TOO_MUCH)
        elif answer in _FIRST:
            metrics.DEAD_LETTERS.inc(metrics.one_of(reason, metrics.DEAD_REASONS))
        reach("recorder.recorded")
        if answer in _ENDED and webhooks.asked(dead_letter) and not self._announced(dead_letter):
            return False  # recorded once more then, which changes nothing
        # Of one that the router sent, the line about its attempt has the reason; the broker's have only this one.
        known = answer in _FIRST and dead_letter.text(DEAD_REASON)
        write = task_log(dead_letter).debug if known else task_log(dead_letter).info
        write("dead letter recorded", reason=reason, record=answer.value)
        message.ack()
        return True

    def _announced(self, dead_letter: Message) -> bool:
        try:
            self._ended(dead_letter)
        except DispatchError as exc:
            task_log(dead_letter).warning("webhook not submitted yet", reason=f"{type(exc).__name__}: {exc}")
            return False
        except Exception:  # noqa: BLE001 - it must not keep the recorder from all that come after it
            task_log(dead_letter).exception("webhook can't be submitted")
        return True

    def _pass_over(self, dead_letter: Message, fault: str) -> None:
        """It stays in the DLQ until an operator discards it; it has no record."""
        metrics.DEAD_LETTERS.inc(Reason.UNAUTHENTIC)
        log.error("unauthentic dead letter not recorded", task_id=dead_letter.dead_letter_id, reason=fault)

    def _transition(self, dead_letter: Message, reason: str) -> DeadLetterAnswer:
        attributes = tracing.messaging("process", dead_letter, names.RECORDER_QUEUE, reason=reason)
        parent = dead_letter.text(TRACEPARENT)
        with tracing.span("dead letter", kind="consumer", parent=parent, attributes=attributes):
            return self._records.record(
                dead_letter, reason=reason, max_attempts=self._ladders.of(dead_letter.type).attempts
            )
