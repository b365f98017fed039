"""Cancellations: a task that does not run ends at once; one that runs, or waits between two steps, is asked to stop.

Crash windows:

- the wish is recorded and the worker dies: the claim of the redelivered copy ends the task, so does the sweeper;
- CANCELLED is recorded, and not yet what follows in other slots: the sweeper's reminder is dropped last, and the sweeper
  settles what the task counts as. Every copy that still waits somewhere finds CANCELLED at its claim;
- the same, and the end of the task is to be announced: its reminder stays until the sweeper has submitted the webhook's
  delivery, or found that it is submitted.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable

from dispatch.config.groups import RecordSettings
from dispatch.crashpoints import reach
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import hop
from dispatch.store.usage import Holding, Usage


class CancelAnswer(enum.StrEnum):
    """What a cancellation found."""

    CANCELLED = "CANCELLED"  #: it has ended so, now or before
    REQUESTED = "REQUESTED"  #: it runs, or is about to, and is asked to stop
    WAKE = "WAKE"  #: the same, once its wait is ended: its handler may have something to undo
    TERMINAL = "TERMINAL"  #: it has ended otherwise
    MISSING = "MISSING"  #: there is no record


class Cancellations:
    """Records cancellations. Thread-safe.

    Args:
        redis: the process's handle.
        settings: times to live.
        undoing: names of the types whose handlers undo what a cancelled task has begun.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings, undoing: Iterable[str] = ()) -> None:
        self._redis = redis
        self._undoing = f",{','.join(undoing)},"
        self._usage = Usage(redis)
        self._result_ttl = int(settings.result_ttl * 1_000)

    def cancel(self, task_id: str, *, by: str, announced_in: float = 0.0) -> CancelAnswer:
        """Cancel a task; safe to repeat.

        Args:
            task_id: the task.
            by: who asked for it.
            announced_in: seconds after which the sweeper announces the end of a task that has a webhook.

        Raises:
            StoreUnavailable: unknown; cancel again.
        """
        keys = self._redis.keys.task(task_id)
        command = self._redis.script(
            "cancel", keys, by, self._result_ttl, self._undoing, hop("cancel-requested", by=by)
        )
        text, (principal, webhook) = self._redis.run(command, ("HMGET", keys.record, "principal", "webhook"))
        answer = CancelAnswer(text)
        reach("cancel.recorded")
        if answer is CancelAnswer.CANCELLED:
            check_at = time.time() + announced_in if webhook else None
            self._redis.run(*after_cancel(self._redis, self._usage, principal, task_id, check_at=check_at))
        return answer


def after_cancel(
    redis: RedisHandle, usage: Usage, principal: str | None, task_id: str, *, check_at: float | None = None
) -> list[RedisCommand]:
    """The commands that follow the transition to CANCELLED: the task is counted and listed as waiting no longer.

    Args:
        redis: the handle.
        usage: counts.
        principal: whose task it is.
        task_id: the task.
        check_at: epoch seconds at which the sweeper checks it; None: it has no more to do.
    """
    keys = redis.keys
    uncounted = usage.entry(principal, task_id, Holding.NOTHING)
    reminder: RedisCommand = ("ZREM", keys.due, task_id)
    if check_at is not None:
        reminder = redis.vital("ZADD", keys.due, check_at, task_id)
    return [uncounted, ("ZREM", keys.waiting, task_id), reminder]
