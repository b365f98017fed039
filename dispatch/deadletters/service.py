"""The operator's verbs on dead letters: redrive, discard, one or many, without ever losing or doubling one.

A redrive is recorded first (next cycle, its copy decided), then published, confirmed; only then may the letter leave
the DLQ. The letter itself is taken out by whoever scans the queue: `celery dlq`, or the workers' janitor.

Crash windows:

- recorded, not published: the sweeper publishes the decided copy, or a repeated redrive does;
- published, the letter still in the DLQ: it is of an earlier cycle than its record, so the janitor takes it out and
  no scan redrives it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, InDoubt, PublishError, StoreError
from dispatch.protocol import names
from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.message import CYCLE, LAST_SPAN, SEQ, TOO_LARGE, TRACEPARENT, Copy, Message
from dispatch.protocol.record import Record
from dispatch.store.handovers import DecisionAnswer, Handovers
from dispatch.store.keys import jobs_key, walk_key
from dispatch.store.scripts import Scripts
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.registry import TaskType, secrets_of, veiled
from dispatch.telemetry import logs, tracing

#: Seconds that a walk keeps its turn without a sign of life, and between two tries to get it.
TURN, TURN_PAUSE = 15.0, 0.2


class NoSuchDeadLetter(DispatchError):
    """There is no dead letter of this task."""


class NotDead(DispatchError):
    """The task is not a dead letter (any more).

    Args:
        record: what it is.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(f"the task is {record.state.value}, not a dead letter")
        self.record = record


class TooLarge(DispatchError):
    """The letter is larger than workers take: it can only be discarded."""


class WalkInProgress(DispatchError):
    """Somebody else walks through the dead letters at the moment: try again later."""


class RedriveOutcome(enum.StrEnum):
    """What became of a letter that was to be redriven."""

    SENT = "sent"  #: its next cycle has begun
    STALE = "stale"  #: its task has since succeeded, was given up or redriven: the letter is of no use any more
    LIVE = "live"  #: a worker runs its task: the letter stays until that is over
    TOO_LARGE = "too-large"  #: only the broker has its body: it stays until it is discarded


@dataclasses.dataclass(frozen=True, slots=True)
class BulkRedriveJob:
    """A redrive of many letters that an operator asked for; the workers' janitor does it."""

    filter: DeadLetterFilter
    limit: int
    rate: float  #: letters a second
    by: str

    def to_json(self) -> str:
        """For Redis."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BulkRedriveJob:
        """The inverse of `to_json`."""
        data = json.loads(text)
        return cls(DeadLetterFilter(**data["filter"]), data["limit"], data["rate"], data["by"])


class WalkLock:
    """The right to walk through the DLQ: letters in one walker's hand are invisible to every other.

    Args:
        scripts: with ``walk_key``.
        key: in Redis.
    """

    def __init__(self, scripts: Scripts, key: str) -> None:
        self._scripts = scripts
        self._key = key
        self._walker = secrets.token_hex(8)
        self._kept = 0.0

    def take(self, patience: float) -> None:
        """Wait for it.

        Raises:
            WalkInProgress: not within ``patience`` seconds.
            StoreUnavailable: Redis did not answer.
        """
        deadline = time.monotonic() + patience
        while not self._say(TURN):
            if time.monotonic() >= deadline:
                raise WalkInProgress
            time.sleep(TURN_PAUSE)
        self._kept = time.monotonic()

    def keep(self) -> None:
        """A sign of life; call it again and again.

        Raises:
            WalkInProgress: it came too late, another walks.
            StoreUnavailable: Redis did not answer.
        """
        if time.monotonic() - self._kept < TURN / 3:
            return
        if not self._say(TURN):
            raise WalkInProgress
        self._kept = time.monotonic()

    def give_up(self) -> None:
        """Let others walk; without Redis's answer they may when it lapses."""
        with contextlib.suppress(StoreError):
            self._say(0)

    def _say(self, seconds: float) -> bool:
        step = self._scripts.step("walk_key", [self._key], self._walker, int(seconds * 1_000))
        return bool(self._scripts.run(step)[0] == "OK")


class DeadLetterService:
    """Redrive and discard.

    Args:
        settings: the ladder, times to live.
        store: reads records.
        publisher: may write to the task exchange.
    """

    def __init__(self, settings: Settings, store: TaskStore, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher
        self._handovers = Handovers(settings, timeout=settings.store_timeout)
        self._jobs = Scripts(settings, timeout=settings.store_timeout, names=("walk_key",))
        self._jobs_key, self._walk_key = jobs_key(settings.redis_prefix), walk_key(settings.redis_prefix)
        self._max_attempts = len(settings.ladder) + 1

    def find(self, task_id: str) -> Record:
        """A dead letter's record.

        Raises:
            NoSuchDeadLetter: the task isn't known or isn't dead.
        """
        record = self._store.get(task_id)
        if record is None or not record.buried:
            raise NoSuchDeadLetter(f"there is no dead letter of task {task_id}")
        return record

    def redrive(self, task_id: str, *, by: str) -> Record:
        """Start a dead letter's next cycle from its record: same task id, same trace.

        Args:
            task_id: the task.
            by: who asks.

        Returns:
            The record in its next cycle.

        Raises:
            NoSuchDeadLetter: the task isn't known.
            NotDead: it is not a dead letter (any more).
            TooLarge: nobody could take it.
            PublishError: the broker did not take it; unless `InDoubt`, it is a dead letter as before.
            StoreUnavailable: unknown; ask again.
        """
        record = self._store.get(task_id)
        if record is None or record.message is None or record.discarded:
            raise NoSuchDeadLetter(f"there is no dead letter of task {task_id}")
        if not record.buried and record.before_redrive is None:
            raise NotDead(record)
        cycle = record.cycle - 1 if record.before_redrive is not None else record.cycle
        seq = record.decided_seq if record.before_redrive is not None and record.decided_seq is not None else record.seq
        letter = self._linked(record.message.with_headers(**{CYCLE: cycle, SEQ: seq}))
        match self.redrive_letter(letter, by=by):
            case RedriveOutcome.SENT:
                return self._store.get(task_id) or record
            case RedriveOutcome.TOO_LARGE:
                raise TooLarge
        raise NotDead(self._store.get(task_id) or record)

    def redrive_letter(self, letter: Message, *, by: str) -> RedriveOutcome:
        """Start the next cycle of a letter, wherever it was found.

        Args:
            letter: with the cycle and seq it died in.
            by: who asks.

        Returns:
            What became of it; only a letter that was sent or is stale may leave the DLQ.

        Raises:
            PublishError: the broker did not take it; unless `InDoubt`, it is a dead letter as before.
            StoreUnavailable: unknown; ask again.
        """
        if TOO_LARGE in letter.headers:
            return RedriveOutcome.TOO_LARGE
        asked = tracing.current()  # of whoever asks: a request with a trace of its own
        told = tracing.messaging("send", letter, names.DEAD_QUEUE, by=by)
        with tracing.span(
            f"redrive {letter.type}", parent=letter.text(TRACEPARENT), links=[asked.traceparent], attributes=told
        ) as span:
            asked.link(span.traceparent)
            return self._redrive(letter, by)

    def _redrive(self, letter: Message, by: str) -> RedriveOutcome:
        fresh = redriven_copy(letter)
        fresh = dataclasses.replace(fresh, message=tracing.stamped(fresh.message))
        decided = self._handovers.redrive(letter, fresh, by=by, max_attempts=self._max_attempts)
        if decided.copy is None:
            return RedriveOutcome.LIVE if decided.word is DecisionAnswer.BUSY else RedriveOutcome.STALE
        copy = decided.copy
        reach("redrive.recorded")
        try:
            self._publish(copy)
        except InDoubt:
            raise
        except PublishError:
            self._handovers.undo_redrive(copy)
            raise
        reach("redrive.published")
        self._handovers.finish_redrive(copy)
        reach("redrive.finished")
        return RedriveOutcome.SENT

    def discard(self, task_id: str, *, by: str) -> None:
        """Give a dead letter up: the task stays FAIL, its record expires, its letter leaves the DLQ.

        Raises:
            NoSuchDeadLetter: there is none.
            StoreUnavailable: unknown; ask again.
        """
        if not self._handovers.discard(task_id, by=by):
            raise NoSuchDeadLetter(f"there is no dead letter of task {task_id}")

    # --- many ----------------------------------------------------------------------------------------
    def matching(self, wanted: DeadLetterFilter) -> Iterator[Record]:
        """The dead letters that a filter means, page by page."""
        if wanted.task_id is not None:
            record = self._store.get(wanted.task_id)
            yield from [record] if record is not None and record.buried else []
            return
        cursor: str | None = None
        while True:
            page = self._store.dead_letters(type=wanted.type, error_type=wanted.error_type, limit=200, cursor=cursor)
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def count(self, wanted: DeadLetterFilter, *, most: int) -> int:
        """How many dead letters a filter means now; ``most`` ends the count."""
        found = 0
        for _ in self.matching(wanted):
            found += 1
            if found >= most:
                break
        return found

    def request(self, job: BulkRedriveJob) -> int:
        """Have the workers redrive many letters; survives the death of whoever asked.

        Returns:
            How many match now, at most the job's limit.

        Raises:
            StoreUnavailable: nothing was asked for, or perhaps it was; asking twice does no harm.
        """
        found = self.count(job.filter, most=job.limit)
        if found:
            self._jobs.run(("RPUSH", self._jobs_key, job.to_json()))
        return found

    @contextlib.contextmanager
    def turn(self, patience: float = 0.0) -> Iterator[WalkLock]:
        """The right to walk through the DLQ, while the block lasts.

        Args:
            patience: seconds to wait for it.

        Raises:
            WalkInProgress: somebody else has it.
            StoreUnavailable: Redis did not answer.
        """
        turn = WalkLock(self._jobs, self._walk_key)
        turn.take(patience)
        try:
            yield turn
        finally:
            turn.give_up()

    def next_job(self) -> BulkRedriveJob | None:
        """The oldest job, which stays in the list until `finish_job`: a worker may die over it."""
        text = self._jobs.run(("LINDEX", self._jobs_key, 0))[0]
        return BulkRedriveJob.from_json(text) if text else None

    def finish_job(self, job: BulkRedriveJob) -> None:
        """A job is done."""
        self._jobs.run(("LREM", self._jobs_key, 1, job.to_json()))

    def shorten_job(self, job: BulkRedriveJob, sent: int) -> None:
        """A job was interrupted: what is left of it waits. A crash in between would leave it there twice, never lost."""
        left = dataclasses.replace(job, limit=job.limit - sent)
        self._jobs.run(("LPUSH", self._jobs_key, left.to_json()), ("LREM", self._jobs_key, -1, job.to_json()))

    def close(self) -> None:
        """Close the connections."""
        self._handovers.close()
        self._jobs.close()

    def _linked(self, letter: Message) -> Message:
        """With the last run's span, which the record's message, the first one, can't know."""
        if not tracing.enabled():
            return letter
        spans = [hop.get("spanId") for hop in self._store.hops(letter.task_id) if hop["kind"] == "started"]
        return letter.with_headers(**{LAST_SPAN: spans[-1]}) if spans and spans[-1] else letter

    def _publish(self, copy: Copy) -> None:
        self._publisher.publish(copy.message, copy.exchange, copy.routing_key)


def without_secrets(body: Any, known: TaskType | None) -> Any:
    """A letter's body as it may be shown. Pure.

    Args:
        body: decoded, ``[args, kwargs, embed]`` (Celery protocol 2).
        known: its task type; what is secret in the payload of another one is not known.

    Returns:
        The same object when there is nothing secret in it.

    Raises:
        ValueError, TypeError: it is no such body.
    """
    (payload, *more), *rest = body
    texts = secrets_of(known.payload, payload) if known else ()
    if known is None or not texts:
        return body
    return logs.hidden([[veiled(known.payload, payload, logs.REDACTED), *more], *rest], texts)
