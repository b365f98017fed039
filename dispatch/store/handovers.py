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
from dispatch.store.transitions import Transitions, checked_soon, hop
from dispatch.store.usage import Holding, Usage


class DecisionAnswer(enum.StrEnum):
    """Whether a decision was recorded."""

    OK = "OK"  #: recorded
    ROUTE = "ROUTE"  #: recorded before: publish what was decided then
    REFUSED = "REFUSED"  #: the record has moved on, or never was there
    BUSY = "BUSY"  #: a worker runs the task: its outcome is not known yet
    CANCELLED = "CANCELLED"  #: the task was to be stopped, and has ended so: nothing is published
    FOREIGN = "FOREIGN"  #: it claims more than the record allows: nothing of ours wrote it


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """The answer to a decision, and the copy to publish unless it was refused."""

    answer: DecisionAnswer
    copy: Copy | None


@dataclasses.dataclass(frozen=True, slots=True)
class NextStep:
    """The copies of a task's next step, of which one is published."""

    copy: Copy  #: for the delay levels
    until: Sequence[str]  #: the signals that end the wait early
    early: Copy  #: for the work queue: such a signal, or a cancellation, may have come before


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
            OK or ROUTE with the copy to publish; CANCELLED; or REFUSED when another run has taken over.

        Raises:
            StoreUnavailable: unknown; decide again.
        """
        text = failure.message[:MAX_ERROR]
        failed = hop("failed", message, errorType=failure.type, message=text, attempt=message.attempt)
        if isinstance(decision, Dead):  # only the confirm makes it final
            state, rung, wait, reason, then = "", "", 0, str(decision.reason), ""
        else:
            kind = "delayed" if isinstance(decision, Retry) else "parked"
            state, rung, reason = State.RETRY_WAIT.value, decision.rung.name, ""
            wait = int(decision.rung.seconds * 1_000)
            then = hop(kind, message, queue=copy.queue, seconds=decision.rung.seconds)
        answer = self._transitions.run(
            "decide", message,
            ticket.fence, message.seq, copy.to_json(), state, rung, wait, copy.queue,
            failure.type, text, int(failure.retryable), reason, failed, then, copy.message.text(ERROR_FINGERPRINT) or "",
            max_attempts=max_attempts, before=[checked_soon(self._redis, message.task_id)],
        )  # fmt: skip
        return self._decided(message, answer)

    def wait(self, message: Message, ticket: Ticket, step: NextStep, *, max_attempts: int) -> Decided:
        """Record a step that ended in a wait, and the copy of the next one.

        Args:
            message: the copy of the step.
            ticket: the run's; its fence must be the record's.
            step: the next one.
            max_attempts: for a record that has to be rebuilt.

        Returns, raises: as `decide`.
        """
        copy, early, following = step.copy, step.early, step.copy.message
        seconds = delays.seconds_of(following.headers)
        about = {"step": following.step, "signals": list(step.until) or None}
        waiting = hop("waiting", message, queue=copy.queue, seconds=seconds, **about)
        waited = hop("waiting", message, queue=early.queue, seconds=0, **about)
        answer = self._transitions.run(
            "wait", message,
            ticket.fence, message.seq, copy.to_json(), early.to_json(), following.step,
            following.text(CHECKPOINT) or "", compact_json(list(step.until)), copy.queue, early.queue,
            seconds * 1_000, waiting, waited,
            max_attempts=max_attempts, before=[checked_soon(self._redis, message.task_id)],
        )  # fmt: skip
        return self._decided(message, answer)

    def _decided(self, message: Message, answer: Any) -> Decided:
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
        keys, message = self._redis.keys, copy.message
        task_id, now = message.task_id, int(time.time() * 1_000)
        command = self._handed_over(copy, owner, wait)
        if copy.exchange == names.DEAD_EXCHANGE:
            # Listed first: a client that reads FAIL finds it among the dead letters.
            listed = self._redis.vital("ZADD", keys.dead, now, task_id)
            if self._redis.run(listed, command, ("ZREM", keys.waiting, task_id), *after)[1] == "OK":
                self._redis.run(self._usage.entry(message.text(PRINCIPAL), task_id, Holding.DEAD))
        else:
            listed = self._redis.vital("ZADD", keys.waiting, now + int(wait * 1_000), task_id)
            self._redis.run(command, listed, *after)

    def _handed_over(self, copy: Copy, owner: str = "", wait: float = 0.0) -> RedisCommand:
        message, dead = copy.message, copy.exchange == names.DEAD_EXCHANGE
        return self._redis.script(
            "hand_over",
            self._redis.keys.task(message.task_id),
            message.seq - 1,
            owner,
            State.DEAD_LETTERED.value if dead else "",
            hop("dead-lettered", message, reason=message.text(DEAD_REASON)) if dead else "",
            int(copy.exchange == names.TASK_EXCHANGE),
            copy.queue,
            int(wait * 1_000),
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
        reminder = checked_soon(self._redis, *(copy.message.task_id for copy in copies))
        listed = "".join(f",{state.value}" for state in states) + ","
        commands = [
            self._send_now(copy, listed, hop(kind, copy.message, queue=copy.queue, **details)) for copy in copies
        ]
        if not self._redis.clustered:
            return [decided(answer) for answer in self._redis.run(reminder, *commands)[1:]]
        self._redis.run(reminder)
        return [decided(answer) for answer in self._redis.gather(*commands)]

    def _send_now(self, copy: Copy, listed: str, note: str) -> RedisCommand:
        message = copy.message
        arguments = (message.cycle, message.seq, copy.to_json(), listed, copy.queue, note)
        return self._redis.script("send_now", self._redis.keys.task(message.task_id), *arguments)

    def hand_over_many(self, copies: Sequence[Copy]) -> None:
        """Record that decided copies are confirmed in the work queue, in one round trip; in a Redis Cluster, in two.

        Args:
            copies: as in `hand_over`.

        Raises:
            StoreUnavailable: each copy's own claim mends the record later.
        """
        if not copies:
            return
        keys, now = self._redis.keys, int(time.time() * 1_000)
        waiting = [word for copy in copies for word in (now, copy.message.task_id)]
        self._redis.in_turn(
            [self._handed_over(copy) for copy in copies], [self._redis.vital("ZADD", keys.waiting, *waiting)]
        )

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
    if answer[0] in (DecisionAnswer.REFUSED, DecisionAnswer.CANCELLED):
        return Decided(DecisionAnswer(answer[0]), None)
    return Decided(DecisionAnswer(answer[0]), Copy.from_json(answer[1]))
