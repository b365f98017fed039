"""From one copy of a task to the next: what is recorded, and when.

The order is always: record the decision (this seq is over, the next copy is this) → publish that copy, confirmed →
`Handovers.hand_over` (the next seq is the record's, the lease is dropped) → ack what led here.

Crash windows:

- after the decision: the redelivered copy finds ROUTE and publishes the decided copy;
- after the publish: the same, so two copies of the next seq exist; the first to be claimed wins, the other is STALE;
- after `hand_over`, before the ack: the redelivered copy is STALE.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Mapping
from typing import Any

from dispatch.config.settings import Settings
from dispatch.protocol import names
from dispatch.protocol.copies import _now
from dispatch.protocol.dead_letters import HOPELESS, death
from dispatch.protocol.message import (
    DEAD_REASON,
    LAST_ERROR,
    LAST_ERROR_TYPE,
    MAX_ERROR,
    Copy,
    Message,
)
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import Dead, Decision, Failure, Retry
from dispatch.store.claims import Ticket, hop, recreate, relisted, seed
from dispatch.store.keys import dead_key, due_key, known_key, stale_key, task_keys, waiting_key
from dispatch.store.scripts import Scripts, pairs, words

SCRIPTS = ("decide", "hand_over", "bury", "redrive", "undo_redrive", "discard", "resend", "forget", "settle_letters")


# --- pure: the next copy -------------------------------------------------------------------------


# --- the transitions -----------------------------------------------------------------------------
class DecisionAnswer(enum.StrEnum):
    """What a transition of a hand-over answers."""

    OK = "OK"  #: recorded
    ROUTE = "ROUTE"  #: recorded before: publish what was decided then
    REFUSED = "REFUSED"  #: the record has moved on, or never was there
    BUSY = "BUSY"  #: a worker runs the task: what becomes of it is not known yet


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """The answer to a decision, and the copy to publish unless it was refused."""

    word: DecisionAnswer
    copy: Copy | None


class DeadLetterAnswer(enum.StrEnum):
    """What the record says to a letter that the dead tap saw."""

    OK = "OK"  #: it is FAIL now
    DONE = "DONE"  #: it was already
    AGAIN = "AGAIN"  #: it was already, and this is not the first letter that says so
    BUSY = "BUSY"  #: a worker runs the task: look again when its lease is over
    STALE = "STALE"  #: the letter is an extra copy, the task lives on in a later one
    OLD = "OLD"  #: the task has since succeeded, was given up, or is in a later cycle


class Handovers:
    """Decisions, their completion, and what becomes of dead letters. Thread-safe.

    Args:
        settings: times to live, the ladder.
        timeout: seconds for each Redis answer.
    """

    def __init__(self, settings: Settings, *, timeout: float = 1.0) -> None:
        self._scripts = Scripts(settings, timeout=timeout, names=SCRIPTS)
        self._prefix = settings.redis_prefix
        self._ttl = int(settings.result_ttl * 1_000)
        self._grace = settings.unpublished_grace

    def decide(
        self,
        message: Message,
        ticket: Ticket,
        copy: Copy,
        failure: Failure,
        decision: Decision,
        *,
        max_attempts: int,
    ) -> Decided:
        """Record a failed attempt and its next copy.

        Args:
            message: the copy that failed.
            ticket: the run's; its fence must be the record's.
            copy: the next copy.
            failure: how it failed.
            decision: what was decided.
            max_attempts: for a record that has to be recreated.

        Returns:
            OK or ROUTE with the copy to publish, or REFUSED when another run has taken over.

        Raises:
            StoreUnavailable: unknown; say it again.
        """
        failed = hop("failed", message, errorType=failure.type, attempt=message.attempt)
        if isinstance(decision, Dead):  # only the confirm makes it final
            state, rung, wait, reason, then = "", "", 0, decision.reason, ""
        else:
            kind = "delayed" if isinstance(decision, Retry) else "parked"
            state, rung, reason = State.RETRY_WAIT.value, decision.rung.name, ""
            wait = int(decision.rung.seconds * 1_000)
            then = hop(kind, message, queue=copy.queue, seconds=decision.rung.seconds)
        arguments = (
            ticket.fence, message.seq, copy.to_json(), state, rung, wait, copy.queue,
            failure.type, failure.message[:MAX_ERROR], int(failure.retryable), reason, failed, then,
        )  # fmt: skip
        keys = task_keys(self._prefix, message.task_id)
        (answer,) = self._scripts.run(self._scripts.step("decide", keys, *arguments, ""))
        if answer[0] == "MISSING":
            step = self._scripts.step("decide", keys, *arguments, seed(message, max_attempts))
            answer = recreate(self._scripts, self._prefix, message, step)
        return _decided(answer)

    def hand_over(self, copy: Copy, *, owner: str = "", wait: float = 0.0) -> None:
        """Record that the decided copy is confirmed.

        Args:
            copy: what was published; its seq is one above the one that was decided.
            owner: whose lease is dropped; empty when there is none.
            wait: seconds the copy waits on its rung.

        Raises:
            StoreUnavailable: the copy's own claim mends the record later.
        """
        message = copy.message
        task_id = message.task_id
        dead = copy.exchange == names.DEAD_EXCHANGE
        queued = copy.exchange == names.TASK_EXCHANGE
        note = hop("dead-lettered", message, reason=message.text(DEAD_REASON)) if dead else ""
        state = State.DEAD_LETTERED.value if dead else ""
        step = self._scripts.step(
            "hand_over",
            task_keys(self._prefix, task_id),
            message.seq - 1,
            owner,
            state,
            note,
            int(queued),
            copy.queue,
            int(wait * 1_000),
            message.attempt,
        )
        if dead:
            died = ("ZADD", dead_key(self._prefix), _now(), task_id)  # first: who reads FAIL finds it in the list
            self._scripts.run(died, step, self._no_longer_waits(task_id))
        else:
            self._scripts.run(step, ("ZADD", waiting_key(self._prefix), _now() + int(wait * 1_000), task_id))

    def bury(self, letter: Message, *, expired: bool, reason: str, max_attempts: int) -> DeadLetterAnswer:
        """Record what the dead tap saw.

        Args:
            letter: a message that lies in the DLQ.
            expired: whether the queue's TTL killed it.
            reason: why it is dead.
            max_attempts: for a record that has to be recreated.

        Returns:
            What the record says to it.

        Raises:
            StoreUnavailable: unknown; say it again.
        """
        state = State.EXPIRED if expired else State.DEAD_LETTERED
        error = letter.text(LAST_ERROR_TYPE) or reason
        text = letter.text(LAST_ERROR) or f"dead-lettered by the broker: {reason}"
        keys, retryable = task_keys(self._prefix, letter.task_id), int(reason not in HOPELESS)
        note = hop("dead-lettered", letter, reason=reason)
        arguments = (letter.cycle, letter.seq, state.value, reason, error, text, retryable, names.DEAD_QUEUE, note)
        died = ("ZADD", dead_key(self._prefix), "NX", _now(), letter.task_id)
        answer = self._scripts.run(died, self._scripts.step("bury", keys, *arguments, ""))[1]
        if answer == "MISSING":
            step = self._scripts.step("bury", keys, *arguments, seed(letter, max_attempts))
            # Once more, afterwards: a list drops an entry that has no record yet.
            listed = relisted(dead_key(self._prefix), _now(), letter.task_id)
            answer = recreate(self._scripts, self._prefix, letter, step, listed)
        burial = DeadLetterAnswer(answer)
        if burial in (DeadLetterAnswer.OK, DeadLetterAnswer.DONE):
            self._scripts.run(self._no_longer_waits(letter.task_id))
        elif burial is not DeadLetterAnswer.BUSY:  # nobody needs the letter: the janitor looks at it
            self._scripts.run(self._mark(letter.task_id))
        return burial

    def redrive(self, letter: Message, copy: Copy, *, by: str, max_attempts: int) -> Decided:
        """Record that a dead letter starts its next cycle.

        Args:
            letter: the dead copy, from the DLQ or from the record.
            copy: the first copy of the next cycle.
            by: who asked for it.
            max_attempts: for a record that has to be recreated.

        Returns:
            OK or ROUTE with the copy to publish, BUSY when a worker runs the task, or REFUSED when it is not a dead
            letter any more.

        Raises:
            StoreUnavailable: unknown; say it again.
        """
        task_id = letter.task_id
        keys = task_keys(self._prefix, task_id)
        arguments = (letter.cycle, letter.seq, copy.to_json(), hop("redriven", copy.message, by=by))
        stale = self._mark(task_id)
        watch = self._watch(task_id, time.time() + self._grace)
        answer = self._scripts.run(watch, stale, self._scripts.step("redrive", keys, *arguments))[2]
        if answer[0] in ("MISSING", DecisionAnswer.REFUSED):
            # A letter that outlived its record, or that the dead tap has not seen yet: first the record says so.
            reason = death(letter)
            burial = self.bury(letter, expired=reason == "expired", reason=reason, max_attempts=max_attempts)
            if burial is DeadLetterAnswer.BUSY:
                return Decided(DecisionAnswer.BUSY, None)
            if burial is DeadLetterAnswer.OK:
                answer = self._scripts.run(self._scripts.step("redrive", keys, *arguments))[0]
        if answer[0] == DecisionAnswer.OK:
            # Before the publish: later, the next cycle may have died already, and it is the next death that is listed.
            # A crash before this leaves an entry that no list shows, since its record is not dead.
            self._scripts.run(("ZREM", dead_key(self._prefix), task_id))
        return _decided(answer)

    def finish_redrive(self, copy: Copy) -> None:
        """The redriven copy is confirmed: hand over, and have its letter taken out of the DLQ."""
        self.hand_over(copy)
        self._scripts.run(self._mark(copy.message.task_id))

    def undo_redrive(self, copy: Copy) -> None:
        """The broker provably did not take the copy: the letter is a dead letter again."""
        message = copy.message
        listed = ("ZADD", dead_key(self._prefix), "NX", _now(), message.task_id)
        keys = task_keys(self._prefix, message.task_id)
        self._scripts.run(listed, self._scripts.step("undo_redrive", keys, message.cycle, message.seq - 1))

    def discard(self, task_id: str, *, by: str) -> bool:
        """Give a dead letter up: the task stays FAIL, its record expires, its letter leaves the DLQ.

        Returns:
            False when it is not a dead letter.

        Raises:
            StoreUnavailable: unknown; say it again.
        """
        step = self._scripts.step("discard", task_keys(self._prefix, task_id), self._ttl, hop("discarded", by=by))
        stale = self._mark(task_id)
        discarded = bool(self._scripts.run(stale, step)[1] == "OK")
        if discarded:
            self._scripts.run(stale, ("ZREM", dead_key(self._prefix), task_id))
        return discarded

    def resend(self, record: Record, copy: Copy) -> bool:
        """Record that the sweeper sends a silent task again.

        Returns:
            False when the record has changed since it was read.

        Raises:
            StoreUnavailable: unknown; the next sweep finds out.
        """
        note = hop("resent", copy.message, queue=copy.queue)
        keys = task_keys(self._prefix, record.task_id)
        step = self._scripts.step("resend", keys, record.revision, record.seq, copy.to_json(), copy.queue, note)
        return bool(self._scripts.run(step)[0] == "OK")

    # --- what the sweeper and the janitor look at --------------------------------------------------
    def clock(self) -> float:
        """Redis's clock, epoch seconds."""
        seconds, micros = self._scripts.run(("TIME",))[0]
        return int(seconds) + int(micros) / 1_000_000

    def due(self, now: float, limit: int) -> list[str]:
        """Tasks whose time to be looked at has come. Times are epoch seconds."""
        return list(self._scripts.run(("ZRANGEBYSCORE", due_key(self._prefix), "-inf", now, "LIMIT", 0, limit))[0])

    def look_again(self, task_id: str, at: float) -> None:
        """Set when the sweeper looks at a task again, epoch seconds."""
        self._scripts.run(("ZADD", due_key(self._prefix), at, task_id))

    def forget(self, task_id: str, looked: float) -> None:
        """Nothing is left to look after, unless somebody set a reminder since the sweeper looked (epoch seconds)."""
        self._scripts.run(self._scripts.step("forget", [due_key(self._prefix)], task_id, looked))

    def leased(self, task_id: str) -> bool:
        """Whether a worker holds the task's lease."""
        return bool(self._scripts.run(("EXISTS", task_keys(self._prefix, task_id)[1]))[0])

    def stale_letters(self) -> dict[str, int]:
        """Task ids whose letters may have to leave the DLQ, and how often each has been marked."""
        answer = self._scripts.run(("ZRANGE", stale_key(self._prefix), 0, -1, "WITHSCORES"))[0]
        return {task_id: int(marks) for task_id, marks in pairs(answer)}

    def settle_letters(self, marks: Mapping[str, int]) -> None:
        """These letters are gone, or stay; one that was marked again meanwhile is looked at again."""
        if marks:
            step = self._scripts.step("settle_letters", [stale_key(self._prefix)], *words(marks.items()))
            self._scripts.run(step)

    def letters_known(self) -> str:
        """``yes`` when every letter has its record; otherwise what was said last, or nothing."""
        return str(self._scripts.run(("GET", known_key(self._prefix)))[0] or "")

    def say_known(self, word: str) -> None:
        """Say what `letters_known` answers."""
        self._scripts.run(("SET", known_key(self._prefix), word))

    def close(self) -> None:
        """Close the connections."""
        self._scripts.close()

    def _no_longer_waits(self, task_id: str) -> tuple[Any, ...]:
        return ("ZREM", waiting_key(self._prefix), task_id)

    def _mark(self, task_id: str) -> tuple[Any, ...]:
        """Counted, since a walk that has passed the letter already must not settle what is marked behind its back."""
        return ("ZINCRBY", stale_key(self._prefix), 1, task_id)

    def _watch(self, task_id: str, at: float) -> tuple[Any, ...]:
        return ("ZADD", due_key(self._prefix), at, task_id)


def _decided(answer: list[str]) -> Decided:
    if answer[0] == DecisionAnswer.REFUSED:
        return Decided(DecisionAnswer.REFUSED, None)
    return Decided(DecisionAnswer(answer[0]), Copy.from_json(answer[1]))
