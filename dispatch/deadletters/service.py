"""The operator's verbs on dead letters: find, redrive, discard, without ever losing or doubling one.

A redrive is recorded first (next cycle, its copy decided), then published, confirmed; only then may the dead letter leave
the DLQ. A walk takes it out: `celery dlq`'s, or that of a worker's janitor.

Crash windows:

- recorded, not published: the sweeper publishes the decided copy, or a repeated redrive does. Of one that is mended, the decided
  copy has the new payload whole, and the record's message is that one; the one of before is kept with the decision, until the copy
  is confirmed or the broker has refused it;
- published, the dead letter still in the DLQ: it is of an earlier cycle than its record, so the janitor takes it out and
  no walk redrives it again.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from dispatch.broker.publisher import Publisher
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, InDoubt
from dispatch.protocol import names
from dispatch.protocol.copies import redriven_copy, step_headers
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.mending import AS_IT_WAS, Mend, mended, same_work
from dispatch.protocol.message import CHECKPOINT, CYCLE, LAST_SPAN, SEQ, STEP, STEP_AT, TOO_LARGE, TRACEPARENT, Message
from dispatch.protocol.record import Record
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.handovers import DecisionAnswer
from dispatch.store.index import Page, ScannedBatch
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.masking import masked
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logs, tracing


class NoSuchDeadLetter(DispatchError):
    """There is no dead letter of this task."""


class NotDead(DispatchError):
    """The task is not a dead letter (any more).

    Args:
        record: the task's.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(f"the task is {record.state.value}, not a dead letter")
        self.record = record


class TooLarge(DispatchError):
    """The dead letter is larger than workers take: it can only be discarded."""


class RedriveOutcome(enum.StrEnum):
    """The outcome of redriving one dead letter."""

    SENT = "sent"  #: its next cycle has begun
    STALE = "stale"  #: its task has since succeeded, was discarded or redriven: it is of no use any more
    LIVE = "live"  #: a worker runs its task: it stays until that is over
    OVERTAKEN = "overtaken"  #: a redrive that was recorded before has sent it, with another payload or effect
    TOO_LARGE = "too-large"  #: only the broker has its body: it stays until it is discarded
    UNAUTHENTIC = "unauthentic"  #: no gateway or worker of ours wrote it: it stays until it is discarded
    FAILED = "failed"  #: it can't be published; a bulk redrive passes it over, and it stays


#: The outcome of a redrive for which nothing is published.
_WITHOUT_COPY = {
    DecisionAnswer.BUSY: RedriveOutcome.LIVE,
    DecisionAnswer.FOREIGN: RedriveOutcome.UNAUTHENTIC,
    DecisionAnswer.REFUSED: RedriveOutcome.STALE,
}


class DeadLetterService:
    """Finds, redrives and discards one dead letter. Thread-safe.

    Args:
        tasks: reads records.
        records: of dead letters.
        publisher: may write to the task exchange.
        ladders: of the task types, for records that have to be rebuilt.
        sealing: of the body of one that is mended.
        shards: of the default lane, for one whose concurrency key is mended.
    """

    def __init__(
        self,
        tasks: TaskStore,
        records: DeadLetterRecords,
        publisher: Publisher,
        ladders: Ladders,
        *,
        sealing: Sealing = UNSEALED,
        shards: int = 1,
    ) -> None:
        self._sealing = sealing
        self._shards = shards
        self._tasks = tasks
        self._records = records
        self._publisher = publisher
        self._ladders = ladders

    def find(self, task_id: str) -> Record:
        """A dead letter's whole record.

        Raises:
            NoSuchDeadLetter: the task isn't known or isn't dead.
            StoreUnavailable: Redis did not answer.
        """
        record = self._tasks.whole(task_id)
        if record is None or not record.is_dead_letter:
            raise NoSuchDeadLetter(f"there is no dead letter of task {task_id}")
        return record

    def page(self, wanted: DeadLetterFilter, *, limit: int, cursor: str | None) -> Page:
        """A page of dead letters, newest first; see `DeadLetterRecords.list`."""
        return self._records.list(wanted, limit=limit, cursor=cursor)

    def matching(self, wanted: DeadLetterFilter) -> Iterator[Record]:
        """The dead letters that a filter matches, read page by page.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        if wanted.ids is not None:
            found = (self._tasks.get(task_id) for task_id in wanted.ids)
            yield from (record for record in found if record is not None and record.is_dead_letter)
            return
        cursor: str | None = None
        while True:
            page = self.page(wanted, limit=200, cursor=cursor)
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def scan(self, wanted: DeadLetterFilter, *, cursor: str | None = None) -> Iterator[ScannedBatch]:
        """Briefs of the dead letters that a filter matches; see `DeadLetterRecords.scan`."""
        return self._records.scan(wanted, cursor=cursor)

    def errors_of(self, task_ids: Sequence[str]) -> list[str]:
        """The error's message of each task's last attempt; empty for one that has none any more.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return [record.error.message if record and record.error else "" for record in self._tasks.get_many(task_ids)]

    def count(self, wanted: DeadLetterFilter, *, most: int) -> int:
        """How many dead letters a filter matches now; ``most`` ends the count.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return sum(1 for _ in itertools.islice(self.matching(wanted), most))

    def knows(self, number: int) -> bool:
        """Whether at least as many dead letters have a record; see `DeadLetterRecords.has`."""
        return self._records.has(number)

    def redrivable(self, task_id: str) -> tuple[Record, Message]:
        """The whole record of a dead letter, or of a redrive that was cut off; and its message.

        Raises:
            NoSuchDeadLetter: the task isn't known.
            NotDead: it is not a dead letter (any more).
            StoreUnavailable: Redis did not answer.
        """
        record = self._tasks.whole(task_id)
        if record is not None and not record.state.dead and record.before_redrive is None:
            raise NotDead(record)
        if record is None or record.message is None or record.discarded:
            raise NoSuchDeadLetter(f"there is no dead letter of task {task_id}")
        return record, record.message

    def redrive(self, task_id: str, *, by: str, mend: Mend = AS_IT_WAS) -> Record:
        """Start a dead letter's next cycle from its record: same task id, same trace.

        Args:
            task_id: the task.
            by: who asked for it.
            mend: what is changed.

        Returns:
            The record in its next cycle.

        Raises:
            NoSuchDeadLetter: the task isn't known.
            NotDead: it is not a dead letter (any more), or another redrive, not mended in the same way, came first.
            TooLarge: no worker could take it.
            PublishError: the broker did not take it; unless `InDoubt`, it is a dead letter as before.
            StoreUnavailable: unknown; redrive again.
        """
        record, message = self.redrivable(task_id)
        match self.redrive_message(self._dead_copy(record, message), by=by, mend=mend):
            case RedriveOutcome.SENT:
                return self._tasks.get(task_id) or record
            case RedriveOutcome.TOO_LARGE:
                raise TooLarge
        raise NotDead(self._tasks.get(task_id) or record)

    def _dead_copy(self, record: Record, message: Message) -> Message:
        """The message as it died, from its record; of a redrive that was cut off, as it died before."""
        cut_off = record.before_redrive is not None
        cycle = record.cycle - 1 if cut_off else record.cycle
        seq = record.decided_seq if cut_off and record.decided_seq is not None else record.seq
        # The message is the first one: where its handler was between two waits, the record has.
        died = message.with_headers(STEP, STEP_AT, CHECKPOINT, **step_headers(record), **{CYCLE: cycle, SEQ: seq})
        return self._with_last_span(died)

    def redrive_message(self, dead_letter: Message, *, by: str, mend: Mend = AS_IT_WAS) -> RedriveOutcome:
        """Start the next cycle of a dead letter, wherever it was found.

        Args:
            dead_letter: with the cycle and seq it died in.
            by: who asked for it.
            mend: what is changed.

        Returns:
            The outcome; only one that was sent or is stale may leave the DLQ.

        Raises:
            PublishError: the broker did not take it; unless `InDoubt`, it is a dead letter as before.
            StoreUnavailable: unknown; redrive again.
        """
        if TOO_LARGE in dead_letter.headers:
            return RedriveOutcome.TOO_LARGE
        request = tracing.current()  # of the operator's request, which has a trace of its own
        attributes = tracing.messaging("send", dead_letter, names.DEAD_QUEUE, by=by)
        with tracing.span(
            f"redrive {dead_letter.type}",
            parent=dead_letter.text(TRACEPARENT),
            links=[request.traceparent],
            attributes=attributes,
        ) as span:
            request.link(span.traceparent)
            return self._redrive(dead_letter, by, mend)

    def _redrive(self, dead_letter: Message, by: str, mend: Mend) -> RedriveOutcome:
        fresh = redriven_copy(dead_letter)
        message = mended(fresh.message, mend, self._sealing, shards=self._shards)
        fresh = dataclasses.replace(fresh, message=tracing.stamped(message))
        max_attempts = self._ladders.of(dead_letter.type).attempts
        decided = self._records.redrive(dead_letter, fresh, by=by, max_attempts=max_attempts, mend=mend)
        if decided.copy is None:
            return _WITHOUT_COPY[decided.answer]
        copy = decided.copy
        reach("redrive.recorded")
        try:
            self._publisher.publish(copy.message, copy.exchange, copy.routing_key)
        except InDoubt:
            raise
        except Exception:  # not stored, or not even written: the broker's refusal, or a message that makes no frame
            self._records.undo_redrive(copy)
            raise
        reach("redrive.published")
        self._records.finish_redrive(copy)
        reach("redrive.finished")
        # A redrive that was cut off has gone on with what was decided then.
        if mend and not same_work(copy.message, fresh.message, self._sealing):
            return RedriveOutcome.OVERTAKEN
        return RedriveOutcome.SENT

    def discard(self, task_id: str, *, by: str) -> None:
        """Discard a dead letter: the task stays FAIL, its record expires, the message leaves the DLQ.

        Raises:
            NoSuchDeadLetter: there is none.
            StoreUnavailable: unknown; discard again.
        """
        if not self._records.discard(task_id, by=by):
            raise NoSuchDeadLetter(f"there is no dead letter of task {task_id}")

    def _with_last_span(self, dead_letter: Message) -> Message:
        """With the last run's span, which the record's message, the first one, can't have."""
        if not tracing.enabled():
            return dead_letter
        spans = [hop.get("spanId") for hop in self._tasks.hops(dead_letter.task_id) if hop["kind"] == "started"]
        return dead_letter.with_headers(**{LAST_SPAN: spans[-1]}) if spans and spans[-1] else dead_letter


def without_secrets(body: Any, known: TaskType | None) -> Any:
    """A dead letter's body without its payload's secrets. Pure.

    Args:
        body: decoded, ``[args, kwargs, embed]`` (Celery protocol 2).
        known: its task type; what an unknown type declares secret is not known, only what has a secret's name is.

    Returns:
        The same object when it has no secrets.

    Raises:
        ValueError, TypeError: it is no such body.
    """
    (payload, *more), *rest = body
    shown = masked(known.payload if known else None, payload)
    return logs.hidden([[shown.value, *more], *rest], shown.texts) if shown.changed else body
