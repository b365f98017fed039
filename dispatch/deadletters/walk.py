"""Walk through the DLQ once: take letters out or leave them, without loading them all.

Letters that stay are held unacked until the end of the walk, by delivery tag alone, and then go back; RabbitMQ does
not promise their order. One walk at a time (`dispatch.deadletters.service.WalkLock`): what one holds, another would not see.
A crash in the middle returns every letter that was not taken out.
"""

from __future__ import annotations

import collections
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from amqp.exceptions import AMQPError
from kombu import Connection

from dispatch.broker import provision
from dispatch.broker.decoding import wire_message
from dispatch.config.settings import Settings
from dispatch.deadletters.service import BulkRedriveJob, DeadLetterService, RedriveOutcome, WalkInProgress, WalkLock
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.protocol import names
from dispatch.protocol.dead_letters import DeadLetterFilter, death, is_stale, readable
from dispatch.protocol.message import DEAD_ID, TOO_LARGE, Message
from dispatch.store.handovers import DeadLetterAnswer, Handovers
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger

log = logger("dispatch.letterbox")

#: Letters on one channel. A quorum queue gives a consumer 2,000 unacked messages at most (3.10), whatever its
#: prefetch: a walk that leaves more of them where they are goes on on another channel.
HAND = 500

#: What Redis says as long as it knows every letter.
KNOWN = "yes"

#: Walks that must have missed a letter before it counts as gone: while somebody peeks into the queue, as the management
#: UI and `basic.get` do, nobody else sees what he holds.
MISSES = 3

#: Seconds to wait for the next letter before asking whether there is one, and until a silent broker is given up.
PAUSE, SILENCE = 0.1, 30.0


class Stop(Exception):
    """Raised by a visitor: the walk is over, this letter stays."""


def walk(settings: Settings, turn: WalkLock, visit: Callable[[Message], bool], *, rate: float = 0.0) -> int:
    """Show every letter to a visitor.

    Args:
        settings: the ``replay`` user's broker URL.
        turn: the right to walk.
        visit: called with each letter; True takes it out, `Stop` ends the walk.
        rate: letters a second that are taken out at most; 0 is as fast as it goes.

    Returns:
        How many letters were taken out.

    Raises:
        Exception: what the visitor or the connection raised; letters not taken out are back in the queue.
    """
    with Connection(settings.broker("replay"), heartbeat=30, connect_timeout=4) as connection:
        provision.connect(connection)
        return _Walk(connection, turn).through(visit, 1 / rate if rate > 0 else 0.0)


class _Hand:
    """A channel with a consumer, and the letters that it holds."""

    def __init__(self, connection: Connection) -> None:
        self._channel = connection.channel()
        self._channel.basic_qos(0, HAND, False)
        self._held: dict[int, None] = {}  # every tag not acked, in order
        self.arrived: collections.deque[Any] = collections.deque()
        self.kept = 0  #: letters that were shown and stay
        self._tag: str | None = self._channel.basic_consume(names.DEAD_QUEUE, callback=self._take)

    def _take(self, raw: Any) -> None:
        message = self._channel.message_to_python(raw)
        self._held[message.delivery_tag] = None
        self.arrived.append(message)

    def waiting(self) -> int:
        """Letters that nobody holds; what was sent to this channel before is in `arrived` afterwards."""
        self._count()  # deliveries that the channel has in its mailbox go out between the two answers
        return self._count()

    def _count(self) -> int:
        return int(self._channel.queue_declare(names.DEAD_QUEUE, passive=True).message_count)

    def ack(self, message: Any) -> None:
        message.ack()
        del self._held[message.delivery_tag]

    def cancel(self) -> None:
        if self._tag is not None:
            self._channel.basic_cancel(self._tag)
            self._tag = None

    def give_back(self) -> None:
        """Return what is held; with 32 or more under way a quorum queue changes their order (measured on 3.10)."""
        for tag in self._held:
            self._channel.basic_reject(tag, True)
        self._count()  # so that all of it has arrived


class _Walk:
    def __init__(self, connection: Connection, turn: WalkLock) -> None:
        self._connection = connection
        self._turn = turn
        self._hands: list[_Hand] = []

    def through(self, visit: Callable[[Message], bool], pause: float) -> int:
        taken = 0
        try:
            for hand, message in self._letters():
                began = time.monotonic()
                if not visit(wire_message(message)):
                    hand.kept += 1
                    continue
                hand.ack(message)
                taken += 1
                self._rest(began + pause)
        except Stop:
            pass
        finally:
            self._give_back()
        return taken

    def _letters(self) -> Iterator[tuple[_Hand, Any]]:
        """At most as many letters as waited at the start: new ones are for the next walk."""
        queue = self._connection.default_channel.queue_declare(names.DEAD_QUEUE, passive=True)
        left = queue.message_count
        while left > 0:
            hand = _Hand(self._connection)
            self._hands.append(hand)
            while left > 0 and hand.kept < HAND:
                message = self._next(hand)
                if message is None:
                    return
                left -= 1
                yield hand, message
            hand.cancel()

    def _next(self, hand: _Hand) -> Any:
        heard = time.monotonic()
        while not hand.arrived:
            self._drain(PAUSE)
            if not hand.arrived and hand.waiting() == 0 and not hand.arrived:
                return None
            if time.monotonic() - heard > SILENCE:
                raise OSError("RabbitMQ stopped delivering letters")
        self._turn.keep()
        return hand.arrived.popleft()

    def _rest(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self._drain(min(left, 1.0))

    def _drain(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=seconds)
        self._connection.heartbeat_check()
        self._turn.keep()

    def _give_back(self) -> None:
        """As far as the connection lives; without it RabbitMQ returns them itself."""
        with contextlib.suppress(OSError, AMQPError):
            for hand in self._hands:
                hand.cancel()
            for hand in self._hands:
                hand.give_back()


def redrive_all(
    settings: Settings,
    letters: DeadLetterService,
    turn: WalkLock,
    job: BulkRedriveJob,
    *,
    shown: Callable[[Message, RedriveOutcome], None] = lambda _letter, _outcome: None,
) -> int:
    """Redrive what a job's filter means, by walking through the DLQ; works also with Redis wiped.

    Args:
        settings: where the DLQ is.
        letters: redrives one.
        turn: the right to walk.
        job: which letters, how many, how fast.
        shown: told about each letter that was meant, and what became of it.

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
        outcome = letters.redrive_letter(_named(letter), by=job.by)
        sent += outcome is RedriveOutcome.SENT
        shown(letter, outcome)
        return outcome in (RedriveOutcome.SENT, RedriveOutcome.STALE)

    walk(settings, turn, visit, rate=job.rate)
    return sent


def discard_all(
    settings: Settings,
    letters: DeadLetterService,
    turn: WalkLock,
    wanted: DeadLetterFilter,
    *,
    by: str,
    shown: Callable[[Message], None] = lambda _letter: None,
) -> int:
    """Take what a filter means out of the DLQ for good; their tasks stay FAIL.

    Returns:
        How many letters were taken out.

    Raises:
        StoreUnavailable: the rest stays; a letter must not go while its record says that it is there.
    """

    def visit(letter: Message) -> bool:
        if not wanted.matches(letter):
            return False
        try:
            letters.discard(letter.letter_id, by=by)
        except StoreUnavailable:
            raise
        except DispatchError:  # a letter without a record is discarded all the same
            log.info("letter without a dead record discarded", task_id=letter.letter_id)
        shown(letter)
        return True

    return walk(settings, turn, visit)


def clear_stale(
    settings: Settings, store: TaskStore, handovers: Handovers, turn: WalkLock, missed: dict[str, int] | None = None
) -> int:
    """Take out the letters of tasks that were redriven or discarded, and second copies of the same letter.

    Args:
        settings: where the DLQ is.
        store: the records.
        handovers: knows which tasks are meant.
        turn: the right to walk.
        missed: how many walks before this one did not see a task's letter; kept up to date. Without it, one is enough.

    Returns:
        How many letters were taken out.
    """
    meant = handovers.stale_letters()
    if not meant:
        return 0
    unseen = set(meant)
    seen: set[tuple[str, int, int, int]] = set()
    undecided: set[str] = set()

    def visit(letter: Message) -> bool:
        task_id = letter.letter_id
        if task_id not in meant:
            return False
        unseen.discard(task_id)
        record = store.get(task_id)
        if record is not None and record.before_redrive is not None:
            undecided.add(task_id)  # also when its confirm comes before the end of this walk
        if is_stale(letter, record):
            log.info("stale letter removed", task_id=task_id, cycle=letter.cycle)
            return True
        this = (task_id, letter.cycle, letter.seq, hash((letter.body, letter.text(TOO_LARGE))))
        again = this in seen
        seen.add(this)
        return again

    taken = walk(settings, turn, visit)
    ids = list(meant)
    for batch in (ids[start : start + HAND] for start in range(0, len(ids), HAND)):  # there may be very many
        records = zip(batch, store.get_many(batch), strict=True)
        undecided.update(each for each, record in records if record is not None and record.before_redrive is not None)
    undecided |= _still_missed(unseen, missed) if missed is not None else set()
    handovers.settle_letters({task_id: marks for task_id, marks in meant.items() if task_id not in undecided})
    return taken


def _still_missed(unseen: set[str], missed: dict[str, int]) -> set[str]:
    """Count a walk's misses; the tasks whose letters the next walk must look for again."""
    counted = {task_id: missed.get(task_id, 0) + 1 for task_id in unseen}
    missed.clear()
    missed.update((task_id, misses) for task_id, misses in counted.items() if misses < MISSES)
    return set(missed)


def record_all(settings: Settings, store: TaskStore, handovers: Handovers, turn: WalkLock, *, max_attempts: int) -> int:
    """Record the letters that have no record: Redis has lost its data, and the tap's copies are gone long since.

    Args:
        settings: where the DLQ is.
        store: the records.
        handovers: writes them.
        turn: the right to walk.
        max_attempts: of a task, for its new record.

    Returns:
        How many letters were recorded.
    """
    word, recorded = secrets.token_hex(8), 0
    handovers.say_known(word)

    def visit(letter: Message) -> bool:
        nonlocal recorded
        letter = readable(letter)
        if store.get(letter.task_id) is None:
            reason = death(letter)
            burial = handovers.bury(letter, expired=reason == "expired", reason=reason, max_attempts=max_attempts)
            recorded += burial is DeadLetterAnswer.OK
        return False

    walk(settings, turn, visit)
    if handovers.letters_known() == word:  # otherwise Redis lost its data again meanwhile
        handovers.say_known(KNOWN)
    return recorded


def _named(letter: Message) -> Message:
    """The letter with an id, so that one without a usable task id has a record too."""
    return letter if letter.task_id else letter.with_headers(**{DEAD_ID: letter.letter_id})


class Janitor:
    """Keeps the DLQ true in the background: stale letters go, jobs are done. One worker at a time does either.

    Args:
        settings: the worker's.
        letters: redrives.
    """

    def __init__(self, settings: Settings, letters: DeadLetterService) -> None:
        self._settings = settings
        self._letters = letters
        self._store = TaskStore(settings, timeout=1.0)
        self._handovers = Handovers(settings)
        self._missed: dict[str, int] = {}

    def tidy(self) -> None:
        """Look once whether there is something to do.

        Raises:
            DispatchError: Redis or the broker is away; look again later.
        """
        known = self._handovers.letters_known() == KNOWN
        if known and not self._handovers.stale_letters() and self._letters.next_job() is None:
            return
        try:
            with self._letters.turn() as turn:
                # Read anew: whoever had the turn before may have done it.
                if self._handovers.letters_known() != KNOWN:
                    self._record_all(turn)
                clear_stale(self._settings, self._store, self._handovers, turn, self._missed)
                job = self._letters.next_job()
                if job is not None:
                    self._do(job, turn)
        except WalkInProgress:
            log.debug("somebody else walks through the dead letters")

    def _record_all(self, turn: WalkLock) -> None:
        attempts = len(self._settings.ladder) + 1
        recorded = record_all(self._settings, self._store, self._handovers, turn, max_attempts=attempts)
        if recorded:
            log.warning("letters without a record recorded again", count=recorded)

    def _do(self, job: BulkRedriveJob, turn: WalkLock) -> None:
        outcomes: list[RedriveOutcome] = []
        try:
            redrive_all(
                self._settings, self._letters, turn, job, shown=lambda _letter, outcome: outcomes.append(outcome)
            )
        except Exception as exc:
            sent = outcomes.count(RedriveOutcome.SENT)
            log.warning("redrive of many interrupted", reason=repr(exc), sent=sent, by=job.by)
            if sent:
                self._letters.shorten_job(job, sent)
            raise
        log.info("redrive of many done", sent=outcomes.count(RedriveOutcome.SENT), by=job.by)
        self._letters.finish_job(job)
