"""Rates of task types in Redis: which runs have begun lately, who waits, and whose turn it is.

A rate lies in a slot of its own. A delivery takes a place in its window at the last moment before its claim; a task that found none is
held, and called when a place is free: one worker at a time calls, each call keeps a place, and the called takes it when its copy comes.

Crash windows (what a worker leaves that dies there):

- after taking, before the run begins: a place that no run has, for one unit; the redelivered copy takes another;
- after listing a waiting task, before its hold is recorded: it is called and not found HELD, and called again when it has been held;
- after calling, before the copies are sent: the next worker whose turn it is sends them;
- after sending, before that is noted: the same, and the extra copies are STALE.

A called task that does not come keeps its place for a lease. What all of this misses is brought back by the hold queue's TTL.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable

from dispatch.protocol.message import Message
from dispatch.protocol.rates import Rate, RateLimit, counts
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle

#: Seconds between two looks at a rate at most; for so long after the look that is due next, no other worker takes the turn.
LOOK_INTERVAL = 2.0

#: Tasks that one look calls.
BATCH = 100


class RateAnswer(enum.StrEnum):
    """Whether a run may begin."""

    TAKEN = "TAKEN"  #: now
    FREE = "FREE"  #: it does not count
    WAIT = "WAIT"  #: not yet; its task is listed
    OK = "OK"


@dataclasses.dataclass(frozen=True, slots=True)
class RateLook:
    """What a look at a rate has found."""

    unsent: tuple[str, ...]  #: the called to which no copy was sent yet
    pause: float | None  #: seconds until the next look; None: nothing waits


@dataclasses.dataclass(frozen=True, slots=True)
class RateView:
    """A rate as an operator sees it."""

    name: str
    rate: Rate
    begun: int  #: runs in the last unit
    waiting: int
    first: tuple[str, ...]  #: the first of the waiting


class Rates:
    """Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: a handle.
        lease: seconds that a called task has to come.
    """

    def __init__(self, redis: RedisHandle, *, lease: float) -> None:
        self._redis = redis
        self._lease = int(lease * 1_000)

    def take(self, limit: RateLimit, message: Message, delivery: str) -> RateAnswer:
        """Take a place for the run that is about to begin, or list the task among the waiting: by the time from which it may run.

        Args:
            limit: the rate.
            message: the copy.
            delivery: the id of its delivery; one that takes again, and has not begun, gives its place back first.
        """
        return self._answer(self._command("take", limit, message=message, who=delivery))

    def begun(self, limit: RateLimit, delivery: str) -> None:
        """The run that took a place has begun by now: its unit begins anew."""
        self._answer(self._command("begun", limit, who=delivery))

    def wait(self, limit: RateLimit, message: Message) -> None:
        """List a task that is held by now."""
        self._answer(self._command("wait", limit, message=message))

    def refund(self, limit: RateLimit, delivery: str) -> None:
        """Give the place of a run that did not begin back."""
        self._answer(self._command("refund", limit, who=delivery))

    def sent(self, limit: RateLimit, task_ids: Iterable[str]) -> None:
        """Copies of called tasks are under way."""
        self._answer(self._command("sent", limit, more=task_ids))

    def drop(self, limit: RateLimit, task_id: str) -> None:
        """A task does not wait any more."""
        self._answer(self._command("drop", limit, task_id=task_id))

    def look(self, limit: RateLimit, worker: str) -> RateLook:
        """Forget what has lapsed, and call as many of the waiting as may begin; nothing where another worker has the turn.

        Args:
            limit: the rate.
            worker: whose turn it is from now on.
        """
        _, pause, *unsent = self._redis.run(self._command("look", limit, who=worker))[0]
        return RateLook(tuple(unsent), None if int(pause) < 0 else int(pause) / 1_000)

    def view(self, limit: RateLimit, most: int = 100) -> RateView:
        """How much of a rate is used, and who waits.

        Args:
            limit: the rate.
            most: waiting tasks that are named.
        """
        begun, _, waiting = self._redis.keys.begun(limit.type)
        ((seconds, micros),) = self._redis.run(("TIME",))
        since = int(seconds) * 1_000 + int(micros) // 1_000 - limit.rate.seconds * 1_000
        times, count, first = self._redis.gather(
            ("ZRANGEBYSCORE", begun, f"({since}", "+inf"), ("ZCARD", waiting), ("ZRANGE", waiting, 0, most - 1)
        )
        return RateView(limit.name, limit.rate, len(times), int(count), tuple(first))

    def waiting(self, limits: Iterable[RateLimit]) -> int:
        """How many tasks wait."""
        found = [self._redis.keys.begun(limit.type)[2] for limit in limits]
        return sum(map(int, self._redis.gather(*(("ZCARD", key) for key in found)))) if found else 0

    def _answer(self, command: RedisCommand) -> RateAnswer:
        return RateAnswer(self._redis.run(command)[0][0])

    def _command(
        self,
        op: str,
        limit: RateLimit,
        *,
        task_id: str = "",
        message: Message | None = None,
        who: str = "",
        more: Iterable[str] = (),
    ) -> RedisCommand:
        rank, free = 0, 0
        if message is not None:
            task_id, rank, free = message.task_id, message.due_at, int(not counts(message))
        unit, turn = limit.rate.seconds * 1_000, int(LOOK_INTERVAL * 1_000)
        words: tuple[str | float, ...] = (
            op, task_id, who, limit.rate.runs, unit, rank, free, self._lease, BATCH, turn, *more,
        )  # fmt: skip
        return self._redis.script("begin_rate", self._redis.keys.begun(limit.type), *words)
