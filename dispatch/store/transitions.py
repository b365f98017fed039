"""Run the transitions of a task's record; a record that Redis has lost is rebuilt from the task's message."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import ACCEPTED_AT, PRINCIPAL, Message
from dispatch.protocol.record_fields import seed
from dispatch.store.client import RedisCommand
from dispatch.store.index import relisted
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import tracing

#: Seconds until the sweeper checks a rebuilt record.
FIRST_CHECK = 5.0

#: What a script answers when there is no record and it was given no seed.
MISSING = "MISSING"


def hop(kind: str, message: Message | None = None, /, **fields: Any) -> str:
    """A hop for the scripts, which add seq and time.

    Args:
        kind: one of the kinds in docs/reference/http-api.md, "Following a task".
        message: gives the hop its span.
        fields: more about it; None is left out.
    """
    parent = message.text("traceparent") if message else None
    span = tracing.current().span_id or (parent.split("-")[2] if parent and trace_id(parent) else None)
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({"kind": kind, **given, **({"spanId": span} if span else {})}, separators=(",", ":"))


class Transitions:
    """Scripts whose last argument is a seed: empty at first, and the record's fields when there is no record.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def run(
        self,
        script: str,
        message: Message,
        *args: str | float,
        max_attempts: int,
        before: Sequence[RedisCommand] = (),
        after: Sequence[RedisCommand] = (),
        after_rebuild: Sequence[RedisCommand] = (),
    ) -> Any:
        """Run a transition.

        Args:
            script: its name.
            message: the task's; a lost record is rebuilt from it.
            args: the script's arguments, without the seed.
            max_attempts: for a record that has to be rebuilt.
            before: commands of the same round trip.
            after: the same.
            after_rebuild: commands that follow when the record was rebuilt.

        Returns:
            The script's answer.

        Raises:
            StoreUnavailable: the outcome is unknown; every transition is safe to repeat.
        """
        answer = self._redis.run(*before, self.command(script, message, *args), *after)[len(before)]
        if answer == MISSING:
            answer = self.rebuild(script, message, *args, max_attempts=max_attempts, after=after_rebuild)
        return answer

    def command(self, script: str, message: Message, *args: str | float, rebuild_from: str = "") -> RedisCommand:
        """The command of a transition, for a batch of them."""
        return self._redis.script(script, self._redis.keys.task(message.task_id), *args, rebuild_from)

    def rebuild(
        self, script: str, message: Message, *args: str | float, max_attempts: int, after: Sequence[RedisCommand] = ()
    ) -> Any:
        """Run a transition that rebuilds the record, with its entries in the indexes.

        The sweeper's reminder comes first, and lies ahead, so that no sweeper checks before the record is there. The
        indexes come before, since in a Redis Cluster a crash may follow each command; and after, since a reader of an
        index drops an entry that has no record.
        """
        keys, task_id, now = self._redis.keys, message.task_id, time.time()
        accepted_at = message.number(ACCEPTED_AT) or int(now * 1_000)
        indexes = [keys.index(principal) for principal in (None, message.text(PRINCIPAL) or "")]
        first: list[RedisCommand] = [("ZADD", keys.due, "NX", now + FIRST_CHECK, task_id)]
        first += [("ZADD", index, accepted_at, task_id) for index in indexes]
        fields = json.dumps(seed(message, max_attempts), separators=(",", ":"))
        transition = self.command(script, message, *args, rebuild_from=fields)
        listed = [relisted(index, accepted_at, task_id) for index in indexes]
        return self._redis.run(*first, transition, *listed, *after)[len(first)]
