"""Walk through the DLQ once: take letters out or leave them, without loading them all.

Letters that stay are held unacked until the end of the walk, by delivery tag alone, and go back in their order.
A crash in the middle returns every letter that was not taken out.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from kombu import Connection, Consumer, Queue

import topology
from dispatch.deadletters import DeadLetters, Filter, Job, is_stale
from dispatch.errors import PublishError
from dispatch.handover import Handovers
from dispatch.records import Message
from dispatch.settings import Settings
from dispatch.store import Store
from dispatch.telemetry import logger

log = logger("dispatch.letterbox")

#: Seconds without a letter after which the queue counts as walked through.
IDLE = 1.0


class Stop(Exception):
    """Raised by a visitor: the walk is over, this letter stays."""


def walk(settings: Settings, wire_message: Callable[[Any], Message], visit: Callable[[Message], bool]) -> int:
    """Show every letter to a visitor.

    Args:
        settings: the ``replay`` user's broker URL.
        wire_message: turns kombu's message into ours.
        visit: called with each letter; True takes it out, `Stop` ends the walk.

    Returns:
        How many letters were taken out.

    Raises:
        Exception: what the visitor or the connection raised; letters not taken out are back in the queue.
    """
    taken = 0
    with Connection(settings.broker("replay"), heartbeat=30, connect_timeout=4) as connection:
        channel = connection.default_channel
        waiting = channel.queue_declare(topology.DEAD_QUEUE, passive=True).message_count
        for message in _letters(connection, channel, waiting):
            try:
                gone = visit(wire_message(message))
            except Stop:
                break
            if gone:
                message.ack()
                taken += 1
        with contextlib.suppress(OSError):
            channel.basic_nack(0, multiple=True, requeue=True)  # 0: everything that is still unacked
    return taken


def _letters(connection: Connection, channel: Any, waiting: int) -> Iterator[Any]:
    """At most as many letters as waited at the start: new ones are for the next walk."""
    arrived: list[Any] = []
    queue = Queue(topology.DEAD_QUEUE, no_declare=True)
    consumer = Consumer(channel, [queue], accept=None, auto_declare=False, on_message=arrived.append)
    seen, heard = 0, time.monotonic()
    if not waiting:
        return
    consumer.consume()
    while seen < waiting and time.monotonic() - heard < IDLE:
        with contextlib.suppress(socket.timeout):
            connection.drain_events(timeout=0.2)
        while arrived and seen < waiting:
            heard = time.monotonic()
            seen += 1
            yield arrived.pop(0)
            heard = time.monotonic()
        connection.heartbeat_check()
    consumer.cancel()


def redrive_all(
    settings: Settings,
    letters: DeadLetters,
    wire_message: Callable[[Any], Message],
    job: Job,
    *,
    shown: Callable[[Message, bool], None] = lambda _letter, _sent: None,
) -> int:
    """Redrive what a job's filter means, by walking through the DLQ; works also with Redis wiped.

    Args:
        settings: where the DLQ is.
        letters: redrives one.
        wire_message: turns kombu's message into ours.
        job: which letters, how many, how fast.
        shown: told about each letter that was meant, and whether it was sent on (or was of no use any more).

    Returns:
        How many were sent on.
    """
    sent = 0

    def visit(letter: Message) -> bool:
        nonlocal sent
        if sent >= job.limit:
            raise Stop
        if not job.filter.matches(letter):
            return False
        began = time.monotonic()
        redriven = letters.redrive_letter(_named(letter), by=job.by)
        sent += redriven
        shown(letter, redriven)
        if job.rate > 0:
            time.sleep(max(0.0, 1 / job.rate - (time.monotonic() - began)))
        return True

    walk(settings, wire_message, visit)
    return sent


def discard_all(
    settings: Settings,
    letters: DeadLetters,
    wire_message: Callable[[Any], Message],
    wanted: Filter,
    *,
    by: str,
    shown: Callable[[Message], None] = lambda _letter: None,
) -> int:
    """Take what a filter means out of the DLQ for good; their tasks stay FAIL.

    Returns:
        How many letters were taken out.
    """

    def visit(letter: Message) -> bool:
        if not wanted.matches(letter):
            return False
        with contextlib.suppress(Exception):  # a letter without a record is discarded all the same
            letters.discard(letter.letter_id, by=by)
        shown(letter)
        return True

    return walk(settings, wire_message, visit)


def clear_stale(settings: Settings, store: Store, handovers: Handovers, wire_message: Callable[[Any], Message]) -> int:
    """Take out the letters of tasks that were redriven or discarded, and second copies of the same letter.

    Returns:
        How many letters were taken out.
    """
    marked = handovers.stale_letters()
    if not marked:
        return 0
    seen: set[tuple[str, int, int]] = set()

    def visit(letter: Message) -> bool:
        task_id = letter.letter_id
        if task_id not in marked:
            return False
        if is_stale(letter, store.get(task_id)):
            log.info("stale letter removed", task_id=task_id, cycle=letter.cycle)
            return True
        again = (task_id, letter.cycle, letter.seq) in seen
        seen.add((task_id, letter.cycle, letter.seq))
        return again

    taken = walk(settings, wire_message, visit)
    settled = [task_id for task_id, record in zip(marked, store.get_many(list(marked)), strict=True)
               if record is None or record.before_redrive is None]  # fmt: skip
    handovers.settle_letters(settled)
    return taken


def _named(letter: Message) -> Message:
    """The letter with an id, so that one without a usable task id has a record too."""
    return letter if letter.task_id else letter.with_headers(**{"x-dead-id": letter.letter_id})


class Janitor:
    """Keeps the DLQ true in the background: stale letters go, jobs are done. One worker at a time does a job.

    Args:
        settings: the worker's.
        letters: redrives.
        wire_message: turns kombu's message into ours.
    """

    def __init__(self, settings: Settings, letters: DeadLetters, wire_message: Callable[[Any], Message]) -> None:
        self._settings = settings
        self._letters = letters
        self._wire_message = wire_message
        self._store = Store(settings, timeout=1.0)
        self._handovers = Handovers(settings)

    def tidy(self) -> None:
        """Look once whether there is something to do.

        Raises:
            DispatchError: Redis or the broker is away; look again later.
        """
        clear_stale(self._settings, self._store, self._handovers, self._wire_message)
        job = self._letters.next_job()
        if job is None:
            return
        try:
            sent = redrive_all(self._settings, self._letters, self._wire_message, job)
        except PublishError as exc:
            log.warning("redrive of many interrupted", reason=str(exc))
            return
        log.info("redrive of many done", sent=sent, by=job.by)
        self._letters.finish_job(job)
