"""The lease and the fence: who may run a copy, and whose outcome counts afterwards.

The lease ``robot:claim:{<id>}`` is the seed's ``SETNX``: while it lives, one delivery runs the task. The fence in
the record identifies the run: a worker that lost its lease without noticing is refused when it reports.

Crash windows, in the order of a run:

- before the claim: the message is unacked, the broker redelivers it;
- after the claim: the lease lapses, the redelivered copy waits on the lease queue and then runs;
- after the handler, before `Claims.complete`: the same, the handler runs again with the same idempotency key;
- after `Claims.complete`, before the ack: the redelivered copy finds DONE.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import time
from collections.abc import Mapping
from typing import Any

from dispatch.config.groups import RecordSettings
from dispatch.protocol.message import Copy, Message
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import MISSING, Transitions, hop


class ClaimAnswer(enum.StrEnum):
    """Whether a copy may run."""

    RUN = "RUN"  #: it may; the fence is set
    LOST = "LOST"  #: it may not: this attempt's workers died too often, it counts as failed; the fence is set
    DONE = "DONE"  #: finished in this cycle or a later one: ack
    CANCELLED = "CANCELLED"  #: cancelled or never accepted: ack
    STALE = "STALE"  #: a later copy has taken over: ack
    ROUTE = "ROUTE"  #: failed and decided already: publish the decided copy again, ack
    BUSY = "BUSY"  #: another delivery runs it: park the copy


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


class Claims:
    """The transitions of a run. Thread-safe.

    Args:
        redis: the process's handle, or one of its own for the renewal of leases.
        settings: lease and times to live.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings) -> None:
        self._redis = redis
        self._transitions = Transitions(redis)
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
        started = hop("started", message, worker=ticket.worker, attempt=message.attempt)
        arguments = (
            message.cycle, message.seq, message.attempt, ticket.owner, ticket.fence,
            self._lease, self._lost_runs, ticket.worker, started,
        )  # fmt: skip
        waits_no_longer = ("ZREM", self._redis.keys.waiting, message.task_id)
        kind, *copies = self._transitions.run(
            "claim", message, *arguments, max_attempts=max_attempts, after=[waits_no_longer]
        )
        return Claimed(ClaimAnswer(kind), Copy.from_json(copies[0]) if copies else None)

    def complete(self, message: Message, ticket: Ticket, result: Mapping[str, Any], max_attempts: int) -> bool:
        """Record SUCCESS and drop the lease.

        Returns:
            False when the fence refused it: another run has taken over.

        Raises:
            StoreUnavailable: unknown; complete again.
        """
        keys, task_id = self._redis.keys, message.task_id
        text = json.dumps(result, separators=(",", ":"))
        succeeded = hop("succeeded", message, attempt=message.attempt)
        # A hand-over may have listed it as waiting after the claim.
        ended = [("ZREM", keys.due, task_id), ("ZREM", keys.waiting, task_id)]
        answer = self._transitions.run(
            "complete", message, ticket.fence, ticket.owner, text, self._result_ttl, succeeded,
            max_attempts=max_attempts, after=ended,
        )  # fmt: skip
        if answer == "REFUSED":  # the sweeper must go on checking the run that has taken over
            self._redis.run(("ZADD", keys.due, "NX", time.time(), task_id))
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
        text = "" if progress is None else json.dumps(progress, separators=(",", ":"))
        note = "" if progress is None else hop("progress", **progress)
        command = self._redis.script("progress", self._redis.keys.task(task_id), fence, text, note)
        return bool(self._redis.run(command)[0] == "CANCEL")

    def renew(self, running: Mapping[Ticket, tuple[Message, int]]) -> list[Ticket]:
        """Renew the leases of everything that a worker holds, in one round trip.

        Args:
            running: message and attempts allowed, by ticket.

        Returns:
            The tickets that have lost their lease to another delivery or to the record's end.

        Raises:
            StoreUnavailable: try again soon.
        """
        if not running:
            return []
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
        return [ticket for ticket, answer in answers.items() if answer == "LOST"]

    def release(self, message: Message, ticket: Ticket, queue: str) -> None:
        """Give the lease back for a run that was stopped on purpose: no lost run is counted.

        Args:
            message: the copy.
            ticket: the delivery's identity.
            queue: where the broker puts the copy back.

        Raises:
            StoreUnavailable: then the lease lapses by itself.
        """
        keys = self._redis.keys.task(message.task_id)
        self._redis.run(self._redis.script("release", keys, ticket.owner, ticket.fence, queue))

    def leased(self, task_id: str) -> bool:
        """Whether a worker holds the task's lease.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(self._redis.run(("EXISTS", self._redis.keys.task(task_id).lease))[0])
