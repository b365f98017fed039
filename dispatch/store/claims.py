"""The lease and the fence: who may run a copy, and whose outcome counts afterwards.

The lease ``robot:claim:{<id>}`` is the seed's ``SETNX``: while it lives, one delivery runs the task. The fence in
the record identifies the run: a worker that lost its lease without noticing is refused when it reports.

Crash windows, in the order of a run:

- before the claim: the message is unacked, the broker redelivers it;
- after the claim: the lease lapses, the redelivered copy waits on the lease queue and then runs;
- after the handler, before `Claims.complete`: the same, the handler runs again with the same idempotency key;
- after `Claims.complete`, before the ack: the redelivered copy finds DONE.

A claim that Redis loses with its last seconds leaves a run that no record knows. As long as no other delivery has claimed the task, the
run claims it once more (`Claims.claim_again`): when its lease is renewed, and before its outcome is recorded.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dispatch.config.groups import RecordSettings
from dispatch.protocol.message import PRINCIPAL, STEP, Copy, Message, compact_json
from dispatch.protocol.record_fields import step_fields
from dispatch.store.client import RedisCommand
from dispatch.store.hops import arrived_hop
from dispatch.store.packed import PackedMessages
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import MISSING, Transitions, hop
from dispatch.store.usage import Holding, Usage
from dispatch.telemetry import tracing

#: What a script answers that needs a claim, when neither this run nor another one has one.
UNCLAIMED = "UNCLAIMED"


class ClaimAnswer(enum.StrEnum):
    """Whether a copy may run."""

    RUN = "RUN"  #: it may; the fence is set
    LOST = "LOST"  #: it may not: this attempt's workers died too often, it counts as failed; the fence is set
    OVERDUE = "OVERDUE"  #: it may not: its deadline has passed; the fence is set
    DONE = "DONE"  #: finished in this cycle or a later one: ack
    CANCELLED = "CANCELLED"  #: never accepted: ack
    STALE = "STALE"  #: a later copy has taken over: ack
    ROUTE = "ROUTE"  #: failed and decided already: publish the decided copy again, ack
    BUSY = "BUSY"  #: another delivery runs it: park the copy
    FOREIGN = "FOREIGN"  #: it claims more than its record allows: nothing of ours wrote it


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    """A delivery's identity, given by the worker's main process.

    The owner stays for the delivery, so that a claim whose answer was lost can be repeated; the fence is new for
    each time that the delivery is given to a child.
    """

    owner: str
    fence: str
    worker: str


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """The answer, and for ROUTE the decided copy."""

    answer: ClaimAnswer
    copy: Copy | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Renewed:
    """What became of the leases that a worker holds."""

    lost: list[Ticket] = dataclasses.field(default_factory=list)  #: to another delivery, or to the record's end
    to_stop: dict[Ticket, float] = dataclasses.field(default_factory=dict)  #: seconds since a stop was requested
    unclaimed: list[Ticket] = dataclasses.field(
        default_factory=list
    )  #: Redis has no claim of theirs, and none of others


@dataclasses.dataclass(frozen=True, slots=True)
class ToClaim:
    """Ask to run a copy; see `Claims.claim`."""

    name: ClassVar[str] = "claim"  #: of its script
    message: Message
    ticket: Ticket
    max_attempts: int


@dataclasses.dataclass(frozen=True, slots=True)
class ToComplete:
    """Record SUCCESS; see `Claims.complete`."""

    name: ClassVar[str] = "complete"  #: of its script
    message: Message
    ticket: Ticket
    max_attempts: int
    result: str  #: JSON


@dataclasses.dataclass(frozen=True, slots=True)
class ToRelease:
    """Give a lease back; see `Claims.release`."""

    name: ClassVar[str] = "release"  #: of its script
    message: Message
    ticket: Ticket
    queue: str  #: where the copy goes


#: One of the transitions that a worker's main process makes for a run.
RunStep = ToClaim | ToComplete | ToRelease


class Claims:
    """The transitions of a run. Thread-safe.

    Args:
        redis: the process's handle, or one of its own for the renewal of leases.
        settings: lease and times to live.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings) -> None:
        self._redis = redis
        self.unsynced = redis.unsynced
        self._transitions = Transitions(redis)
        self._usage = Usage(redis)
        self._lease = int(settings.lease * 1_000)
        self._lost_runs = settings.lost_runs
        self._result_ttl = int(settings.result_ttl * 1_000)

    def claim(self, message: Message, ticket: Ticket, max_attempts: int) -> Claimed:
        """Ask to run a copy.

        Args:
            message: the copy.
            ticket: the delivery's identity.
            max_attempts: for a record that has to be rebuilt.

        Returns:
            The answer.

        Raises:
            StoreUnavailable: unknown; the same ticket may ask again.
        """
        claimed: Claimed = self.turn([ToClaim(message, ticket, max_attempts)])[0]
        return claimed

    def claim_again(self, message: Message, ticket: Ticket, max_attempts: int) -> bool:
        """Claim a run's task once more, after Redis has lost that claim; arguments and errors as of `claim`.

        Returns:
            False when the run has no task any more.
        """
        answer = self.claim(message, ticket, max_attempts).answer
        return answer in (ClaimAnswer.RUN, ClaimAnswer.LOST, ClaimAnswer.OVERDUE)

    def complete(self, message: Message, ticket: Ticket, result: Mapping[str, Any], max_attempts: int) -> bool:
        """Record SUCCESS and drop the lease.

        Returns:
            False when the fence refused it: another run has taken over.

        Raises:
            StoreUnavailable: unknown; complete again.
        """
        return bool(self.turn([ToComplete(message, ticket, max_attempts, compact_json(result))])[0])

    def release(self, message: Message, ticket: Ticket, queue: str) -> None:
        """Give the lease back for a run that was stopped on purpose: no lost run is counted.

        Args:
            message: the copy.
            ticket: the delivery's identity.
            queue: where the broker puts the copy back.

        Raises:
            StoreUnavailable: then the lease lapses by itself.
        """
        self.turn([ToRelease(message, ticket, queue)])

    def turn(self, steps: Sequence[RunStep]) -> list[Any]:
        """Carry out what one turn of a worker's event loop brings: in one round trip; in a Redis Cluster, in two.

        Crash window: a connection that ends in the middle leaves some steps carried out, and no answer to any. Each may be
        asked again with the same ticket: it gets the same answer, and nothing happens twice.

        Args:
            steps: carried out in their order, unless they are of different tasks.

        Returns:
            For each step, what `claim`, `complete` or `release` answers.

        Raises:
            StoreUnavailable: the outcome of every step is unknown.
            StoreError: Redis refused one of them: so is that of all others.
        """
        commands = [self._command(step) for step in steps]
        answers, _ = self._redis.in_turn(commands, self._unlisted(steps))
        read = [self._read(step, answer) for step, answer in zip(steps, answers, strict=True)]
        if self.unsynced.wanted:
            self._note([step for step, done in zip(steps, read, strict=True) if isinstance(step, ToComplete) and done])
        return read

    def repeat_ends(self, steps: Sequence[ToComplete]) -> None:
        """Record SUCCESS once more for runs whose end Redis had acknowledged, and may have lost since.

        Args:
            steps: as they were carried out.

        Raises:
            StoreUnavailable: unknown; repeat them.
        """
        commands = [
            self._transitions.command("complete_again", step.message, *self._again_words(step)) for step in steps
        ]
        answers, _ = self._redis.in_turn(commands, self._unlisted(steps))
        for step, answer in zip(steps, answers, strict=True):
            if answer == MISSING:
                message = step.message
                uncounted = self._usage.entry(message.text(PRINCIPAL), message.task_id, Holding.NOTHING)
                words, attempts = self._again_words(step), step.max_attempts
                self._transitions.rebuild("complete_again", message, *words, max_attempts=attempts, after=[uncounted])

    def _note(self, ended: Sequence[ToComplete]) -> None:
        """Have completions repeated, where Redis loses them."""
        if ended:
            kept = PackedMessages(
                [
                    (
                        step.message,
                        (step.ticket.owner, step.ticket.fence, step.ticket.worker, step.max_attempts, step.result),
                    )
                    for step in ended
                ]
            )
            self.unsynced.note(functools.partial(self._repeat_packed, kept), kept.size)

    def _repeat_packed(self, kept: PackedMessages) -> None:
        steps = [
            ToComplete(message, Ticket(str(owner), str(fence), str(worker)), int(attempts), str(result))
            for message, (owner, fence, worker, attempts, result) in kept.entries()
        ]
        self.repeat_ends(steps)

    def _again_words(self, step: ToComplete) -> tuple[str | float, ...]:
        fence, owner, result, ttl, succeeded = self._complete_words(step)
        message = step.message
        return message.cycle, message.seq, fence, owner, result, ttl, self._started(step), succeeded

    def _command(self, step: RunStep) -> RedisCommand:
        match step:
            case ToClaim():
                return self._transitions.command("claim", step.message, *self._claim_words(step))
            case ToComplete():
                return self._transitions.command("complete", step.message, *self._complete_words(step))
            case ToRelease(message, ticket, queue):
                stopped = hop("stopped", message, worker=ticket.worker, attempt=message.attempt, queue=queue)
                keys = self._redis.keys.task(message.task_id)
                return self._redis.script("release", keys, ticket.owner, ticket.fence, queue, stopped)

    def _claim_words(self, step: ToClaim) -> tuple[str | float, ...]:
        message, ticket = step.message, step.ticket
        return (
            message.cycle, message.seq, message.attempt, ticket.owner, ticket.fence,
            self._lease, self._lost_runs, ticket.worker, self._started(step), arrived_hop(message), message.deadline_at or "",
            compact_json(step_fields(message)) if STEP in message.headers else "",
        )  # fmt: skip

    def _started(self, step: ToClaim | ToComplete) -> str:
        message, ticket = step.message, step.ticket
        return hop("started", message, worker=ticket.worker, attempt=message.attempt, spanId=_span_of(ticket))

    def _complete_words(self, step: ToComplete) -> tuple[str | float, ...]:
        ticket = step.ticket
        succeeded = hop("succeeded", step.message, attempt=step.message.attempt, spanId=_span_of(ticket))
        return ticket.fence, ticket.owner, self._redis.sealing.seal_text(step.result), self._result_ttl, succeeded

    def _unlisted(self, steps: Sequence[RunStep]) -> list[RedisCommand]:
        """What follows the scripts: none of the claimed waits any longer; what has ended is checked and counted no longer."""
        keys = self._redis.keys
        ended = [step.message for step in steps if isinstance(step, ToComplete)]
        # A hand-over may have listed it as waiting after the claim.
        here = [step.message.task_id for step in steps if not isinstance(step, ToRelease)]
        uncounted = self._usage.entries([(each.text(PRINCIPAL), each.task_id, Holding.NOTHING, 0) for each in ended])
        unlisted = [*uncounted, ("ZREM", keys.due, *(each.task_id for each in ended))] if ended else []
        return [*unlisted, ("ZREM", keys.waiting, *here)] if here else unlisted

    def _read(self, step: RunStep, answer: Any) -> Any:
        match step:
            case ToClaim():
                return self._claimed(step, answer)
            case ToComplete():
                return self._completed(step, answer)
            case ToRelease():
                return None

    def _claimed(self, step: ToClaim, answer: Any) -> Claimed:
        if answer == MISSING:
            answer = self._transitions.rebuild_missing(
                "claim", step.message, *self._claim_words(step), max_attempts=step.max_attempts, arrived=True
            )
        kind, *copies = [answer] if isinstance(answer, str) else answer
        return Claimed(ClaimAnswer(kind), Copy.from_json(copies[0]) if copies else None)

    def _completed(self, step: ToComplete, answer: Any) -> bool:
        message, principal = step.message, step.message.text(PRINCIPAL)
        if answer == MISSING:
            uncounted = self._usage.entry(principal, message.task_id, Holding.NOTHING)
            answer = self._transitions.rebuild_missing(
                "complete", message, *self._complete_words(step), max_attempts=step.max_attempts, after=[uncounted]
            )
        if answer == UNCLAIMED:
            again = self.claim_again(message, step.ticket, step.max_attempts)
            answer = self._redis.run(self._command(step))[0] if again else "REFUSED"
        if answer == "REFUSED":  # the sweeper must go on checking the run that has taken over
            counted = self._usage.entry(principal, message.task_id, Holding.OPEN, len(message.body))
            self._redis.run(
                self._redis.vital("ZADD", self._redis.keys.due, "NX", time.time(), message.task_id), counted
            )
        return bool(answer == "OK")

    def progress(self, task_id: str, fence: str, progress: Mapping[str, Any] | None) -> bool:
        """Record progress, and read whether a client has asked for the task to stop.

        Args:
            task_id: the task.
            fence: of the run.
            progress: percent and message; None only reads.

        Returns:
            True when the task should stop.

        Raises:
            StoreUnavailable: it may be dropped.
        """
        if progress is not None and "message" in progress:
            progress = {**progress, "message": self._redis.sealing.seal_text(progress["message"])}
        text = "" if progress is None else json.dumps(progress, separators=(",", ":"))
        note = "" if progress is None else hop("progress", **progress)
        command = self._redis.script("progress", self._redis.keys.task(task_id), fence, text, note)
        return bool(self._redis.run(command)[0] == "CANCEL")

    def renew(self, running: Mapping[Ticket, tuple[Message, int]]) -> Renewed:
        """Renew the leases of everything that a worker holds, in one round trip.

        Args:
            running: message and attempts allowed, by ticket.

        Returns:
            What became of them.

        Raises:
            StoreUnavailable: try again soon.
        """
        if not running:
            return Renewed()
        commands = [
            self._transitions.command("renew", message, ticket.owner, ticket.fence, self._lease)
            for ticket, (message, _) in running.items()
        ]
        answers = dict(zip(running, self._redis.gather(*commands), strict=True))
        for ticket in [ticket for ticket, answer in answers.items() if answer == MISSING]:
            # Redis lost its data: the runs go on, and so do their records.
            message, max_attempts = running[ticket]
            self._transitions.rebuild(
                "renew", message, ticket.owner, ticket.fence, self._lease, max_attempts=max_attempts
            )
        lost = [ticket for ticket, answer in answers.items() if answer == "LOST"]
        to_stop = {ticket: answer[1] / 1_000 for ticket, answer in answers.items() if not isinstance(answer, str)}
        unclaimed = [ticket for ticket, answer in answers.items() if answer == UNCLAIMED]
        return Renewed(lost, to_stop, unclaimed)

    def leased(self, task_id: str) -> bool:
        """Whether a worker holds the task's lease.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return self.leases([task_id])[0]

    def leases(self, task_ids: Sequence[str]) -> list[bool]:
        """For each of these tasks, whether a worker holds its lease; in one round trip.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        commands = [("EXISTS", self._redis.keys.task(task_id).lease) for task_id in task_ids]
        return [bool(answer) for answer in self._redis.gather(*commands)] if commands else []


def _span_of(ticket: Ticket) -> str | None:
    """The id of a run's span, which is its fence; without traces a hop names the span of the copy."""
    return ticket.fence if tracing.enabled() else None
