"""Redrive or discard everything that a filter matches, by a walk through the DLQ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from dispatch.config.tls import Where
from dispatch.deadletters.service import DeadLetterService, RedriveOutcome
from dispatch.deadletters.walk import StopWalk, walk
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.errors import DispatchError, InDoubt, Nacked, NotSent, StoreError, StoreUnavailable
from dispatch.protocol.dead_letters import DeadLetterFilter, normalized
from dispatch.protocol.message import Message
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logger

log = logger(__name__)

#: What ends a bulk redrive for now: these errors are the moment's, and the next dead letter would meet them, too.
_OF_THE_MOMENT = (NotSent, Nacked, InDoubt, StoreError, OSError)


@dataclasses.dataclass(frozen=True, slots=True)
class BulkRedrive:
    """A redrive of many dead letters that an operator asked for."""

    filter: DeadLetterFilter
    limit: int  #: dead letters at most
    rate: float  #: dead letters a second; 0 is no limit
    by: str  #: who asked for it

    def to_json(self) -> str:
        """For Redis."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BulkRedrive:
        """The inverse of `to_json`."""
        data = json.loads(text)
        return cls(DeadLetterFilter(**data["filter"]), data["limit"], data["rate"], data["by"])


class BulkRedrives:
    """The bulk redrives that wait for a worker's janitor. Each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def add(self, bulk: BulkRedrive) -> None:
        """Have the workers redrive many dead letters; survives the death of the process that asked."""
        self._redis.run(("RPUSH", self._redis.keys.bulk_redrives, bulk.to_json()))

    def next(self) -> BulkRedrive | None:
        """The oldest one, which stays in the list until `finish`: a worker may die in the middle of it."""
        text = self._redis.run(("LINDEX", self._redis.keys.bulk_redrives, 0))[0]
        return BulkRedrive.from_json(text) if text else None

    def finish(self, bulk: BulkRedrive) -> None:
        """It is done."""
        self._redis.run(("LREM", self._redis.keys.bulk_redrives, 1, bulk.to_json()))

    def shorten(self, bulk: BulkRedrive, sent: int) -> None:
        """It was interrupted: what is left of it waits. A crash in between leaves it there twice, never lost."""
        rest = dataclasses.replace(bulk, limit=bulk.limit - sent)
        key = self._redis.keys.bulk_redrives
        self._redis.run(("LPUSH", key, rest.to_json()), ("LREM", key, -1, bulk.to_json()))

    def postpone(self) -> None:
        """The oldest one got nowhere: it waits behind the others."""
        key = self._redis.keys.bulk_redrives
        self._redis.run(("LMOVE", key, key, "LEFT", "RIGHT"))


def redrive_matching(
    broker: Where,
    service: DeadLetterService,
    lock: WalkLock,
    bulk: BulkRedrive,
    *,
    on_outcome: Callable[[Message, RedriveOutcome], None] = lambda _dead_letter, _outcome: None,
) -> int:
    """Redrive what a filter matches; works also with Redis wiped.

    Args:
        broker: the ``replay`` role's.
        service: redrives one.
        lock: held.
        bulk: which dead letters, how many, how fast.
        on_outcome: called with each dead letter that matched.

    Returns:
        How many were sent on; one that can't be published stays, and is reported.
    """
    sent = 0

    def visit(dead_letter: Message) -> bool:
        nonlocal sent
        if sent >= bulk.limit:
            raise StopWalk
        if not bulk.filter.matches(dead_letter):
            return False
        dead_letter = normalized(dead_letter)  # as its record is
        outcome = _redrive(service, dead_letter, bulk.by)
        sent += outcome is RedriveOutcome.SENT
        on_outcome(dead_letter, outcome)
        return outcome in (RedriveOutcome.SENT, RedriveOutcome.STALE)

    walk(broker, lock, visit, rate=bulk.rate)
    return sent


def _redrive(service: DeadLetterService, dead_letter: Message, by: str) -> RedriveOutcome:
    """Redrive one; what only this one can't stands in no other's way."""
    try:
        return service.redrive_message(dead_letter, by=by)
    except _OF_THE_MOMENT:
        raise
    except Exception as exc:
        unforeseen = not isinstance(exc, DispatchError)
        log.warning(
            "dead letter passed over", task_id=dead_letter.task_id, reason=repr(exc), by=by, exc_info=unforeseen
        )
        return RedriveOutcome.FAILED


def discard_matching(
    broker: Where,
    service: DeadLetterService,
    lock: WalkLock,
    wanted: DeadLetterFilter,
    *,
    by: str,
    on_discard: Callable[[Message], None] = lambda _dead_letter: None,
) -> int:
    """Take what a filter matches out of the DLQ for good; the tasks stay FAIL.

    Returns:
        How many messages were taken out.

    Raises:
        StoreUnavailable: the rest stays; a message must not go while its record is that of a dead letter.
    """

    def visit(dead_letter: Message) -> bool:
        if not wanted.matches(dead_letter):
            return False
        try:
            service.discard(dead_letter.dead_letter_id, by=by)
        except StoreUnavailable:
            raise
        except DispatchError:  # without a record it is discarded all the same
            log.info("dead letter without a record discarded", task_id=dead_letter.dead_letter_id)
        on_discard(dead_letter)
        return True

    return walk(broker, lock, visit)
