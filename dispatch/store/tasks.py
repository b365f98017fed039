"""The Redis record: accept a task, read it again.

The transitions of a run are in `dispatch.store.claims`, those of a hand-over in `dispatch.store.handovers`, those of dead
letters in `dispatch.store.dead_letters`.

Crash windows of accepting, in order (the sweeper's part is in `dispatch.maintenance.sweeper`):

- after the Idempotency-Key: its repeat adopts the same task id once `idempotency_retry` has passed;
- after the record: unpublished, so the sweeper rejects it; a repeat of the Idempotency-Key publishes it;
- after the publish, before `TaskStore.mark_published`: a worker's claim proves that it was published; unclaimed, the
  sweeper rejects it and the late copy finds CANCELLED; the client has had no 202.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispatch.config.groups import RecordSettings
from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import ACCEPTED_AT, PRINCIPAL, Message
from dispatch.protocol.record import Brief, ErrorInfo, Record, State
from dispatch.protocol.record_fields import parse, seed
from dispatch.store import index
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.index import Page
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import Transitions, hop

#: Seconds between two checks whether the caller still waits for a change.
CHECK_INTERVAL = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class StoreHealth:
    """How Redis is configured."""

    noeviction: bool  #: False: Redis may drop records under memory pressure, which breaks P1 and P3


class TaskStore:
    """The records. Thread-safe.

    Args:
        redis: the process's handle.
        settings: times to live.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings) -> None:
        self._redis = redis
        self._transitions = Transitions(redis)
        self._idempotency = IdempotencyKeys(redis, settings)
        self._grace = settings.unpublished_grace
        self._result_ttl = int(settings.result_ttl * 1_000)
        self._index_ttl = int(settings.idempotency_ttl * 1_000)

    # --- accepting -------------------------------------------------------------------------------
    def accept(self, message: Message, *, max_attempts: int, idempotency_key: str | None) -> State:
        """Record a task before it is published.

        Args:
            message: what will be published, so that it can be sent again.
            max_attempts: of its type.
            idempotency_key: the sweeper frees it if it has to reject the task.

        Returns:
            SCHEDULED, or the state of the record that is there already (a repeated Idempotency-Key).

        Raises:
            StoreUnavailable: unknown; then don't publish.
        """
        keys, task_id = self._redis.keys, message.task_id
        own, everyone = keys.index(message.text(PRINCIPAL) or ""), keys.index(None)
        fields = json.dumps({**seed(message, max_attempts), "key": idempotency_key or ""})
        accepted_at = message.number(ACCEPTED_AT) or int(time.time() * 1_000)
        # Records expire by themselves, entries in an index don't: without this the indexes would grow for ever.
        expired = accepted_at - self._index_ttl
        answers = self._redis.run(
            # The sweeper's reminder comes first: a record without one would be forgotten if the gateway died here.
            ("ZADD", keys.due, accepted_at / 1_000 + self._grace, task_id),
            self._redis.script("accept", keys.task(task_id), fields, hop("accepted", message)),
            ("ZADD", own, accepted_at, task_id),
            ("ZADD", everyone, accepted_at, task_id),
            ("ZADD", keys.waiting, accepted_at, task_id),
            ("ZREMRANGEBYSCORE", own, "-inf", expired),
            ("ZREMRANGEBYSCORE", everyone, "-inf", expired),
        )
        return State(answers[1])

    def mark_published(
        self, message: Message, *, queue: str, max_attempts: int, idempotency_key: str | None, **details: Any
    ) -> bool:
        """Record that the broker has the message, and confirm its Idempotency-Key.

        Args:
            message: what was confirmed.
            queue: where it waits.
            max_attempts: for a record that Redis lost meanwhile.
            idempotency_key: of the request.
            details: for the hop: exchange, routingKey, confirmMs.

        Returns:
            False when the record was rejected meanwhile: the copy never runs.

        Raises:
            StoreUnavailable: unknown, so the client must get "unconfirmed".
        """
        principal = message.text(PRINCIPAL) or ""
        confirm = (
            [self._idempotency.confirmation(principal, idempotency_key, message.task_id)] if idempotency_key else []
        )
        note = hop("published", message, **details)
        answer = self._transitions.run("mark_published", message, queue, note, max_attempts=max_attempts, after=confirm)
        return bool(answer == "OK")

    def reject(
        self, message: Message, *, error: ErrorInfo, idempotency_key: str | None, silent_for: float = 0.0
    ) -> bool:
        """Record that a task never runs, and free its Idempotency-Key.

        Args:
            message: what the broker did not take.
            error: why.
            idempotency_key: of the request.
            silent_for: seconds without a change that the record must have; the sweeper's grace.

        Returns:
            False when a worker has claimed it or the grace isn't over: it runs, or may still be published.

        Raises:
            StoreUnavailable: unknown.
        """
        keys, task_id = self._redis.keys, message.task_id
        note = hop("rejected", message, errorType=error.type)
        arguments = (error.type, error.message, self._result_ttl, note, int(silent_for * 1_000))
        command = self._redis.script("reject", keys.task(task_id), *arguments)
        rejected = bool(self._redis.run(command, ("ZREM", keys.waiting, task_id))[0] == "OK")
        if rejected and idempotency_key:
            self._idempotency.release(message.text(PRINCIPAL) or "", idempotency_key, task_id)
        return rejected

    # --- reading ---------------------------------------------------------------------------------
    def get(self, task_id: str) -> Record | None:
        """One record; None when there is none.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return parse(task_id, self._redis.run(("HGETALL", self._redis.keys.task(task_id).record))[0])

    def get_many(self, task_ids: Sequence[str]) -> list[Record | None]:
        """Whole records, messages included, in the order asked, in one round trip: for few tasks."""
        if not task_ids:
            return []
        answers = self._redis.gather(*(("HGETALL", self._redis.keys.task(task_id).record) for task_id in task_ids))
        return [parse(task_id, fields) for task_id, fields in zip(task_ids, answers, strict=True)]

    def briefs(self, task_ids: Sequence[str]) -> Sequence[Brief | None]:
        """What lists choose by, in the order asked, in one round trip: for many tasks."""
        return index.briefs(self._redis, task_ids)

    def hops(self, task_id: str) -> list[dict[str, Any]]:
        """What happened to a task, oldest first (docs/reference/http-api.md, "Following a task")."""
        lines = self._redis.run(("LRANGE", self._redis.keys.task(task_id).hops, 0, -1))[0]
        return [_shown(json.loads(line)) for line in lines]

    def list(
        self,
        *,
        principal: str | None = None,
        status: str | None = None,
        state: str | None = None,
        type: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Tasks, newest first.

        Args:
            principal: whose; None for everybody's.
            status: only with this status.
            state: only in this state.
            type: only of this type.
            limit: tasks on a page.
            cursor: of the page before.

        Returns:
            A page; returned and raised as by `dispatch.store.index.read_page`.
        """

        def wanted(brief: Brief) -> bool:
            return (
                (status is None or brief.status == status)
                and (state is None or brief.state == state)
                and (type is None or brief.type == type)
            )

        return index.read_page(self._redis, self._redis.keys.index(principal), wanted, limit=limit, cursor=cursor)

    def wait(
        self, task_id: str, revision: int, seconds: float, over: Callable[[], bool] = lambda: False
    ) -> Record | None:
        """Wait until a record changes.

        Args:
            task_id: the task.
            revision: that the caller has.
            seconds: to wait at most.
            over: called every second; True ends the wait.

        Returns:
            The record, changed or not; None when there is none.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        deadline = time.monotonic() + seconds
        with self._redis.listening(self._redis.keys.task(task_id).record) as changed:
            record = self.get(task_id)  # after subscribing, so that no change is missed
            while record is not None and record.revision == revision and not record.state.terminal:
                left = deadline - time.monotonic()
                if left <= 0 or over():
                    break
                if changed(min(left, CHECK_INTERVAL)):
                    record = self.get(task_id)
        return record

    def ping(self) -> StoreHealth:
        """Whether Redis answers, and whether it keeps what it is given.

        Raises:
            StoreUnavailable: it does not answer.
        """
        return StoreHealth(noeviction=all(map(_keeps_all, self._redis.memory())))


def _keeps_all(memory: Mapping[str, Any]) -> bool:
    return memory.get("maxmemory_policy") == "noeviction" or not int(memory.get("maxmemory", 0))


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A hop with its times as the API has them; a wait ends ``until`` at the earliest: it begins with the confirm."""
    waits = {"until": timestamp(entry["at"] + round(entry["seconds"] * 1_000))} if "seconds" in entry else {}
    return {**entry, "at": timestamp(entry["at"]), **waits}
