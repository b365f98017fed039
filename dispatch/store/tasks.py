"""The Redis record: accept a task, read it again.

The transitions of a run are in `dispatch.store.claims`, those of a hand-over in `dispatch.store.handovers`, those of dead
letters in `dispatch.store.dead_letters`.

Crash windows of accepting, in order (the sweeper's part is in `dispatch.maintenance.sweeper`):

- after the Idempotency-Key, where it is reserved by itself (a Redis Cluster, a Redis without memory left), or where Redis dies
  between both: its repeat adopts the same task id once `idempotency_retry` has passed;
- after the record: unpublished, so the sweeper rejects it; a repeat of the Idempotency-Key publishes it;
- after the publish, before `TaskStore.mark_published`: a worker's claim proves that it was published; unclaimed, the
  sweeper rejects it and the late copy finds CANCELLED; the client has had no 202.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dispatch.config.groups import RecordSettings
from dispatch.errors import StoreError, StoreFull
from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import ACCEPTED_AT, PRINCIPAL, WAKES_AT, Message
from dispatch.protocol.packing import packed
from dispatch.protocol.record import Brief, ErrorInfo, Record, State
from dispatch.protocol.record_fields import accepted, opened_progress, parse
from dispatch.protocol.sealing import Sealing
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store import finding, hops, index
from dispatch.store.client import RedisCommand
from dispatch.store.idempotency import IdempotencyKeys, KeyHeld
from dispatch.store.index import Page
from dispatch.store.packed import TASK
from dispatch.store.scripts import RedisHandle, Rider
from dispatch.store.transitions import Transitions, hop
from dispatch.store.usage import Holding, Usage

#: What a record's script answers where the Idempotency-Key beside it is another task's.
_KEY_TAKEN = "KEY_TAKEN"

#: Seconds between two times that one process drops old entries from an index.
TRIM_EVERY = 5.0

#: The error in a record that was written when Redis had no room for what belongs to it.
NO_ROOM = ErrorInfo("store-unavailable", "Redis's memory was full; the task was not run", retryable=True)


@dataclasses.dataclass(frozen=True, slots=True)
class StoreHealth:
    """How Redis is configured."""

    noeviction: bool  #: False: Redis may drop records under memory pressure, which breaks P1 and P3
    full: bool = False  #: Redis refuses what needs memory: no task can be accepted


class _Recording(NamedTuple):
    """The commands that record a task."""

    before: Sequence[RedisCommand]
    record: RedisCommand  #: the record's script
    after: Sequence[RedisCommand]  #: first what counts the task, where the script does not


class TaskStore:
    """The records. Thread-safe.

    Args:
        redis: the process's handle.
        settings: times to live.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings) -> None:
        self._redis = redis
        #: The record's script can have other keys than the task's: `accept` can reserve an Idempotency-Key. Not in a Redis Cluster.
        self.reserves = not redis.clustered
        self._transitions = Transitions(redis)
        self._idempotency = IdempotencyKeys(redis, settings)
        self.usage = Usage(redis)
        self._grace = settings.unpublished_grace
        self._queue_ttl = settings.queue_ttl
        self._result_ttl = int(settings.result_ttl * 1_000)
        self._index_ttl = int(settings.idempotency_ttl * 1_000)
        self._trimmed: dict[str, float] = {}  # when, by index

    # --- accepting -------------------------------------------------------------------------------
    def accept(
        self,
        message: Message,
        *,
        max_attempts: int,
        idempotency_key: str | None,
        rider: Rider | None = None,
        fingerprint: str | None = None,
    ) -> State:
        """Record a task before it is published.

        Args:
            message: what will be published, so that it can be sent again.
            max_attempts: of its type.
            idempotency_key: the sweeper frees it if it has to reject the task.
            rider: goes along.
            fingerprint: of the request, whose Idempotency-Key is reserved in the same round trip; not in a Redis Cluster.

        Returns:
            SCHEDULED, or the state of the record that is there already (a repeated Idempotency-Key).

        Raises:
            KeyHeld: the key has a task, or had; nothing is recorded.
            KeyReused: as `IdempotencyKeys.reserve`; nothing is recorded.
            KeyInProgress: the same.
            StoreFull: nothing is recorded, or what was is rejected.
            StoreUnavailable: unknown; then don't publish.
        """
        reserving = []
        if fingerprint is not None and idempotency_key is not None:
            reserving = [self._reservation(message, idempotency_key, fingerprint)]
        commands = self._recording(message, max_attempts, idempotency_key or "", with_key=bool(reserving))
        before = [*reserving, *commands.before]
        try:
            answers = self._redis.run_along(rider, *before, commands.record, *commands.after)
        except StoreFull:
            # Each command was refused or not by itself: a record without its reminder would never be swept.
            with contextlib.suppress(StoreError):
                alone = idempotency_key is None  # another request with the key may have published it
                self.refuse(message, error=NO_ROOM, idempotency_key=idempotency_key, stored_nowhere=alone)
            raise
        answer, *sums = answers[len(before)]
        if answer == _KEY_TAKEN:
            self._withdraw(message)
            raise KeyHeld(self._idempotency.reserved(answers[0]))
        state = State(answer)
        self.usage.note(message.text(PRINCIPAL) or "", sums if self.reserves else answers[len(before) + 1])
        if state.terminal and (ended := self.get(message.task_id)) is not None:
            self.usage.settle(ended)  # a repeated Idempotency-Key has counted it again
        return state

    def _reservation(self, message: Message, key: str, fingerprint: str) -> RedisCommand:
        principal = message.text(PRINCIPAL) or ""
        return self._idempotency.reservation(principal, key, fingerprint, message.task_id, delay=_delay(message))

    def _recording(self, message: Message, max_attempts: int, key: str, *, with_key: bool) -> _Recording:
        keys, task_id = self._redis.keys, message.task_id
        principal = message.text(PRINCIPAL) or ""
        accepted_at = message.moment(ACCEPTED_AT) or int(time.time() * 1_000)
        due_at = message.due_at or accepted_at  # an entry is dropped some time after it
        fields = accepted(message, max_attempts, at=accepted_at, key=key)
        text, words = packed(message, fields), [word for field in fields.items() for word in field]
        reminder, lists = accepted_at / 1_000 + self._grace, (keys.index(principal), keys.index(None), keys.waiting)
        script_keys = [*keys.task(task_id)]
        if self.reserves:
            script_keys += [keys.due, *lists, keys.usage(principal)]
        if with_key:
            script_keys.append(keys.idempotency(principal, key))
        hop, found = hops.accepted_hop(message), finding.indexes_of(keys, message, due_at)
        record = self._redis.script("accept", script_keys, hop, text, reminder, due_at, *words)
        after = [
            *self._trims(lists[:2], accepted_at - self._index_ttl),
            *finding.listing(self._redis, found, task_id, accepted_at=accepted_at, due_at=due_at, ttl=self._index_ttl),
        ]
        if self.reserves:
            return _Recording((), record, after)
        # The sweeper's reminder comes first: a record without one would be forgotten if the gateway died here.
        counted = self.usage.entry(principal, task_id, Holding.OPEN, len(text))
        entries = [("ZADD", each, due_at, task_id) for each in lists]
        return _Recording([("ZADD", keys.due, reminder, task_id)], record, [counted, *entries, *after])

    def _withdraw(self, message: Message) -> None:
        """Take a task whose record was not made out of the lists beside its script: labels, its client's request id, children."""
        due_at = message.due_at or message.moment(ACCEPTED_AT) or 0
        if found := finding.indexes_of(self._redis.keys, message, due_at):
            self._redis.run(*(("ZREM", each, message.task_id) for each in found))

    def _trims(self, indexes: Sequence[str], expired: int) -> list[RedisCommand]:
        """Commands that drop old entries, now and then: records expire by themselves, but entries in an index don't."""
        now = time.monotonic()
        due = [one for one in indexes if now - self._trimmed.get(one, -TRIM_EVERY) >= TRIM_EVERY]
        self._trimmed.update(dict.fromkeys(due, now))
        return [("ZREMRANGEBYSCORE", one, "-inf", expired) for one in due]

    def mark_published(
        self,
        message: Message,
        *,
        queue: str,
        max_attempts: int,
        idempotency_key: str | None,
        fingerprint: str = "",
        state: State = State.QUEUED,
        sent_before: bool = False,
        **details: Any,
    ) -> bool:
        """Record that the broker has the message, and confirm its Idempotency-Key.

        Args:
            message: what was confirmed.
            queue: where it waits.
            max_attempts: for a record that Redis lost meanwhile.
            idempotency_key: of the request.
            fingerprint: of the request, for a key that Redis lost meanwhile.
            state: DELAYED where that is a delay level.
            sent_before: an earlier request has published it, and the task has gone on since: its hops have the way that it took.
            details: for the hop: exchange, routingKey, confirmMs.

        Returns:
            False when the record was rejected meanwhile: the copy never runs.

        Raises:
            StoreUnavailable: unknown, so the client must get "unconfirmed".
        """
        note = "" if sent_before else hops.published_hop(message, **details)
        words = (queue, state.value, note, self._queue_ttl + _delay(message))
        mark = functools.partial(self._mark, message, words, max_attempts, idempotency_key)
        if not mark():
            return False
        if self._redis.unsynced.wanted:
            again = functools.partial(self._marked_again, mark, message, idempotency_key, fingerprint)
            self._redis.unsynced.note(again, TASK + len(message.body))
        return True

    def _mark(self, message: Message, words: Sequence[str | float], max_attempts: int, key: str | None) -> bool:
        confirm = []
        if key:
            confirm = [self._idempotency.confirmation(message.text(PRINCIPAL) or "", key, message.task_id)]
        answer = self._transitions.run(
            "mark_published",
            message,
            *words,
            max_attempts=max_attempts,
            after=confirm,
            more_keys=[self._redis.keys.due] if self.reserves else (),
        )
        return bool(answer == "OK")

    def _marked_again(self, mark: Callable[[], bool], message: Message, key: str | None, fingerprint: str) -> None:
        """Redis may have lost the Idempotency-Key as well."""
        if key:
            self._redis.run(self._reservation(message, key, fingerprint))
        mark()

    def reject(
        self, message: Message, *, error: ErrorInfo, idempotency_key: str | None, silent_for: float = 0.0
    ) -> bool:
        """Record that a task never runs, and free its Idempotency-Key. Its client has had no answer of a refusal.

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
        return self._reject(message, error, idempotency_key, silent_for=silent_for, ttl=self._kept(message))

    def refuse(self, message: Message, *, error: ErrorInfo, idempotency_key: str | None, stored_nowhere: bool) -> bool:
        """The same for a task whose client gets that answer: no list has it.

        The record stays behind: by it a late copy, and another request that goes on with the same Idempotency-Key, find
        that the task never runs. A crash before it leaves the lists shows it to a client that has had no answer.

        Args:
            message: what the broker did not take.
            error: why.
            idempotency_key: of the request.
            stored_nowhere: it is certain that no copy can come late: the record may expire after `unpublished_grace`.

        Returns:
            False when a worker has claimed it: it runs.

        Raises:
            StoreUnavailable: unknown.
        """
        keys, task_id = self._redis.keys, message.task_id
        ttl = int(self._grace * 1_000) if stored_nowhere else self._kept(message)
        indexes = [keys.index(message.text(PRINCIPAL) or ""), keys.index(None)]
        indexes += finding.indexes_of(keys, message, message.due_at)
        unlisted = [("ZREM", index, task_id) for index in indexes]
        return self._reject(message, error, idempotency_key, ttl=ttl, then=unlisted)

    def _kept(self, message: Message) -> int:
        """Milliseconds for which the record of a rejected task is kept: a copy may come out of the delay levels, and finds it."""
        return self._result_ttl + max(0, message.moment(WAKES_AT) - int(time.time() * 1_000))

    def _reject(
        self,
        message: Message,
        error: ErrorInfo,
        idempotency_key: str | None,
        *,
        ttl: int,
        silent_for: float = 0.0,
        then: Sequence[RedisCommand] = (),
    ) -> bool:
        keys, task_id, principal = self._redis.keys, message.task_id, message.text(PRINCIPAL) or ""
        note = hop("rejected", message, errorType=error.type, message=error.message)
        arguments = (error.type, error.message, ttl, note, int(silent_for * 1_000))
        command = self._redis.script("reject", keys.task(task_id), *arguments)
        rejected = bool(self._redis.run(command, ("ZREM", keys.waiting, task_id))[0] == "OK")
        if rejected:
            self._redis.run(self.usage.entry(principal, task_id, Holding.NOTHING), *then)
        if rejected and idempotency_key:
            self._idempotency.release(principal, idempotency_key, task_id)
        return rejected

    # --- reading ---------------------------------------------------------------------------------
    def get(self, task_id: str, rider: Rider | None = None) -> Record | None:
        """One record without its messages; None when there is none.

        Args:
            task_id: the task.
            rider: goes along.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return index.record(self._redis, task_id, rider)

    def get_many(self, task_ids: Sequence[str]) -> list[Record | None]:
        """Records without their messages, in the order asked, in one round trip."""
        return index.records(self._redis, task_ids)

    def whole(self, task_id: str) -> Record | None:
        """One record with its message and its decided copy, as far as there are any; None when there is no record.

        The message is read first: a task that ends in between has no message, and the record shows it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        keys = self._redis.keys.task(task_id)
        message, fields = self._redis.run(("GET", keys.message), ("HGETALL", keys.record))
        return parse(task_id, fields, message, sealing=self._redis.sealing)

    def wholes(self, task_ids: Sequence[str]) -> list[Record | None]:
        """Whole records in the order asked, in one round trip: for few tasks, since each message may be large.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        keys = [self._redis.keys.task(task_id) for task_id in task_ids]
        commands = [command for each in keys for command in (("GET", each.message), ("HGETALL", each.record))]
        answers = self._redis.gather(*commands) if commands else []
        found = zip(task_ids, answers[::2], answers[1::2], strict=True)
        return [parse(task_id, fields, message, sealing=self._redis.sealing) for task_id, message, fields in found]

    def briefs(self, task_ids: Sequence[str]) -> Sequence[Brief | None]:
        """What lists choose by, in the order asked, in one round trip: for many tasks."""
        return index.briefs(self._redis, task_ids)

    def hops(self, task_id: str) -> list[dict[str, Any]]:
        """What happened to a task, oldest first (docs/reference/http-api.md, "Following a task")."""
        keys = self._redis.keys.task(task_id)
        wanted = ("type", "traceparent", *hops.FIRST_HOPS)
        fields, lines = self._redis.run(("HMGET", keys.record, *wanted), ("LRANGE", keys.hops, 0, -1))
        task_type, traceparent, *first = fields
        lines = [*hops.first_hops(first), *lines]
        return [_shown(hops.read(line, task_type, traceparent), self._redis.sealing) for line in lines]

    def list(self, *, limit: int = 50, cursor: str | None = None, **wanted: Any) -> Page:
        """Tasks, newest first; one that was submitted for later by the time that it was submitted for.

        Args:
            limit: tasks on a page.
            cursor: of the page before.
            wanted: which tasks: the fields of a `TaskFilter`.

        Returns:
            A page; returned and raised as by `dispatch.store.index.read_page`.
        """
        return finding.page(self._redis, TaskFilter(**wanted), limit=limit, cursor=cursor)

    def note(self, task_id: str, note: str) -> None:
        """Add a hop to a task from outside its way, also after its end; without a record, to none.

        Args:
            task_id: the task.
            note: see `dispatch.store.transitions.hop`.

        Raises:
            StoreUnavailable: unknown; note it again, and it may be there twice.
        """
        self._redis.run(self._redis.script("note", self._redis.keys.task(task_id), note))

    def wait(
        self, task_id: str, revision: int, seconds: float, over: Callable[[], bool] = lambda: False
    ) -> Record | None:
        """Wait until a record changes.

        Args:
            task_id: the task.
            revision: that the caller has.
            seconds: to wait at most.
            over: called about once a second, on another thread; True ends the wait.

        Returns:
            The record, changed or not; None when there is none.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        deadline = time.monotonic() + seconds
        with self._redis.listening(self._redis.keys.task(task_id).record, over) as changed:
            record = self.get(task_id)  # after subscribing, so that no change is missed
            while record is not None and record.revision == revision and not record.state.terminal:
                left = deadline - time.monotonic()
                if left <= 0 or over():
                    break
                if changed(left):
                    record = self.get(task_id)
        return record

    def ping(self) -> StoreHealth:
        """Whether Redis answers, takes a write, and keeps what it is given.

        Raises:
            StoreUnavailable: it does not answer.
        """
        nodes = self._redis.memory()
        return StoreHealth(noeviction=all(map(_keeps_all, nodes)), full=any(map(_full, nodes)) or not self._writable())

    def _writable(self) -> bool:
        """Whether a write is accepted that may need memory; in a cluster, by one node."""
        try:
            self._redis.run(("SET", self._redis.keys.probe, 1, "EX", 60))
        except StoreFull:
            return False
        return True


def _delay(message: Message) -> float:
    """Seconds from a task's acceptance to the time before which it does not run."""
    return max(0, (message.due_at or 0) - (message.moment(ACCEPTED_AT) or 0)) / 1_000


def _keeps_all(memory: Mapping[str, Any]) -> bool:
    return memory.get("maxmemory_policy") == "noeviction" or not int(memory.get("maxmemory", 0))


def _full(memory: Mapping[str, Any]) -> bool:
    limit = int(memory.get("maxmemory", 0))
    return limit > 0 and int(memory.get("used_memory", 0)) >= limit


def _shown(entry: Mapping[str, Any], sealing: Sealing) -> dict[str, Any]:
    """A hop with its times as the API has them; a wait ends ``until`` at the earliest: it begins with the confirm."""
    entry = opened_progress(entry, sealing)
    waits = {"until": timestamp(entry["at"] + round(entry["seconds"] * 1_000))} if "seconds" in entry else {}
    return {**entry, "at": timestamp(entry["at"]), **waits}
