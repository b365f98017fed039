"""The hold: a hand-over to the hold queue, of a copy that may not run yet. No attempt is used up, and no lease is taken.

The order is that of every hand-over, and its crash windows are those of `dispatch.store.handovers`: after the decision and
after the publish the redelivered copy finds ROUTE and publishes the decided copy again; after `Handovers.hand_over` it is STALE.
"""

from __future__ import annotations

import dataclasses
import enum

from dispatch.protocol.message import QUEUED_AT, STEP, Copy, Message, compact_json
from dispatch.protocol.record_fields import step_fields
from dispatch.store.hops import arrived_hop
from dispatch.store.pauses import HeldTasks
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import Transitions, checked_soon, hop


class HoldAnswer(enum.StrEnum):
    """Whether a copy is held."""

    HELD = "HELD"  #: recorded: publish the copy
    ROUTE = "ROUTE"  #: its next copy was decided before: publish that one
    DONE = "DONE"  #: finished in this cycle or a later one: ack
    CANCELLED = "CANCELLED"  #: ack
    STALE = "STALE"  #: a later copy has taken over: ack
    BUSY = "BUSY"  #: another delivery runs it: park the copy
    UNDO = "UNDO"  #: it is to be stopped, and may have something to undo: it runs
    FOREIGN = "FOREIGN"  #: it claims more than its record allows: nothing of ours wrote it


@dataclasses.dataclass(frozen=True, slots=True)
class HoldDecision:
    """The answer, and for HELD and ROUTE the copy to publish."""

    answer: HoldAnswer
    copy: Copy | None = None


class Holds:
    """Records holds. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis
        self._transitions = Transitions(redis)
        self._tasks = HeldTasks(redis)

    def hold(
        self, message: Message, copy: Copy, held_by: str, max_attempts: int, *, listed: bool = True
    ) -> HoldDecision:
        """Record that a copy may not run yet.

        Args:
            message: the copy that was delivered.
            copy: the next one, for the hold queue.
            held_by: a pause, or a concurrency key.
            max_attempts: for a record that has to be rebuilt.
            listed: whether it is listed, for the workers that send what a pause has held.

        Returns:
            The answer.

        Raises:
            StoreUnavailable: unknown; hold it again.
        """
        note = hop("held", message, heldBy=held_by, queue=copy.queue)
        first = [checked_soon(self._redis, message.task_id)]
        if listed:
            first += self._tasks.listing(held_by, message.task_id)
        answer = self._transitions.run(
            "hold", message,
            message.cycle, message.seq, copy.to_json(), held_by, copy.queue, copy.message.number(QUEUED_AT), note, arrived_hop(message),
            compact_json(step_fields(message)) if STEP in message.headers else "",
            max_attempts=max_attempts, arrived=True, before=first,
        )  # fmt: skip
        kind, *copies = [answer] if isinstance(answer, str) else answer
        return HoldDecision(HoldAnswer(kind), Copy.from_json(copies[0]) if copies else None)
