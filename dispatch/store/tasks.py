"""The Redis record: accept a task, find it again.

The transitions of a run are in `dispatch.store.tasks.claims`, those of a hand-over in `dispatch.store.tasks.handovers`.

Crash windows of accepting, in order (the sweeper's part is in `dispatch.maintenance.sweeper`):

- after the key: its repeat adopts the same task id once `idempotency_retry` has passed;
- after the record: unpublished, so the sweeper rejects it; a repeat of the key publishes it;
- after the publish, before `TaskStore.mark_published`: a worker's claim proves that it was published; unclaimed, the
  sweeper rejects it and the late copy finds CANCELLED; the client has had no 202.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispatch.config.settings import Settings
from dispatch.errors import StoreError
from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import Message
from dispatch.protocol.record import ErrorInfo, Record, State
from dispatch.store.claims import hop, recreate, seed
from dispatch.store.keys import dead_key, due_key, idempotency_key, index_key, task_keys, waiting_key
from dispatch.store.scripts import Scripts, pairs, words

SCRIPTS = ("accept", "mark_published", "reject", "reserve_key", "settle_key", "release_key", "unlist_key")

#: Records read for one page of a filtered list at most: a rare filter ends the page early and hands on a cursor.
SCAN_LIMIT = 2_000
_BATCH = 200

#: Seconds between two looks whether anybody still waits for a change.
GLANCE = 1.0


class KeyInProgress(StoreError):
    """The first request with this Idempotency-Key is still in flight: try again later."""

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class KeyReused(StoreError):
    """The Idempotency-Key was used with another request: choose a new one."""


class KeyState(enum.StrEnum):
    """What reserving an Idempotency-Key found."""

    NEW = "NEW"  #: nobody has used it
    ADOPT = "ADOPT"  #: its first request was cut off: go on with its task id
    REPLAY = "REPLAY"  #: its task was accepted


@dataclasses.dataclass(frozen=True, slots=True)
class Reservation:
    """A reserved Idempotency-Key."""

    hold: KeyState
    task_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Part of a list."""

    items: list[Record]
    next: str | None  #: opaque; None at the end


@dataclasses.dataclass(frozen=True, slots=True)
class StoreHealth:
    """What Redis says about itself."""

    noeviction: bool  #: False: Redis may drop records under memory pressure, which breaks P1 and P3


class TaskStore:
    """The records. Thread-safe.

    Args:
        settings: where Redis is, and the times to live.
        timeout: seconds for each answer.
    """

    def __init__(self, settings: Settings, *, timeout: float | None = None) -> None:
        self._settings = settings
        self._prefix = settings.redis_prefix
        self._scripts = Scripts(settings, timeout=timeout or settings.store_timeout, names=SCRIPTS)

    # --- idempotency keys ------------------------------------------------------------------------
    def reserve_key(self, principal: str, key: str, fingerprint: str, task_id: str) -> Reservation:
        """Take an Idempotency-Key before anything else.

        Args:
            principal: whose key it is.
            key: as the client sent it.
            fingerprint: of the request; the same key with another one is refused.
            task_id: for a new task.

        Returns:
            What was found, and the task id to go on with.

        Raises:
            KeyReused: another request used it.
            KeyInProgress: the first one is still in flight.
            StoreUnavailable: unknown.
        """
        adopt = int(self._settings.idempotency_retry * 1_000)
        step = self._scripts.step(
            "reserve_key", [self._idem(principal, key)], task_id, fingerprint, self._idem_ttl, adopt
        )
        found, holder, wait = self._scripts.run(step)[0]
        if found == "REUSED":
            raise KeyReused
        if found == "BUSY":
            raise KeyInProgress(wait / 1_000)
        return Reservation(KeyState(found), holder)

    def release_key(self, principal: str, key: str, task_id: str) -> None:
        """Free a key whose task was refused; only if that task still holds it."""
        self._scripts.run(self._scripts.step("release_key", [self._idem(principal, key)], task_id))

    # --- accepting -------------------------------------------------------------------------------
    def accept(self, message: Message, *, max_attempts: int, key: str | None) -> State:
        """Record a task before it is published.

        Args:
            message: what will be published, so that it can be sent again.
            max_attempts: of its type.
            key: its Idempotency-Key, which the sweeper frees if it has to reject.

        Returns:
            SCHEDULED, or the state of the record that is there already (a repeated key).

        Raises:
            StoreUnavailable: unknown; then don't publish.
        """
        principal = message.text("x-principal") or ""
        fields = json.loads(seed(message, max_attempts))
        fields["key"] = key or ""
        born = message.number("x-accepted-at") or int(time.time() * 1_000)
        look = born / 1_000 + self._settings.unpublished_grace
        # Records expire by themselves, entries in an index don't: without this the indexes would grow for ever.
        gone = born - self._idem_ttl
        answers = self._scripts.run(
            # The sweeper's reminder comes first: a record without one would be forgotten if the gateway died here.
            ("ZADD", due_key(self._prefix), look, message.task_id),
            self._scripts.step("accept", self._keys(message.task_id), json.dumps(fields), hop("accepted", message)),
            ("ZADD", self._index(principal), born, message.task_id),
            ("ZADD", self._index(None), born, message.task_id),
            ("ZADD", waiting_key(self._prefix), born, message.task_id),
            ("ZREMRANGEBYSCORE", self._index(principal), "-inf", gone),
            ("ZREMRANGEBYSCORE", self._index(None), "-inf", gone),
        )
        return State(answers[1])

    def mark_published(self, message: Message, *, queue: str, max_attempts: int, key: str | None, **about: Any) -> bool:
        """Record that the broker has the message, and settle its key.

        Args:
            message: what was confirmed.
            queue: where it waits.
            max_attempts: for a record that Redis lost meanwhile.
            key: its Idempotency-Key.
            about: for the hop: exchange, routingKey, confirmMs.

        Returns:
            False when the record was rejected meanwhile: the copy never runs.

        Raises:
            StoreUnavailable: unknown, so the client must hear "unconfirmed".
        """
        keys, note = self._keys(message.task_id), hop("published", message, **about)
        steps = [self._scripts.step("mark_published", keys, queue, note, "")]
        if key:
            principal = message.text("x-principal") or ""
            steps.append(self._scripts.step("settle_key", [self._idem(principal, key)], message.task_id))
        answer = self._scripts.run(*steps)[0]
        if answer == "MISSING":
            again = self._scripts.step("mark_published", keys, queue, note, seed(message, max_attempts))
            answer = recreate(self._scripts, self._prefix, message, again)
        return bool(answer == "OK")

    def reject(self, message: Message, *, error: ErrorInfo, key: str | None, silent_for: float = 0.0) -> bool:
        """Record that a task never runs, and free its key.

        Args:
            message: what the broker did not take.
            error: why.
            key: its Idempotency-Key.
            silent_for: seconds without a change that the record must have; the sweeper's grace.

        Returns:
            False when a worker has claimed it or the grace isn't over: it runs, or may still be published.

        Raises:
            StoreUnavailable: unknown.
        """
        ttl = int(self._settings.result_ttl * 1_000)
        note = hop("rejected", message, errorType=error.type)
        step = self._scripts.step(
            "reject", self._keys(message.task_id), error.type, error.message, ttl, note, int(silent_for * 1_000)
        )
        rejected = bool(self._scripts.run(step, ("ZREM", waiting_key(self._prefix), message.task_id))[0] == "OK")
        if rejected and key:
            self.release_key(message.text("x-principal") or "", key, message.task_id)
        return rejected

    # --- reading ---------------------------------------------------------------------------------
    def get(self, task_id: str) -> Record | None:
        """One record; None when there is none.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return parse(task_id, self._scripts.run(("HGETALL", self._keys(task_id)[0]))[0])

    def get_many(self, task_ids: Sequence[str]) -> list[Record | None]:
        """Records in the order asked, in one round trip."""
        if not task_ids:
            return []
        answers = self._scripts.gather(*(("HGETALL", self._keys(task_id)[0]) for task_id in task_ids))
        return [parse(task_id, fields) for task_id, fields in zip(task_ids, answers, strict=True)]

    def hops(self, task_id: str) -> list[dict[str, Any]]:
        """What happened to a task, oldest first (API.md, "Events")."""
        lines = self._scripts.run(("LRANGE", self._keys(task_id)[2], 0, -1))[0]
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
            A page; with a rare filter it may hold fewer than `limit` and still have a next one.

        Raises:
            ValueError: the cursor is not one of ours.
            StoreUnavailable: Redis did not answer.
        """

        def wanted(record: Record) -> bool:
            return (
                (status is None or record.status == status)
                and (state is None or record.state == state)
                and (type is None or record.type == type)
            )

        return self._page(self._index(principal), wanted, limit, cursor)

    def dead_letters(
        self,
        *,
        type: str | None = None,
        error_type: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Tasks whose letters lie in the DLQ, newest first; arguments and errors as `list`."""

        def wanted(record: Record) -> bool:
            return (
                record.buried
                and (type is None or record.type == type)
                and (error_type is None or (record.error is not None and record.error.type == error_type))
            )

        return self._page(dead_key(self._prefix), wanted, limit, cursor)

    def wait(
        self, task_id: str, revision: int, seconds: float, over: Callable[[], bool] = lambda: False
    ) -> Record | None:
        """Wait until a record changes.

        Args:
            task_id: the task.
            revision: that the caller has.
            seconds: to wait at most.
            over: asked every second; true when nobody waits any more.

        Returns:
            The record, changed or not; None when there is none.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        deadline = time.monotonic() + seconds
        with self._scripts.listening(self._keys(task_id)[0]) as changed:
            record = self.get(task_id)  # after subscribing, so that no change is missed
            while record is not None and record.revision == revision and not record.state.terminal:
                left = deadline - time.monotonic()
                if left <= 0 or over():
                    break
                if changed(min(left, GLANCE)):
                    record = self.get(task_id)
        return record

    def ping(self) -> StoreHealth:
        """Whether Redis answers, and whether it keeps what it is given.

        Raises:
            StoreUnavailable: it does not.
        """
        servers = self._scripts.memory()
        return StoreHealth(noeviction=all(map(_keeps_all, servers)))

    def close(self) -> None:
        """Close the connections."""
        self._scripts.close()

    # --- inside ----------------------------------------------------------------------------------
    def _keys(self, task_id: str) -> tuple[str, str, str]:
        return task_keys(self._prefix, task_id)

    def _idem(self, principal: str, key: str) -> str:
        return idempotency_key(self._prefix, principal, key)

    def _index(self, principal: str | None) -> str:
        return index_key(self._prefix, principal)

    @property
    def _idem_ttl(self) -> int:
        return int(self._settings.idempotency_ttl * 1_000)

    def _page(self, index: str, wanted: Any, limit: int, cursor: str | None) -> Page:
        """Walk an index from new to old; entries whose record is gone are dropped on the way."""
        top, skip = _read_cursor(cursor)
        items: list[Record] = []
        for _ in range(SCAN_LIMIT // _BATCH):
            raw = self._scripts.run(
                ("ZREVRANGEBYSCORE", index, top, "-inf", "WITHSCORES", "LIMIT", 0, _BATCH + len(skip))
            )[0]
            fresh = [entry for entry in pairs(raw) if entry[0] not in skip]
            records = self.get_many([member for member, _ in fresh])
            gone = [entry for entry, record in zip(fresh, records, strict=True) if record is None]
            if gone:
                # A record may come back between the two: see `dispatch.store.tasks.claims.relisted`.
                self._scripts.run(self._scripts.step("unlist_key", [index], *words(gone)))
            for (member, score), record in zip(fresh, records, strict=True):
                skip = {*skip, member} if top == repr(score) else {member}
                top = repr(score)
                if record is not None and wanted(record):
                    items.append(record)
                    if len(items) == limit:
                        return Page(items, _write_cursor(top, skip))
            if len(fresh) < _BATCH:
                return Page(items, None)
        return Page(items, _write_cursor(top, skip))


def _keeps_all(memory: Mapping[str, Any]) -> bool:
    return memory.get("maxmemory_policy") == "noeviction" or not int(memory.get("maxmemory", 0))


def _write_cursor(top: str, skip: set[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([top, sorted(skip)]).encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> tuple[str, set[str]]:
    """Where to go on: a score, and the members with that score that were shown already."""
    if cursor is None:
        return "+inf", set()
    try:
        top, skip = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        score = float(top)
        if math.isnan(score):
            raise ValueError("not a score")  # noqa: TRY301 - the same answer as to any other nonsense
        return repr(score), {str(member) for member in skip}
    except (ValueError, TypeError, RecursionError, binascii.Error) as exc:
        msg = "the cursor is not one that this API gave out"
        raise ValueError(msg) from exc


def parse(task_id: str, fields: Mapping[str, str]) -> Record | None:
    """A record from its Redis hash; None from an empty one."""
    if not fields or "state" not in fields:
        return None

    def number(name: str) -> int | None:
        value = fields.get(name)
        return int(float(value)) if value else None

    error_type = fields.get("errorType")
    error = ErrorInfo(error_type, fields.get("error", ""), fields.get("errorRetryable") == "1") if error_type else None
    return Record(
        task_id=task_id,
        type=fields.get("type", ""),
        principal=fields.get("principal", ""),
        state=State(fields["state"]),
        cycle=number("cycle") or 0,
        seq=number("seq") or 0,
        attempt=(number("attempt") or 0) if "startedAt" in fields else 0,
        max_attempts=number("maxAttempts") or 0,
        revision=number("revision") or 0,
        created_at=number("createdAt") or 0,
        updated_at=number("updatedAt") or 0,
        published=fields.get("published") == "1",
        started_at=number("startedAt"),
        finished_at=number("finishedAt"),
        next_attempt_at=number("nextAttemptAt"),
        queue=fields.get("queue"),
        rung=fields.get("rung"),
        progress=json.loads(fields["progress"]) if fields.get("progress") else None,
        result=json.loads(fields["result"]) if fields.get("result") else None,
        error=error,
        dead_reason=fields.get("deadReason"),
        request_id=fields.get("requestId") or None,
        traceparent=fields.get("traceparent") or None,
        worker=fields.get("worker"),
        cancel_requested=fields.get("cancelRequested") == "1",
        lost_runs=number("lostRuns") or 0,
        discarded=fields.get("discarded") == "1",
        before_redrive=State(fields["before"]) if fields.get("before") else None,
        decision=fields.get("decision"),
        decided_seq=number("decidedSeq"),
        copy_attempt=number("copyAttempt"),
        key=fields.get("key") or None,
        message=Message.from_json(fields["message"]) if fields.get("message") else None,
    )


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A hop with its times as the API has them; a wait ends ``until`` at the earliest: it begins with the confirm."""
    waits = {"until": timestamp(entry["at"] + round(entry["seconds"] * 1_000))} if "seconds" in entry else {}
    return {**entry, "at": timestamp(entry["at"]), **waits}
