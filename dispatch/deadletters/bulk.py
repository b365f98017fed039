"""Redrive or discard everything that a filter matches, by a walk through the DLQ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from dispatch.config.tls import Where
from dispatch.deadletters.service import DeadLetterService, RedriveOutcome
from dispatch.deadletters.walk import StopWalk, walk, walk_side_by_side
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.errors import DispatchError, InDoubt, Nacked, NotSent, StoreError, StoreUnavailable
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason, normalized, reason_of
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.mending import AS_IT_WAS, Mend
from dispatch.protocol.message import LAST_ERROR, LAST_ERROR_TYPE, TOO_LARGE, Message
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logger

log = logger(__name__)

#: Bulk redrives that wait at most, about: each is admitted with Redis full, too, and read as a whole with the others.
MOST_JOBS = 100

#: What ends a bulk redrive for now: these errors are the moment's, and the next dead letter would meet them, too.
_OF_THE_MOMENT = (NotSent, Nacked, InDoubt, StoreError, OSError)


@dataclasses.dataclass(frozen=True, slots=True)
class BulkRedrive:
    """A redrive of many dead letters that an operator asked for."""

    filter: DeadLetterFilter
    limit: int  #: dead letters at most
    rate: float  #: dead letters a second; 0 is no limit
    by: str  #: who asked for it
    id: str = dataclasses.field(default_factory=new_task_id, compare=False)  #: a UUIDv7, by which it is stopped

    def to_json(self) -> str:
        """For Redis, where it is found again by this text: a field of a later release is left out where it has no value."""
        data = dataclasses.asdict(self)
        if self.filter.fingerprint is None:
            del data["filter"]["fingerprint"]
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> BulkRedrive:
        """The inverse of `to_json`."""
        data = json.loads(text)
        known = {"id": data["id"]} if "id" in data else {}  # one that a former release stored has none
        return cls(DeadLetterFilter(**data["filter"]), data["limit"], data["rate"], data["by"], **known)


class BulkRedrives:
    """The bulk redrives that wait for a worker's janitor. Each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def add(self, bulk: BulkRedrive) -> bool:
        """Have the workers redrive many dead letters; survives the death of the process that asked.

        Returns:
            False when `MOST_JOBS` wait already: it is not added.
        """
        if len(self._redis.run(("LRANGE", self._redis.keys.bulk_redrives, 0, MOST_JOBS))[0]) >= MOST_JOBS:
            return False
        self._redis.run(self._redis.vital("RPUSH", self._redis.keys.bulk_redrives, bulk.to_json()))
        return True

    def next(self) -> BulkRedrive | None:
        """The oldest one, which stays in the list until `finish`: a worker may die in the middle of it."""
        text = self._redis.run(("LINDEX", self._redis.keys.bulk_redrives, 0))[0]
        return BulkRedrive.from_json(text) if text else None

    def all(self) -> list[BulkRedrive]:
        """All that are not done, the one that is carried out first."""
        return [
            BulkRedrive.from_json(text)
            for text in self._redis.run(("LRANGE", self._redis.keys.bulk_redrives, 0, -1))[0]
        ]

    def finish(self, bulk: BulkRedrive) -> bool:
        """It is done.

        Returns:
            False when it was stopped meanwhile.
        """
        return bool(self._redis.run(("LREM", self._redis.keys.bulk_redrives, 1, bulk.to_json()))[0])

    def stop(self, job_id: str) -> BulkRedrive | None:
        """Take one out, whether it waits or is carried out.

        Returns:
            The job; None when there is none (any more).
        """
        while (bulk := next((each for each in self.all() if each.id == job_id), None)) is not None:
            if self.finish(bulk):  # otherwise it was shortened in between
                break
        return bulk

    def wanted(self, bulk: BulkRedrive) -> bool:
        """Whether it has not been stopped."""
        return self._redis.run(("LPOS", self._redis.keys.bulk_redrives, bulk.to_json()))[0] is not None

    def shorten(self, bulk: BulkRedrive, sent: int) -> None:
        """It was interrupted: what is left of it waits, unless it was stopped."""
        rest = dataclasses.replace(bulk, limit=bulk.limit - sent)
        keys = [self._redis.keys.bulk_redrives]
        self._redis.run(self._redis.script("replace_entry", keys, bulk.to_json(), rest.to_json()))

    def postpone(self) -> None:
        """The oldest one got nowhere: it waits behind the others."""
        key = self._redis.keys.bulk_redrives
        self._redis.run(self._redis.vital("LMOVE", key, key, "LEFT", "RIGHT"))


def redrive_matching(
    broker: Where,
    service: DeadLetterService,
    lock: WalkLock,
    bulk: BulkRedrive,
    *,
    keys: MessageKeys = NO_KEYS,
    wanted: Callable[[], bool] = lambda: True,
    mend: Callable[[Message], Mend] = lambda _dead_letter: AS_IT_WAS,
    on_outcome: Callable[[Message, RedriveOutcome], None] = lambda _dead_letter, _outcome: None,
) -> int:
    """Redrive what a filter matches; works also with Redis wiped.

    Args:
        broker: the ``replay`` role's.
        service: redrives one.
        lock: held.
        bulk: which dead letters, how many, how fast.
        keys: that a dead letter must be signed with.
        wanted: asked before each dead letter, from several threads; False ends the walk.
        mend: what is changed of one; called from several threads; what it raises ends the walk.
        on_outcome: called with each dead letter that matched.

    Returns:
        How many were sent on; one that can't be published or is not authentic stays, and is reported.
    """
    sent = 0

    def work(dead_letter: Message) -> tuple[Message, RedriveOutcome] | None:
        if sent >= bulk.limit:
            raise StopWalk
        fault = "" if TOO_LARGE in dead_letter.headers else keys.fault(dead_letter)
        if not meant(bulk.filter, dead_letter, fault):
            return None
        if not wanted():
            raise StopWalk
        dead_letter = normalized(dead_letter)  # as its record is
        if fault:
            return dead_letter, RedriveOutcome.UNAUTHENTIC
        return dead_letter, _redrive(service, dead_letter, bulk.by, mend(dead_letter))

    def settle(_: Message, done: tuple[Message, RedriveOutcome] | None) -> bool:
        nonlocal sent
        if done is None:
            return False
        sent += done[1] is RedriveOutcome.SENT
        on_outcome(*done)
        return done[1] in (RedriveOutcome.SENT, RedriveOutcome.STALE, RedriveOutcome.OVERTAKEN)

    def at_once() -> int:
        return 1 if bulk.rate else bulk.limit - sent  # no more than may be sent

    walk_side_by_side(broker, lock, work, settle, at_once=at_once, rate=bulk.rate)
    return sent


def meant(wanted: DeadLetterFilter, dead_letter: Message, fault: str) -> bool:
    """Whether a filter matches; the error type of what is not authentic is `unauthentic`, whatever its headers have."""
    shown = dead_letter.with_headers(**{LAST_ERROR_TYPE: Reason.UNAUTHENTIC.value}) if fault else dead_letter
    return wanted.matches(shown)


def _redrive(service: DeadLetterService, dead_letter: Message, by: str, mend: Mend) -> RedriveOutcome:
    """Redrive one; what only this one can't stands in no other's way."""
    try:
        return service.redrive_message(dead_letter, by=by, mend=mend)
    except _OF_THE_MOMENT:
        raise
    except Exception as exc:
        unforeseen = not isinstance(exc, DispatchError)
        log.warning(
            "dead letter passed over", task_id=dead_letter.task_id, reason=repr(exc), by=by, exc_info=unforeseen
        )
        return RedriveOutcome.FAILED


def find_unauthentic(
    broker: Where, lock: WalkLock, wanted: DeadLetterFilter, keys: MessageKeys, *, limit: int
) -> list[tuple[Message, str]]:
    """What lies in the DLQ and nothing of ours wrote; no list of records has it.

    Args:
        broker: the ``replay`` role's.
        lock: held.
        wanted: which dead letters.
        keys: that a dead letter must be signed with.
        limit: dead letters at most.

    Returns:
        Each, and what is wrong with it.
    """
    found: list[tuple[Message, str]] = []

    def visit(dead_letter: Message) -> bool:
        if len(found) >= limit:
            raise StopWalk
        recorded = dead_letter.text(LAST_ERROR) if reason_of(dead_letter) == Reason.UNAUTHENTIC else ""
        fault = keys.fault(dead_letter) or recorded or ""
        if fault and meant(wanted, dead_letter, fault):
            found.append((dead_letter, fault))
        return False

    walk(broker, lock, visit)
    return found


def discard_matching(
    broker: Where,
    service: DeadLetterService,
    lock: WalkLock,
    wanted: DeadLetterFilter,
    *,
    by: str,
    keys: MessageKeys = NO_KEYS,
    on_discard: Callable[[Message], None] = lambda _dead_letter: None,
) -> int:
    """Take what a filter matches out of the DLQ for good; the tasks stay FAIL.

    One that is not signed with `keys` goes alone: the task whose id it has is another's.

    Returns:
        How many messages were taken out.

    Raises:
        StoreUnavailable: the rest stays; a message must not go while its record is that of a dead letter.
    """

    def visit(dead_letter: Message) -> bool:
        fault = keys.fault(dead_letter)
        if not meant(wanted, dead_letter, fault):
            return False
        if fault:
            on_discard(dead_letter)
            return True
        try:
            service.discard(dead_letter.dead_letter_id, by=by)
        except StoreUnavailable:
            raise
        except DispatchError:  # without a record it is discarded all the same
            log.info("dead letter without a record discarded", task_id=dead_letter.dead_letter_id)
        on_discard(dead_letter)
        return True

    return walk(broker, lock, visit)
