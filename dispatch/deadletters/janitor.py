"""The janitor keeps DLQ and records in step: it removes stale dead letters, records lost ones, runs bulk redrives."""

from __future__ import annotations

import functools
import secrets
import socket
from collections.abc import Callable

from dispatch.background import Background
from dispatch.config.tls import Where
from dispatch.deadletters.bulk import BulkRedrive, BulkRedrives, redrive_matching
from dispatch.deadletters.service import DeadLetterService, RedriveOutcome
from dispatch.deadletters.walk import CHANNEL_SIZE, walk
from dispatch.deadletters.walk_lock import WalkInProgress, WalkLock
from dispatch.errors import StoreUnavailable
from dispatch.protocol.audit import BULK_REDRIVE, END, INTERRUPTED, OK, AuditEntry, target_of
from dispatch.protocol.dead_letters import is_stale, normalized, reason_of
from dispatch.protocol.message import TOO_LARGE, Message
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.store.dead_letters import ALL_RECORDED, DeadLetterAnswer, DeadLetterRecords
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logger

log = logger(__name__)

#: Walks that must have missed a dead letter before it counts as gone: a client that reads the queue without acking, as
#: the management UI and `basic.get` do, hides what it holds from every other consumer.
MISSES = 3


class Janitor(Background):
    """Runs in every worker; one at a time walks through the DLQ.

    Args:
        redis: the process's handle.
        broker: the ``replay`` role's.
        service: redrives one dead letter.
        tasks: reads records.
        records: of dead letters.
        ladders: of the task types, for records that have to be rebuilt.
        audit: takes the audit entry of a bulk redrive; see `dispatch.store.audit.AuditLog.add`.
        interval: seconds between two checks.
        keys: that a dead letter must be signed with, to have a record and to be sent again.
    """

    def __init__(
        self,
        redis: RedisHandle,
        broker: Where,
        service: DeadLetterService,
        *,
        tasks: TaskStore,
        records: DeadLetterRecords,
        ladders: Ladders,
        audit: Callable[[AuditEntry], object],
        interval: float,
        keys: MessageKeys = NO_KEYS,
    ) -> None:
        super().__init__("janitor", interval=interval)
        self._redis = redis
        self._broker = broker
        self._service = service
        self._tasks = tasks
        self._records = records
        self._ladders = ladders
        self._audit = audit
        self._keys = keys
        self._bulk = BulkRedrives(redis)
        self._missed: dict[str, int] = {}

    def step(self) -> None:
        """Do what there is to do.

        Raises:
            DispatchError: Redis or the broker is away; the next step may go better.
        """
        all_recorded = self._records.recorded_marker() == ALL_RECORDED
        if all_recorded and not self._records.flagged() and self._bulk.next() is None:
            return
        try:
            with WalkLock(self._redis).held() as lock:
                # Read again: the janitor that held the lock before may have done it.
                if self._records.recorded_marker() != ALL_RECORDED:
                    record_missing(self._broker, lock, self._tasks, self._records, self._ladders, keys=self._keys)
                clear_stale(self._broker, lock, self._tasks, self._records, self._missed, keys=self._keys)
                if (bulk := self._bulk.next()) is not None:
                    self._redrive(bulk, lock)
        except WalkInProgress:
            log.debug("another walk through the dead letters is under way")

    def _redrive(self, bulk: BulkRedrive, lock: WalkLock) -> None:
        outcomes: list[RedriveOutcome] = []
        try:
            redrive_matching(
                self._broker,
                self._service,
                lock,
                bulk,
                keys=self._keys,
                wanted=functools.partial(self._bulk.wanted, bulk),
                on_outcome=lambda _, outcome: outcomes.append(outcome),
            )
        except Exception as exc:
            sent = outcomes.count(RedriveOutcome.SENT)
            log.warning("bulk redrive interrupted", reason=repr(exc), sent=sent, by=bulk.by)
            if sent:
                self._report(bulk, outcomes, INTERRUPTED, type(exc).__name__)
                self._bulk.shorten(bulk, sent)
            else:
                self._bulk.postpone()
            raise
        failed = outcomes.count(RedriveOutcome.FAILED) + outcomes.count(RedriveOutcome.UNAUTHENTIC)
        self._report(bulk, outcomes, END, OK)
        ended = "bulk redrive done" if self._bulk.finish(bulk) else "bulk redrive was stopped"
        log.info(ended, sent=outcomes.count(RedriveOutcome.SENT), passed_over=failed, by=bulk.by, job_id=bulk.id)

    def _report(self, bulk: BulkRedrive, outcomes: list[RedriveOutcome], phase: str, result: str) -> None:
        """To the audit log: what came of the request whose begin the gateway has recorded."""
        counts = {outcome.value: outcomes.count(outcome) for outcome in RedriveOutcome if outcome in outcomes}
        details = {RedriveOutcome.SENT.value: 0, **counts}
        target, host = target_of(bulk.filter), socket.gethostname()
        self._audit(AuditEntry(bulk.by, BULK_REDRIVE, target, result, phase, client=host, details=details))


def clear_stale(
    broker: Where,
    lock: WalkLock,
    tasks: TaskStore,
    records: DeadLetterRecords,
    missed: dict[str, int] | None = None,
    *,
    keys: MessageKeys = NO_KEYS,
) -> int:
    """Remove the dead letters of tasks that were redriven or discarded, and second copies of the same death.

    Args:
        broker: the ``replay`` role's.
        lock: held.
        tasks: the records.
        records: which tasks are flagged.
        missed: how many walks before this one did not find a task's dead letter; updated. Without it, one is enough.
        keys: a dead letter that is not signed with them is no task's.

    Returns:
        How many messages were removed.
    """
    flagged = records.flagged()
    if not flagged:
        return 0
    not_found = set(flagged)
    seen: set[tuple[str, int, int, int]] = set()
    undecided: set[str] = set()

    def visit(dead_letter: Message) -> bool:
        task_id = dead_letter.dead_letter_id
        if task_id not in flagged or keys.fault(dead_letter):
            return False
        not_found.discard(task_id)
        record = tasks.get(task_id)
        if record is not None and record.before_redrive is not None:
            undecided.add(task_id)  # also when its confirm comes before the end of this walk
        if is_stale(dead_letter, record):
            log.info("stale dead letter removed", task_id=task_id, cycle=dead_letter.cycle)
            return True
        content = hash((dead_letter.body, dead_letter.text(TOO_LARGE)))
        identity = (task_id, dead_letter.cycle, dead_letter.seq, content)
        again = identity in seen
        seen.add(identity)
        return again

    removed = walk(broker, lock, visit)
    undecided |= _being_redriven(tasks, list(flagged))
    undecided |= _still_missed(not_found, missed) if missed is not None else set()
    records.unflag({task_id: count for task_id, count in flagged.items() if task_id not in undecided})
    return removed


def _being_redriven(tasks: TaskStore, task_ids: list[str]) -> set[str]:
    """The tasks whose redrive is recorded and not confirmed yet; read in batches, there may be very many."""
    batches = (task_ids[start : start + CHANNEL_SIZE] for start in range(0, len(task_ids), CHANNEL_SIZE))
    found = (pair for batch in batches for pair in zip(batch, tasks.briefs(batch), strict=True))
    return {task_id for task_id, brief in found if brief is not None and brief.before_redrive is not None}


def _still_missed(not_found: set[str], missed: dict[str, int]) -> set[str]:
    """Count a walk's misses; the tasks whose dead letters the next walk must look for again."""
    counted = {task_id: missed.get(task_id, 0) + 1 for task_id in not_found}
    missed.clear()
    missed.update((task_id, misses) for task_id, misses in counted.items() if misses < MISSES)
    return set(missed)


def record_missing(
    broker: Where,
    lock: WalkLock,
    tasks: TaskStore,
    records: DeadLetterRecords,
    ladders: Ladders,
    *,
    keys: MessageKeys = NO_KEYS,
) -> int:
    """Record the dead letters that have no record: Redis lost its data, and the recorder's copies are long gone.

    Args:
        broker: the ``replay`` role's.
        lock: held.
        tasks: the records.
        records: of dead letters.
        ladders: of the task types, for the new records.
        keys: a dead letter that is not signed with them gets no record.

    Returns:
        How many were recorded.
    """
    marker, recorded = secrets.token_hex(8), 0
    records.set_recorded_marker(marker)

    def visit(dead_letter: Message) -> bool:
        nonlocal recorded
        if keys.fault(dead_letter):
            return False
        dead_letter = normalized(dead_letter)
        try:
            if tasks.get(dead_letter.task_id) is None:
                attempts = ladders.of(dead_letter.type).attempts
                answer = records.record(dead_letter, reason=reason_of(dead_letter), max_attempts=attempts)
                recorded += answer is DeadLetterAnswer.OK
        except StoreUnavailable:
            raise
        except Exception:  # one dead letter must not keep the janitor from all that come after it
            log.exception("dead letter can't be recorded; it stays in the DLQ", task_id=dead_letter.task_id)
        return False

    walk(broker, lock, visit)
    if records.recorded_marker() == marker:  # otherwise Redis lost its data again meanwhile
        records.set_recorded_marker(ALL_RECORDED)
    if recorded:
        log.warning("dead letters without a record recorded again", count=recorded)
    return recorded
