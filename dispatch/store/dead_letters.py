"""The records of dead letters: their death, redrive and discard, and which of them may have to leave the DLQ.

A dead letter that may be stale is *flagged*; a walk through the DLQ checks the flagged ones and removes the flags.
"""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dispatch.config.groups import RecordSettings
from dispatch.protocol import names
from dispatch.protocol.dead_letters import (
    EVERY_DEAD_LETTER,
    DeadLetterFilter,
    Reason,
    error_text,
    fingerprint_of,
    is_hopeless,
    reason_of,
)
from dispatch.protocol.mending import AS_IT_WAS, Mend
from dispatch.protocol.message import LAST_ERROR_TYPE, PRINCIPAL, Copy, Message
from dispatch.protocol.record import State
from dispatch.protocol.record_fields import BRIEF, LIKE
from dispatch.store import index
from dispatch.store.client import RedisCommand
from dispatch.store.handovers import Decided, DecisionAnswer, Handovers, decided
from dispatch.store.hops import arrived_hop
from dispatch.store.index import Page, ScannedBatch
from dispatch.store.packed import PackedMessages
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import MISSING, Transitions, hop
from dispatch.store.unsynced import LATER
from dispatch.store.usage import Holding, Usage

#: The value of `RedisKeys.recorded` while every dead letter in the DLQ has its record.
ALL_RECORDED = "yes"


class DeadLetterAnswer(enum.StrEnum):
    """What recording a dead letter found."""

    OK = "OK"  #: the record is FAIL now
    DONE = "DONE"  #: it was already
    AGAIN = "AGAIN"  #: it was already, and this is not the first copy of this death
    BUSY = "BUSY"  #: a worker runs the task: record again after the lease
    STALE = "STALE"  #: an extra copy: the task lives on in a later one
    OLD = "OLD"  #: the task has since succeeded, was discarded, or is in a later cycle
    FOREIGN = "FOREIGN"  #: it claims more than its record allows: nothing of ours wrote it


#: Answers about the first copy of a death.
FIRST = (DeadLetterAnswer.OK, DeadLetterAnswer.DONE)


class Death(NamedTuple):
    """A message that lies in the DLQ, to be recorded."""

    message: Message
    reason: str  #: why it is dead
    max_attempts: int  #: for a record that has to be rebuilt


class DeadLetterRecords:
    """The transitions and lists of dead letters. Thread-safe.

    Args:
        redis: the process's handle.
        settings: times to live.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings) -> None:
        self._redis = redis
        self._transitions = Transitions(redis)
        self._handovers = Handovers(redis)
        self._usage = Usage(redis)
        self._result_ttl = int(settings.result_ttl * 1_000)
        self._grace = settings.unpublished_grace

    # --- transitions -----------------------------------------------------------------------------
    def record(self, dead_letter: Message, *, reason: str, max_attempts: int) -> DeadLetterAnswer:
        """Record a death.

        Args:
            dead_letter: a message that lies in the DLQ.
            reason: why it is dead.
            max_attempts: for a record that has to be rebuilt.

        Returns:
            What was found.

        Raises:
            StoreUnavailable: unknown; record it again.
        """
        return self.record_many([Death(dead_letter, reason, max_attempts)])[0]

    def record_many(self, deaths: Sequence[Death]) -> list[DeadLetterAnswer]:
        """The same for several, in two round trips; in a Redis Cluster, in one for each command.

        Raises:
            StoreUnavailable: unknown, for each of them; record them again.
        """
        commands = [command for death in deaths for command in self._recording(death)]
        scripted = self._redis.run(*commands)[1::2]
        answers = [self._found(death, answer) for death, answer in zip(deaths, scripted, strict=True)]
        after = [
            command for death, answer in zip(deaths, answers, strict=True) for command in self._after(death, answer)
        ]
        if after:
            self._redis.run(*after)
        if self._redis.unsynced.wanted:
            self._note([death for death, answer in zip(deaths, answers, strict=True) if answer in FIRST])
        return answers

    def _note(self, dead: Sequence[Death]) -> None:
        """Have deaths recorded again, where Redis loses them."""
        if dead:
            kept = PackedMessages([(death.message, (death.reason, death.max_attempts)) for death in dead])
            self._redis.unsynced.note(functools.partial(self._record_again, kept), kept.size)

    def _record_again(self, kept: PackedMessages) -> object:
        """Those that are not dead in their cycle. For any other a second record would count a second dead letter."""
        keys = self._redis.keys
        deaths = [Death(message, str(reason), int(attempts)) for message, (reason, attempts) in kept.entries()]
        read = self._redis.gather(*(("HMGET", keys.task(each.message.task_id)[0], "state", "cycle") for each in deaths))
        lost = [death for death, (state, cycle) in zip(deaths, read, strict=True) if _is_lost(death, state, cycle)]
        answers = self.record_many(lost) if lost else []
        return LATER if DeadLetterAnswer.BUSY in answers else None

    def _recording(self, death: Death) -> tuple[RedisCommand, RedisCommand]:
        """Its entry in the list, and its transition."""
        message = death.message
        listed = self._redis.vital("ZADD", self._redis.keys.dead, "NX", _now(), message.task_id)
        return listed, self._transitions.command("record_dead", message, *_words(death))

    def _found(self, death: Death, answer: Any) -> DeadLetterAnswer:
        if answer == MISSING:
            message, keys = death.message, self._redis.keys
            answer = self._transitions.rebuild_missing(
                "record_dead",
                message,
                *_words(death),
                max_attempts=death.max_attempts,
                arrived=True,
                # Once more, afterwards: a reader of the list drops an entry that has no record yet.
                after=[index.relisted(self._redis, keys.dead, _now(), message.task_id)],
            )
        return DeadLetterAnswer(answer)

    def _after(self, death: Death, answer: DeadLetterAnswer) -> list[RedisCommand]:
        message = death.message
        unlisted: RedisCommand = ("ZREM", self._redis.keys.waiting, message.task_id)
        match answer:
            case DeadLetterAnswer.OK:
                return [self._usage.entry(message.text(PRINCIPAL), message.task_id, Holding.DEAD), unlisted]
            case DeadLetterAnswer.DONE:  # its hand-over has counted it; it may be discarded by now
                return [unlisted]
            case DeadLetterAnswer.BUSY | DeadLetterAnswer.FOREIGN:
                return []
        return [self._flag(message.task_id)]  # it may be stale: the janitor checks it

    def redrive(
        self, dead_letter: Message, copy: Copy, *, by: str, max_attempts: int, mend: Mend = AS_IT_WAS
    ) -> Decided:
        """Record that a dead letter starts its next cycle.

        With a mend, the copy's message is the record's from then on, until the redrive is undone.

        Args:
            dead_letter: the dead copy, from the DLQ or from the record.
            copy: the first copy of the next cycle.
            by: who asked for it.
            max_attempts: for a record that has to be rebuilt.
            mend: what the copy has changed.

        Returns:
            OK or ROUTE with the copy to publish, BUSY when a worker runs the task, FOREIGN when the letter claims more than
            the record allows, or REFUSED when it is not a dead letter any more.

        Raises:
            StoreUnavailable: unknown; redrive again.
        """
        keys, task_id = self._redis.keys, dead_letter.task_id
        note = hop("redriven", copy.message, by=by, **mend.hop())
        command = self._redis.script(
            "redrive", keys.task(task_id), dead_letter.cycle, dead_letter.seq, copy.to_json(), note,
            copy.message.deadline_at or "", "fresh" if mend.fresh else "1" if mend else "",
        )  # fmt: skip
        reminder = self._redis.vital("ZADD", keys.due, time.time() + self._grace, task_id)
        answer = self._redis.run(reminder, self._flag(task_id), command)[2]
        if answer[0] in (MISSING, DecisionAnswer.REFUSED):
            # It outlived its record, or the recorder has not read it yet: its death is recorded first.
            death = self.record(dead_letter, reason=reason_of(dead_letter), max_attempts=max_attempts)
            if death in (DeadLetterAnswer.BUSY, DeadLetterAnswer.FOREIGN):
                return Decided(DecisionAnswer(death.value), None)
            # AGAIN: the recorder, or the first try of a lost answer, was there in between.
            if death in (DeadLetterAnswer.OK, DeadLetterAnswer.DONE, DeadLetterAnswer.AGAIN):
                answer = self._redis.run(command)[0]
            if answer[0] == MISSING:
                return Decided(DecisionAnswer.REFUSED, None)
        if answer[0] == DecisionAnswer.OK:
            # Before the publish: later, the next cycle may have died already, and it is the next death that is listed.
            # A crash before this leaves an entry that no list shows, since its record is not dead.
            size = len(copy.message.to_json()) if mend else 0
            counted = self._usage.entry(dead_letter.text(PRINCIPAL), task_id, Holding.OPEN, size)
            self._redis.run(counted, ("ZREM", keys.dead, task_id))
        return decided(answer)

    def finish_redrive(self, copy: Copy) -> None:
        """The redriven copy is confirmed: hand over, and have its dead letter removed from the DLQ.

        Raises:
            StoreUnavailable: the copy's own claim mends the record later.
        """
        self._handovers.hand_over(copy, after=[self._flag(copy.message.task_id)])

    def undo_redrive(self, copy: Copy) -> None:
        """The broker provably did not take the copy: the task is a dead letter again.

        Raises:
            StoreUnavailable: unknown; the sweeper publishes the decided copy.
        """
        keys, message = self._redis.keys, copy.message
        listed = self._redis.vital("ZADD", keys.dead, "NX", _now(), message.task_id)
        arguments = (message.cycle, message.seq - 1)
        undone = self._redis.script("undo_redrive", keys.task(message.task_id), *arguments)
        answer, *size = self._redis.run(listed, undone)[1]
        if answer == "OK":
            self._redis.run(self._usage.entry(message.text(PRINCIPAL), message.task_id, Holding.DEAD, *size))

    def discard(self, task_id: str, *, by: str) -> bool:
        """Discard a dead letter: the task stays FAIL, its record expires, the message leaves the DLQ.

        Returns:
            False when it is not a dead letter.

        Raises:
            StoreUnavailable: unknown; discard again.
        """
        keys = self._redis.keys
        command = self._redis.script("discard", keys.task(task_id), self._result_ttl, hop("discarded", by=by))
        owner = ("HGET", keys.task(task_id).record, "principal")
        _, answer, principal = self._redis.run(self._flag(task_id), command, owner)
        if answer != "OK":
            return False
        uncounted = self._usage.entry(principal, task_id, Holding.NOTHING)
        self._redis.run(self._flag(task_id), uncounted, ("ZREM", keys.dead, task_id))
        return True

    # --- reading ---------------------------------------------------------------------------------
    def list(self, wanted: DeadLetterFilter = EVERY_DEAD_LETTER, *, limit: int = 50, cursor: str | None = None) -> Page:
        """Tasks whose dead letters lie in the DLQ, newest first.

        Args:
            wanted: which ones.
            limit: dead letters on a page.
            cursor: of the page before.

        Returns:
            A page; returned and raised as by `dispatch.store.index.read_page`.
        """
        names = LIKE if wanted.fingerprint else BRIEF
        dead = self._redis.keys.dead
        return index.read_page(self._redis, dead, wanted.matches_brief, limit=limit, cursor=cursor, names=names)

    def scan(self, wanted: DeadLetterFilter, *, cursor: str | None = None) -> Iterator[ScannedBatch]:
        """The briefs of dead letters that a filter matches, newest first, two round trips for each batch.

        Args:
            wanted: which ones.
            cursor: where another scan ended.

        Returns:
            The batches.

        Raises:
            ValueError: the cursor is not one of ours.
            StoreUnavailable: Redis did not answer.
        """
        return index.scan(self._redis, self._redis.keys.dead, wanted.matches_brief, cursor=cursor, names=LIKE)

    def has(self, number: int) -> bool:
        """Whether at least as many dead letters have a record; a crash may leave a few entries that have none any more.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        at = number - 1
        return number <= 0 or bool(self._redis.run(("ZRANGE", self._redis.keys.dead, at, at))[0])

    # --- for the walks through the DLQ -----------------------------------------------------------
    def flagged(self) -> dict[str, int]:
        """Task ids whose dead letters may have to leave the DLQ, and how often each has been flagged.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        answer = self._redis.run(("ZRANGE", self._redis.keys.stale, 0, -1, "WITHSCORES"))[0]
        return {task_id: int(count) for task_id, count in index.pairs(answer)}

    def unflag(self, counts: Mapping[str, int]) -> None:
        """A walk has checked these; one that was flagged again meanwhile stays flagged.

        Raises:
            StoreUnavailable: they are checked once more.
        """
        if counts:
            command = self._redis.script("unflag_stale", [self._redis.keys.stale], *index.words(counts.items()))
            self._redis.run(command)

    def recorded_marker(self) -> str:
        """`ALL_RECORDED` while every dead letter has its record; otherwise what `set_recorded_marker` wrote last, or ''.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return str(self._redis.run(("GET", self._redis.keys.recorded))[0] or "")

    def set_recorded_marker(self, marker: str) -> None:
        """Write what `recorded_marker` returns.

        Raises:
            StoreUnavailable: unknown.
        """
        self._redis.run(self._redis.vital("SET", self._redis.keys.recorded, marker))

    def _flag(self, task_id: str) -> RedisCommand:
        """Counted: a walk that has passed the dead letter already must not remove a flag that was set behind it."""
        return self._redis.vital("ZINCRBY", self._redis.keys.stale, 1, task_id)


def _is_lost(death: Death, state: str | None, cycle: str | None) -> bool:
    """Whether a record, by two of its fields, is one of before the death."""
    behind = int(cycle or 0) - death.message.cycle
    return state is None or behind < 0 or (behind == 0 and not State(state).terminal)


def _words(death: Death) -> tuple[str | int, ...]:
    """The arguments of its transition."""
    message, reason = death.message, death.reason
    state = State.EXPIRED if reason == Reason.EXPIRED else State.DEAD_LETTERED
    return (
        message.cycle, message.seq, state.value, reason, message.text(LAST_ERROR_TYPE) or reason, error_text(message, reason),
        int(not is_hopeless(reason)), fingerprint_of(message), names.DEAD_QUEUE, hop("dead-lettered", message, reason=reason),
        arrived_hop(message),
    )  # fmt: skip


def _now() -> int:
    return int(time.time() * 1_000)
