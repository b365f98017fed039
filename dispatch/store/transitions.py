"""Run the transitions of a task's record; a record that Redis has lost is rebuilt from the task's message."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import MAX_UNRECORDED, PRINCIPAL, Message, compact_json
from dispatch.protocol.record_fields import seed
from dispatch.store import finding
from dispatch.store.client import RedisCommand
from dispatch.store.index import relisted
from dispatch.store.scripts import RedisHandle
from dispatch.store.usage import Holding, Usage
from dispatch.telemetry import tracing

#: Seconds until the sweeper checks a rebuilt record, or a decision.
FIRST_CHECK = 5.0

#: What a script answers when there is no record and it was given no seed.
MISSING = "MISSING"

#: What a script answers, and `Transitions.run`, to a message that nothing of ours wrote: it claims more than it may.
FOREIGN = "FOREIGN"


def hop(kind: str, message: Message | None = None, /, **fields: Any) -> str:
    """A hop for the scripts, which add seq and time.

    Args:
        kind: one of the kinds in docs/reference/http-api.md, "Following a task".
        message: gives the hop its span.
        fields: more about it; None is left out. A ``spanId`` among them goes before all others.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if "spanId" not in given and (span := _span(message)):
        given["spanId"] = span
    return hop_text(kind, given)


def hop_text(kind: str, fields: Mapping[str, Any]) -> str:
    """A hop with just these fields. Each task has four, so the fast library makes it where it can."""
    entry = {"kind": kind, **fields}
    try:
        return orjson.dumps(entry).decode()
    except TypeError:  # an error's text with half a surrogate pair
        return compact_json(entry)


def _span(message: Message | None) -> str | None:
    parent = message.text("traceparent") if message else None
    return tracing.current().span_id or (parent.split("-")[2] if parent and trace_id(parent) else None)


def checked_soon(redis: RedisHandle, *task_ids: str) -> RedisCommand:
    """The command that goes before a decision: one that is never published has to be found by the sweeper."""
    at = time.time() + FIRST_CHECK
    return redis.vital("ZADD", redis.keys.due, *(word for task_id in task_ids for word in (at, task_id)))


class Transitions:
    """Scripts whose last argument is a seed: empty at first, and what rebuilds the record when there is none.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis
        self._usage = Usage(redis)

    def run(
        self,
        script: str,
        message: Message,
        *args: str | float,
        max_attempts: int,
        arrived: bool = False,
        before: Sequence[RedisCommand] = (),
        after: Sequence[RedisCommand] = (),
        after_rebuild: Sequence[RedisCommand] = (),
        more_keys: Sequence[str] = (),
    ) -> Any:
        """Run a transition.

        Args:
            script: its name.
            message: the task's; a lost record is rebuilt from it.
            args: the script's arguments, without the seed.
            max_attempts: for a record that has to be rebuilt.
            arrived: the message is what a queue delivered, which any client may have sent.
            before: commands of the same round trip.
            after: the same.
            after_rebuild: commands that follow when the record was rebuilt.
            more_keys: of the script, where all keys are on one node; not for one that rebuilds.

        Returns:
            The script's answer; `FOREIGN` for one that arrived, has no record, and claims too much to be given one.

        Raises:
            StoreUnavailable: the outcome is unknown; every transition is safe to repeat.
        """
        command = self.command(script, message, *args, more_keys=more_keys)
        answer = self._redis.run(*before, command, *after)[len(before)]
        if answer == MISSING:
            return self.rebuild_missing(
                script, message, *args, max_attempts=max_attempts, arrived=arrived, after=after_rebuild
            )
        return answer

    def rebuild_missing(
        self,
        script: str,
        message: Message,
        *args: str | float,
        max_attempts: int,
        arrived: bool = False,
        after: Sequence[RedisCommand] = (),
    ) -> Any:
        """Run a transition that has answered `MISSING` once more; arguments and answer as of `run`."""
        if arrived and max(message.cycle, message.seq) > MAX_UNRECORDED:
            return FOREIGN
        return self.rebuild(script, message, *args, max_attempts=max_attempts, after=after)

    def command(
        self,
        script: str,
        message: Message,
        *args: str | float,
        rebuild_from: str = "",
        more_keys: Sequence[str] = (),
    ) -> RedisCommand:
        """The command of a transition, for a batch of them."""
        return self._redis.script(script, (*self._redis.keys.task(message.task_id), *more_keys), *args, rebuild_from)

    def rebuild(
        self, script: str, message: Message, *args: str | float, max_attempts: int, after: Sequence[RedisCommand] = ()
    ) -> Any:
        """Run a transition that rebuilds the record, with its entries in the indexes.

        The sweeper's reminder comes first, and lies ahead, so that no sweeper checks before the record is there. The
        indexes come before, since in a Redis Cluster a crash may follow each command; and after, since a reader of an
        index drops an entry that has no record.
        """
        keys, task_id, now = self._redis.keys, message.task_id, time.time()
        due_at = message.due_at or int(now * 1_000)
        indexes = [keys.index(principal) for principal in (None, message.text(PRINCIPAL) or "")]
        first: list[RedisCommand] = [self._redis.vital("ZADD", keys.due, "NX", now + FIRST_CHECK, task_id)]
        first += [self._redis.vital("ZADD", index, due_at, task_id) for index in indexes]
        found = finding.indexes_of(keys, message, due_at)
        first += finding.relisting(self._redis, found, task_id, due_at)
        rebuilt_from = seed(message, max_attempts)
        first.append(self._usage.entry(message.text(PRINCIPAL), task_id, Holding.OPEN, len(rebuilt_from)))
        transition = self.command(script, message, *args, rebuild_from=rebuilt_from)
        listed = [relisted(self._redis, index, due_at, task_id) for index in indexes]
        listed += finding.relisting(self._redis, found, task_id, due_at)
        return self._redis.run(*first, transition, *listed, *after)[len(first)]
