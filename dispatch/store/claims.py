"""The lease and the fence: who may run a copy, and whose word counts afterwards.

The lease ``robot:claim:{<id>}`` is the seed's ``SETNX``: it says that somebody runs the task now. The fence in
the record says whose run it is: a worker that lost its lease without noticing is refused when it reports.

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
import random
import time
from collections.abc import Mapping
from typing import Any

from dispatch.config.settings import Settings
from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import Copy, Message
from dispatch.protocol.record import State
from dispatch.store.client import RedisCommand
from dispatch.store.keys import due_key, index_key, task_keys, waiting_key
from dispatch.store.scripts import Scripts
from dispatch.telemetry import tracing

SCRIPTS = ("claim", "complete", "progress", "renew", "release")


#: Seconds until the sweeper looks at a recreated record; it finds out from it what there is to do.
FIRST_LOOK = 5.0


class ClaimAnswer(enum.StrEnum):
    """What the record says to a copy that wants to run."""

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
    each time that the delivery is handed to a child.
    """

    owner: str
    fence: str
    worker: str


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """The answer, and for ROUTE the decided copy."""

    answer: ClaimAnswer
    copy: Copy | None = None


def seed(message: Message, max_attempts: int) -> str:
    """The fields that recreate a lost record, from its message: the message alone is enough to run a task."""
    accepted = message.number("x-accepted-at")
    fields: dict[str, Any] = {
        "type": message.type,
        "principal": message.text("x-principal") or "",
        "requestId": message.text("x-request-id") or "",
        "traceparent": message.text("traceparent") or "",
        "cycle": message.cycle,
        "seq": message.seq,
        "attempt": message.attempt,
        "maxAttempts": max_attempts,
        "state": State.QUEUED.value,
        "message": message.to_json(),
    }
    if accepted:
        fields["createdAt"] = accepted
    if message.number("retries") >= message.attempt and message.number("x-failed-at"):
        fields["startedAt"] = message.number("x-failed-at")  # a letter's last attempt began at that time at the latest
    return json.dumps(fields, separators=(",", ":"))


def hop(kind: str, message: Message | None = None, /, **fields: Any) -> str:
    """A hop for the scripts, which add seq and time.

    Args:
        kind: one of the kinds in API.md, "Events".
        message: gives the hop its span.
        fields: more about it; None is left out.
    """
    parent = message.text("traceparent") if message else None
    span = tracing.current().span_id or (parent.split("-")[2] if parent and trace_id(parent) else None)
    shown = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({"kind": kind, **shown, **({"spanId": span} if span else {})}, separators=(",", ":"))


def recreate(scripts: Scripts, prefix: str, message: Message, step: RedisCommand, *more: RedisCommand) -> Any:
    """Run a transition that recreates a record that Redis lost, with what the record needs beside itself.

    The sweeper's reminder comes first, and lies ahead, so that no sweeper looks before the record is there. The indexes
    come before, since in a Redis Cluster a crash may follow each step; and after, since who walks over one drops an
    entry that has no record.

    Args:
        scripts: has the transition.
        prefix: of the keys.
        message: what the record is made from.
        step: the transition.
        more: what follows.

    Returns:
        The transition's answer.

    Raises:
        StoreUnavailable: unknown; say it again.
    """
    now = time.time()
    born = message.number("x-accepted-at") or int(now * 1_000)
    indexes = [index_key(prefix, whose) for whose in (None, message.text("x-principal") or "")]
    first: list[RedisCommand] = [("ZADD", due_key(prefix), "NX", now + FIRST_LOOK, message.task_id)]
    first += [("ZADD", index, born, message.task_id) for index in indexes]
    after = [relisted(index, born, message.task_id) for index in indexes]
    return scripts.run(*first, step, *after, *more)[len(first)]


def relisted(index: str, at: int, task_id: str) -> RedisCommand:
    """List a task whose record has just come back.

    Who walks over the list may have found no record a moment ago, and drops the entry with the score that he saw.
    So this one is never the same: a part of a millisecond is added, which changes no order.

    Args:
        index: a sorted set's key.
        at: epoch milliseconds.
        task_id: the entry.
    """
    return ("ZADD", index, at + random.random(), task_id)


class Claims:
    """The transitions of a run.

    Args:
        settings: lease and time to live.
        timeout: seconds for each Redis answer.
    """

    def __init__(self, settings: Settings, *, timeout: float = 1.0) -> None:
        self._settings = settings
        self._scripts = Scripts(settings, timeout=timeout, names=SCRIPTS)
        self._prefix = settings.redis_prefix
        self._lease = int(settings.lease * 1_000)
        self._ttl = int(settings.result_ttl * 1_000)

    def claim(self, message: Message, ticket: Ticket, max_attempts: int) -> Claimed:
        """Ask to run a copy.

        Args:
            message: the copy.
            ticket: the delivery's identity.
            max_attempts: for a record that has to be recreated.

        Returns:
            The answer.

        Raises:
            StoreUnavailable: unknown; the same ticket may ask again.
        """
        keys = task_keys(self._prefix, message.task_id)
        started = hop("started", message, worker=ticket.worker, attempt=message.attempt)
        arguments = (
            message.cycle, message.seq, message.attempt, ticket.owner, ticket.fence,
            self._lease, self._settings.lost_runs, ticket.worker, started,
        )  # fmt: skip
        waits_no_longer = ("ZREM", waiting_key(self._prefix), message.task_id)
        answer, _ = self._scripts.run(self._scripts.step("claim", keys, *arguments, ""), waits_no_longer)
        if answer[0] == "MISSING":
            again = self._scripts.step("claim", keys, *arguments, seed(message, max_attempts))
            answer = recreate(self._scripts, self._prefix, message, again)
        kind = ClaimAnswer(answer[0])
        return Claimed(kind, Copy.from_json(answer[1]) if kind is ClaimAnswer.ROUTE else None)

    def complete(self, message: Message, ticket: Ticket, result: Mapping[str, Any], max_attempts: int) -> bool:
        """Record SUCCESS and drop the lease.

        Returns:
            False when the fence refused it: another run has taken over.

        Raises:
            StoreUnavailable: unknown; say it again.
        """
        keys = task_keys(self._prefix, message.task_id)
        text = json.dumps(result, separators=(",", ":"))
        arguments = (ticket.fence, ticket.owner, text, self._ttl, hop("succeeded", message, attempt=message.attempt))
        forget = ("ZREM", due_key(self._prefix), message.task_id)
        waits_no_longer = ("ZREM", waiting_key(self._prefix), message.task_id)  # a hand-over may have come late
        answer = self._scripts.run(self._scripts.step("complete", keys, *arguments, ""), forget, waits_no_longer)[0]
        if answer == "REFUSED":  # another run's business, which the sweeper must go on looking after
            self._scripts.run(("ZADD", due_key(self._prefix), "NX", time.time(), message.task_id))
        if answer == "MISSING":
            again = self._scripts.step("complete", keys, *arguments, seed(message, max_attempts))
            answer = recreate(self._scripts, self._prefix, message, again)
        return bool(answer == "OK")

    def progress(self, task_id: str, fence: str, progress: Mapping[str, Any] | None) -> bool:
        """Record progress, and hear whether somebody asked for the task to stop.

        Args:
            task_id: the task.
            fence: of the run that speaks.
            progress: percent and message; None only asks.

        Returns:
            True when the task should stop.

        Raises:
            StoreUnavailable: it may be dropped.
        """
        text = "" if progress is None else json.dumps(progress, separators=(",", ":"))
        note = "" if progress is None else hop("progress", **progress)
        step = self._scripts.step("progress", task_keys(self._prefix, task_id), fence, text, note)
        return bool(self._scripts.run(step)[0] == "CANCEL")

    def renew(self, running: Mapping[Ticket, tuple[Message, int]]) -> list[Ticket]:
        """Keep the leases of everything that a worker holds, in one round trip.

        Args:
            running: message and attempts allowed by ticket.

        Returns:
            The tickets that have lost their lease to another delivery or to the record's end.

        Raises:
            StoreUnavailable: try again soon.
        """
        tickets = list(running)
        if not tickets:
            return []
        answers = self._scripts.gather(*(self._renewal(ticket, running[ticket][0], "") for ticket in tickets))
        missing = [ticket for ticket, answer in zip(tickets, answers, strict=True) if answer == "MISSING"]
        for ticket in missing:  # Redis lost its data: the runs go on, and so do their records
            message, max_attempts = running[ticket]
            again = self._renewal(ticket, message, seed(message, max_attempts))
            recreate(self._scripts, self._prefix, message, again)
        return [ticket for ticket, answer in zip(tickets, answers, strict=True) if answer == "LOST"]

    def release(self, message: Message, ticket: Ticket, queue: str) -> None:
        """Give the lease back for a run that was stopped on purpose: no lost run is counted.

        Args:
            message: the copy.
            ticket: the delivery's identity.
            queue: where the broker puts the copy back.

        Raises:
            StoreUnavailable: then the lease lapses by itself.
        """
        keys = task_keys(self._prefix, message.task_id)
        self._scripts.run(self._scripts.step("release", keys, ticket.owner, ticket.fence, queue))

    def close(self) -> None:
        """Close the connections."""
        self._scripts.close()

    def _renewal(self, ticket: Ticket, message: Message, fields: str) -> RedisCommand:
        keys = task_keys(self._prefix, message.task_id)
        return self._scripts.step("renew", keys, ticket.owner, ticket.fence, self._lease, fields)
