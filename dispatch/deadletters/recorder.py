"""The recorder: workers consume a second copy of every dead letter and record FAIL with its reason.

So what the *broker* dead-lettered (expired, delivery limit) ends as FAIL, too. Idempotent: a dead letter may be recorded
any number of times, by any number of workers. Those that come together are recorded together; one whose transition fails costs
the others nothing: each is recorded by itself then.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from kombu import Connection, Consumer, Queue

from dispatch.background import Background
from dispatch.broker import connections, provision
from dispatch.broker.acks import Acks
from dispatch.broker.decoding import decode
from dispatch.config.tls import Where
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.protocol import names, webhooks
from dispatch.protocol.dead_letters import CLAIMS_TOO_MUCH, Reason, normalized, reason_of
from dispatch.protocol.message import DEAD_REASON, TRACEPARENT, Message
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.store.dead_letters import FIRST, DeadLetterAnswer, DeadLetterRecords, Death
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logger, metrics, task_log, tracing

log = logger(__name__)

#: Answers about a task that has ended in this cycle.
_ENDED = (*FIRST, DeadLetterAnswer.AGAIN)

#: Dead letters in hand at most; of these, those of tasks that a worker still runs.
PREFETCH, MAX_WAITING = 100, 50

#: Dead letters that are recorded together, and seconds to wait for another one.
TOGETHER, _BESIDES = 25, 0.001

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
        self._arrived: list[Any] = []
        self._acks = Acks(())  # a connection that is gone ends the step
        self._waiting: list[tuple[float, Any]] = []
        self._failure = ""  #: why the latest dead letter could not be recorded

    def step(self) -> None:
        """Consume until the connection breaks; what was in hand is unacked and delivered again."""
        self._waiting.clear()
        self._arrived.clear()
        with connections.connection(self._broker, heartbeat=20, connect_timeout=4) as connection:
            provision.connect(connection, self._broker)
            self._consume(connection)

    def _consume(self, connection: Connection) -> None:
        queue = Queue(names.RECORDER_QUEUE, no_declare=True)
        with Consumer(connection, [queue], accept=None, auto_declare=False, prefetch_count=PREFETCH) as consumer:
            consumer.on_message = self._arrives
            while not self.stopping:
                with contextlib.suppress(socket.timeout):
                    connection.drain_events(timeout=0.5)
                    while len(self._arrived) < TOGETHER:
                        connection.drain_events(timeout=_BESIDES)
                connection.heartbeat_check()
                self._record_arrived()
                self._record_waiting()

    def _arrives(self, message: Any) -> None:
        self._acks.delivered(message)
        self._arrived.append(message)

    def _record_arrived(self) -> None:
        arrived, self._arrived[:] = [*self._arrived], []
        self._take(arrived)

    def _take(self, messages: Sequence[Any]) -> None:
        """Record deaths and ack; those that have to be tried again wait."""
        again = [message for message, done in zip(messages, self._recorded(messages), strict=True) if not done]
        self._acks.flush()
        self._waiting += [(time.monotonic() + RECORD_AGAIN, message) for message in again]
        if len(self._waiting) > MAX_WAITING:
            self.pause(RECORD_AGAIN)  # once, however many they are: meanwhile there are no heartbeats
            for _, message in self._waiting[:-MAX_WAITING]:
                self._acks.settled(message)
                message.requeue()  # make room for others: to the back of the queue
            del self._waiting[:-MAX_WAITING]

    def _record_waiting(self) -> None:
        now = time.monotonic()
        due = [message for at, message in self._waiting if at <= now]
        self._waiting = [entry for entry in self._waiting if entry[0] > now]
        for message in due:
            self._take([message])

    def _recorded(self, messages: Sequence[Any]) -> list[bool]:
        """Record deaths and ack; for each, False when it has to be tried again."""
        wires = [decode(message) for message in messages]
        faults = [self._keys.fault(wire) for wire in wires]
        deaths = [self._death(wire) for wire, fault in zip(wires, faults, strict=True) if not fault]
        answered = zip(deaths, self._answers(deaths), strict=True)
        return [
            self._stays(message, wire, fault) if fault else self._done(message, *next(answered))
            for message, wire, fault in zip(messages, wires, faults, strict=True)
        ]

    def _death(self, arrived: Message) -> Death:
        dead_letter = normalized(arrived)
        return Death(dead_letter, reason_of(dead_letter), self._ladders.of(dead_letter.type).attempts)

    def _answers(self, deaths: Sequence[Death]) -> list[DeadLetterAnswer | Exception]:
        """What Redis has answered to each, or what went wrong."""
        if len(deaths) > 1 and not tracing.enabled():  # a span is of one
            try:
                return [*self._records.record_many(deaths)]
            except StoreUnavailable as exc:
                return [exc] * len(deaths)
            except Exception:
                log.debug("dead letters are recorded one by one", exc_info=True)
        return [self._answer(death) for death in deaths]

    def _answer(self, death: Death) -> DeadLetterAnswer | Exception:
        attributes = tracing.messaging("process", death.message, names.RECORDER_QUEUE, reason=death.reason)
        parent = death.message.text(TRACEPARENT)
        try:
            with tracing.span("dead letter", kind="consumer", parent=parent, attributes=attributes):
                return self._records.record_many([death])[0]
        except Exception as exc:  # noqa: BLE001 - one dead letter must not keep the recorder from all that come after it
            return exc

    def _stays(self, message: Any, arrived: Message, fault: str) -> bool:
        self._pass_over(arrived, fault)
        self._acks.add(message)
        return True

    def _done(self, message: Any, death: Death, answer: DeadLetterAnswer | Exception) -> bool:
        """Ack; False when it has to be recorded again."""
        dead_letter, reason = death.message, death.reason
        if isinstance(answer, StoreUnavailable):
            if self._failure != str(answer):  # not for each dead letter, at each of its tries
                task_log(dead_letter).warning("dead letter not recorded yet", reason=str(answer))
            self._failure = str(answer)
            return False
        if isinstance(answer, Exception):
            log.error(
                "dead letter can't be recorded; it stays in the DLQ", task_id=dead_letter.task_id, exc_info=answer
            )
            self._acks.add(message)
            return True
        self._failure = ""
        if answer is DeadLetterAnswer.BUSY:
            return False
        if answer is DeadLetterAnswer.FOREIGN:
            self._pass_over(dead_letter, CLAIMS_TOO_MUCH)
        elif answer in FIRST:
            metrics.DEAD_LETTERS.inc(metrics.one_of(reason, metrics.DEAD_REASONS))
        reach("recorder.recorded")
        if answer in _ENDED and webhooks.asked(dead_letter) and not self._announced(dead_letter):
            return False  # recorded once more then, which changes nothing
        # Of one that the router sent, the line about its attempt has the reason; the broker's have only this one.
        known = answer in FIRST and dead_letter.text(DEAD_REASON)
        if not known or logging.getLogger("dispatch.task").isEnabledFor(logging.DEBUG):
            write = task_log(dead_letter).debug if known else task_log(dead_letter).info
            write("dead letter recorded", reason=reason, record=answer.value)
        self._acks.add(message)
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
