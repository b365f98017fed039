"""Looks into the DLQ that take nothing out: how many dead letters a filter matches, and one as it lies there."""

from __future__ import annotations

import collections
import itertools

from dispatch.config.tls import Where
from dispatch.deadletters.bulk import meant
from dispatch.deadletters.service import DeadLetterService
from dispatch.deadletters.walk import StopWalk, waiting, walk
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason, normalized, reason_of
from dispatch.protocol.message import TOO_LARGE, Message
from dispatch.protocol.record import Record
from dispatch.protocol.signatures import MessageKeys


def counts_by_reason(
    broker: Where,
    service: DeadLetterService,
    lock: WalkLock,
    wanted: DeadLetterFilter,
    keys: MessageKeys,
    *,
    patience: float,
    most: int,
) -> collections.Counter[str]:
    """How many dead letters a filter matches, by the reason they died of.

    The records answer at once, and hold nothing. Only when the DLQ has more than they know (Redis was wiped, or something is
    there that nothing of ours wrote) does a walk count.

    Args:
        broker: the ``replay`` role's.
        service: reads the records.
        lock: not held.
        wanted: which dead letters.
        keys: that a dead letter must be signed with.
        patience: seconds to wait for the lock.
        most: ends the count.

    Raises:
        StoreUnavailable, BrokerUnreachable, WalkInProgress: it can't be counted.
    """
    if service.knows(waiting(broker)):
        found = itertools.islice(service.matching(wanted), most)
        return collections.Counter(record.dead_reason or "unknown" for record in found)
    counts: collections.Counter[str] = collections.Counter()

    def visit(dead_letter: Message) -> bool:
        if counts.total() >= most:
            raise StopWalk
        fault = "" if TOO_LARGE in dead_letter.headers else keys.fault(dead_letter)
        if meant(wanted, dead_letter, fault):
            counts[Reason.UNAUTHENTIC.value if fault else reason_of(dead_letter)] += 1
        return False

    with lock.held(patience) as held:
        walk(broker, held, visit)
    return counts


def find_letter(broker: Where, lock: WalkLock, task_id: str, record: Record | None) -> Message | None:
    """One dead letter as it lies in the DLQ, with the headers that router and broker gave it.

    Args:
        broker: the ``replay`` role's.
        lock: held.
        task_id: its task's id, or the id that its content gets.
        record: the task's, which distinguishes the letter it died with from an extra copy; None: any is right.

    Returns:
        The letter; of several the one that the record means, otherwise the last one; None when there is none.
    """
    found: list[Message] = []

    def visit(dead_letter: Message) -> bool:
        if found and _is_of(record, found[-1]):
            raise StopWalk
        if dead_letter.dead_letter_id == task_id:
            found.append(dead_letter)
        return False

    walk(broker, lock, visit)
    return found[-1] if found else None


def _is_of(record: Record | None, dead_letter: Message) -> bool:
    same = normalized(dead_letter)
    return record is None or (record.cycle, record.seq) == (same.cycle, same.seq)
