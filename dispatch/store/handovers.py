"""The hand-over, from one copy of a task to the next: what is recorded, and when.

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
from collections.abc import Collection, Sequence
from typing import Any

from dispatch.protocol import delays, names
from dispatch.protocol.message import (
    CHECKPOINT,
    DEAD_REASON,
    ERROR_FINGERPRINT,
    MAX_ERROR,
    PRINCIPAL,
    Copy,
    Message,
    compact_json,
)
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import Dead, Decision, Failure, Retry
from dispatch.store.cancellations import after_cancel
from dispatch.store.claims import Ticket
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import MISSING, Transitions, checked_soon, hop
from dispatch.store.usage import Holding, Usage


class DecisionAnswer(enum.StrEnum):
    """Whether a decision was recorded."""

    OK = "OK"  #: recorded
    ROUTE = "ROUTE"  #: recorded before: publish what was decided then
    REFUSED = "REFUSED"  #: the record has moved on, or never was there
    UNCLAIMED = "UNCLAIMED"  #: no run has the task: Redis may have lost this one's claim, which is claimed again before it is decided
    BUSY = "BUSY"  #: a worker runs the task: its outcome is not known yet
    CANCELLED = "CANCELLED"  #: the task was to be stopped, and has ended so: nothing is published
    FOREIGN = "FOREIGN"  #: it claims more than the record allows: nothing of ours wrote it


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """The answer to a decision, and the copy to publish unless it was refused."""

    answer: DecisionAnswer
    copy: Copy | None


@dataclasses.dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt, and what was decided about it."""

    message: Message  #: the copy that failed
    ticket: Ticket  #: the run's; its fence must be the record's
    copy: Copy  #: the next one
    failure: Failure  #: how it failed
    decision: Decision
    max_attempts: int  #: for a record that has to be rebuilt


@dataclasses.dataclass(frozen=True, slots=True)
class NextStep:
    """The copies of a task's next step, of which one is published."""

    copy: Copy  #: for the delay levels
    until: Sequence[str]  #: the signals that end the wait early
    early: Copy  #: for the work queue: such a signal, or a cancellation, may have come before


@dataclasses.dataclass(frozen=True, slots=True)
class EndedStep:
    """A step that ended in a wait."""

    message: Message  #: its copy
    ticket: Ticket  #: the run's; its fence must be the record's
    next: NextStep
    max_attempts: int  #: for a record that has to be rebuilt


#: What a run ended in, where the task goes on.
RunEnd = FailedAttempt | EndedStep


@dataclasses.dataclass(frozen=True, slots=True)
class Confirmed:
    """A decided copy that RabbitMQ has confirmed."""

    copy: Copy  #: its seq is one above the one that was decided
    owner: str = ""  #: whose lease is dropped; empty when there is none
    wait: float = 0.0  #: seconds the copy waits on its rung, or in the delay levels

    @property
    def dead(self) -> bool:
        """Whether it is a dead letter."""
        return self.copy.exchange == names.DEAD_EXCHANGE


class Handovers:
    """Decisions and their completion. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis
        self._transitions = Transitions(redis)
        self._usage = Usage(redis)

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
            max_attempts: for a record that has to be rebuilt.

        Returns:
            OK or ROUTE with the copy to publish; CANCELLED; REFUSED when another run has taken over; or UNCLAIMED.

        Raises:
            StoreUnavailable: unknown; decide again.
        """
        return self.decide_many([FailedAttempt(message, ticket, copy, failure, decision, max_attempts)])[0]

    def wait(self, message: Message, ticket: Ticket, step: NextStep, *, max_attempts: int) -> Decided:
        """Record a step that ended in a wait, and the copy of the next one.

        Args:
            message: the copy of the step.
            ticket: the run's; its fence must be the record's.
            step: the next one.
            max_attempts: for a record that has to be rebuilt.

        Returns, raises: as `decide`.
        """
        return self.decide_many([EndedStep(message, ticket, step, max_attempts)])[0]

    def decide_many(self, ends: Sequence[RunEnd]) -> list[Decided]:
        """Record how runs ended, and their next copies, in one round trip; in a Redis Cluster, in two.

        Args:
            ends: of different tasks.

        Returns:
            For each, what `decide` and `wait` return.

        Raises:
            StoreUnavailable: unknown, for each of them; decide again.
            StoreError: Redis refused one of them: unknown for all others, too.
        """
        answers = self._reminded([end.message.task_id for end in ends], [self._command(end) for end in ends])
        return [self._decided(end, answer) for end, answer in zip(ends, answers, strict=True)]

    def _command(self, end: RunEnd) -> RedisCommand:
        match end:
            case FailedAttempt():
                return self._transitions.command("decide", end.message, *_failed_words(end))
            case EndedStep():
                return self._transitions.command("wait", end.message, *_ended_words(end))

    def _reminded(self, task_ids: Sequence[str], commands: Sequence[RedisCommand]) -> list[Any]:
        """The answers to commands of different tasks, which the sweeper checks from before them on."""
        reminder = checked_soon(self._redis, *task_ids)
        if not self._redis.clustered:
            return self._redis.run(reminder, *commands)[1:]
        self._redis.run(reminder)
        return self._redis.gather(*commands)

    def _decided(self, end: RunEnd, answer: Any) -> Decided:
        message = end.message
        if answer == MISSING:
            script, words = (
                ("decide", _failed_words(end)) if isinstance(end, FailedAttempt) else ("wait", _ended_words(end))
            )
            answer = self._transitions.rebuild_missing(script, message, *words, max_attempts=end.max_attempts)
        made = decided(answer)
        if made.answer is DecisionAnswer.CANCELLED:
            self._redis.run(*after_cancel(self._redis, self._usage, message.text(PRINCIPAL), message.task_id))
        return made

    def hand_over(self, copy: Copy, *, owner: str = "", wait: float = 0.0, after: Sequence[RedisCommand] = ()) -> None:
        """Record that the decided copy is confirmed.

        Args:
            copy: what was published; its seq is one above the one that was decided.
            owner: whose lease is dropped; empty when there is none.
            wait: seconds the copy waits on its rung, or in the delay levels.
            after: commands that follow in the same round trip.

        Raises:
            StoreUnavailable: the copy's own claim mends the record later.
        """
        self.hand_over_many([Confirmed(copy, owner, wait)], after=after)

    def hand_over_many(self, confirmed: Sequence[Confirmed], *, after: Sequence[RedisCommand] = ()) -> None:
        """Record that decided copies are confirmed, in one round trip, and one more with dead letters among them.

        In a Redis Cluster it is one more for what comes before the scripts, and for what follows them.

        Args:
            confirmed: of different tasks.
            after: commands that follow.

        Raises:
            StoreUnavailable: each copy's own claim mends the record later.
        """
        if not confirmed:
            return
        keys, now = self._redis.keys, int(time.time() * 1_000)
        dead = [each.copy.message for each in confirmed if each.dead]
        # Listed first: a client that reads FAIL finds it among the dead letters.
        listed = [self._redis.vital("ZADD", keys.dead, *_scored(now, dead))] if dead else []
        last = [("ZREM", keys.waiting, *(message.task_id for message in dead))] if dead else []
        waiting = [
            word
            for each in confirmed
            if not each.dead
            for word in (now + int(each.wait * 1_000), each.copy.message.task_id)
        ]
        if waiting:
            last.append(self._redis.vital("ZADD", keys.waiting, *waiting))
        answers = self._redis.in_turn(listed, [self._handed_over(each) for each in confirmed], [*last, *after])[1]
        done = [
            each.copy.message for each, answer in zip(confirmed, answers, strict=True) if each.dead and answer == "OK"
        ]
        if done:
            counted = [(message.text(PRINCIPAL), message.task_id, Holding.DEAD, 0) for message in done]
            self._redis.gather(*self._usage.entries(counted))

    def _handed_over(self, confirmed: Confirmed) -> RedisCommand:
        copy, message, dead = confirmed.copy, confirmed.copy.message, confirmed.dead
        return self._redis.script(
            "hand_over",
            self._redis.keys.task(message.task_id),
            message.seq - 1,
            confirmed.owner,
            State.DEAD_LETTERED.value if dead else "",
            hop("dead-lettered", message, reason=message.text(DEAD_REASON)) if dead else "",
            int(copy.exchange == names.TASK_EXCHANGE),
            copy.queue,
            int(confirmed.wait * 1_000),
            message.attempt,
        )

    def send_now(self, copy: Copy, states: Collection[State], kind: str, **details: Any) -> Decided:
        """Record that a task's wait ends before its time.

        Args:
            copy: the next copy, for the work queue.
            states: those in which the task may be.
            kind: of the hop.
            details: more about the hop.

        Returns:
            OK or ROUTE with the copy to publish, or REFUSED when the task is in another state, or has changed.

        Raises:
            StoreUnavailable: unknown; send it again.
        """
        return self.send_now_many([copy], states, kind, **details)[0]

    def send_now_many(
        self, copies: Sequence[Copy], states: Collection[State], kind: str, **details: Any
    ) -> list[Decided]:
        """The same for tasks that wait for the same thing, in one round trip; in a Redis Cluster, in two."""
        listed = "".join(f",{state.value}" for state in states) + ","
        commands = [
            self._send_now(copy, listed, hop(kind, copy.message, queue=copy.queue, **details)) for copy in copies
        ]
        return [decided(answer) for answer in self._reminded([copy.message.task_id for copy in copies], commands)]

    def _send_now(self, copy: Copy, listed: str, note: str) -> RedisCommand:
        message = copy.message
        arguments = (message.cycle, message.seq, copy.to_json(), listed, copy.queue, note)
        return self._redis.script("send_now", self._redis.keys.task(message.task_id), *arguments)

    def resend(self, record: Record, copy: Copy) -> DecisionAnswer:
        """Record that the sweeper sends a silent task again.

        Returns:
            OK; REFUSED when the record has changed since it was read; CANCELLED when it was to be stopped, and has ended so:
            its reminder stays, for what its end asks for.

        Raises:
            StoreUnavailable: unknown; the next sweep finds out.
        """
        note = hop("resent", copy.message, queue=copy.queue)
        keys = self._redis.keys.task(record.task_id)
        command = self._redis.script("resend", keys, record.revision, record.seq, copy.to_json(), copy.queue, note)
        answer = self._redis.run(command)[0]
        if answer == DecisionAnswer.CANCELLED:
            ended = after_cancel(self._redis, self._usage, record.principal, record.task_id, check_at=0.0)
            self._redis.run(*ended)
            return DecisionAnswer.CANCELLED
        return DecisionAnswer.OK if answer == DecisionAnswer.OK else DecisionAnswer.REFUSED


def decided(answer: list[str]) -> Decided:
    """A script's answer: how it was decided, and the decided copy."""
    if answer[0] in (DecisionAnswer.REFUSED, DecisionAnswer.UNCLAIMED, DecisionAnswer.CANCELLED):
        return Decided(DecisionAnswer(answer[0]), None)
    return Decided(DecisionAnswer(answer[0]), Copy.from_json(answer[1]))


def _failed_words(end: FailedAttempt) -> tuple[str | float, ...]:
    # The hops have the span of the next copy, which is the hand-over's.
    message, copy, failure, decision = end.message, end.copy, end.failure, end.decision
    text, span = failure.message[:MAX_ERROR], copy.message
    failed = hop("failed", span, errorType=failure.type, message=text, attempt=message.attempt)
    if isinstance(decision, Dead):  # only the confirm makes it final
        state, rung, wait, reason, then = "", "", 0, str(decision.reason), ""
    else:
        kind = "delayed" if isinstance(decision, Retry) else "parked"
        state, rung, reason = State.RETRY_WAIT.value, decision.rung.name, ""
        wait = int(decision.rung.seconds * 1_000)
        then = hop(kind, span, queue=copy.queue, seconds=decision.rung.seconds)
    return (
        end.ticket.fence, message.seq, copy.to_json(), state, rung, wait, copy.queue,
        failure.type, text, int(failure.retryable), reason, failed, then, copy.message.text(ERROR_FINGERPRINT) or "",
    )  # fmt: skip


def _ended_words(end: EndedStep) -> tuple[str | float, ...]:
    copy, early, until = end.next.copy, end.next.early, list(end.next.until)
    following = copy.message
    seconds = delays.seconds_of(following.headers)
    about = {"step": following.step, "signals": until or None}
    waiting = hop("waiting", following, queue=copy.queue, seconds=seconds, **about)
    waited = hop("waiting", following, queue=early.queue, seconds=0, **about)
    return (
        end.ticket.fence, end.message.seq, copy.to_json(), early.to_json(), following.step,
        following.text(CHECKPOINT) or "", compact_json(until), copy.queue, early.queue,
        seconds * 1_000, waiting, waited,
    )  # fmt: skip


def _scored(score: int, messages: Sequence[Message]) -> list[str | int]:
    return [word for message in messages for word in (score, message.task_id)]
