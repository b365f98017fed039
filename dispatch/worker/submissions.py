"""What a worker submits by itself: the tasks of handlers, and those of schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.protocol import delays
from dispatch.schedules.ticks import Ticks
from dispatch.schedules.wakeups import WakeUps
from dispatch.store.children import ChildEntries
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.schedules import ScheduleStore
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.submission.children import ChildSubmitter
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submitter
from dispatch.tasktypes.builtin import TICK
from dispatch.tasktypes.ladders import Ladders


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerSubmissions:
    """What submits, on one Redis handle and one publisher."""

    publisher: Publisher
    children: ChildSubmitter
    store: ScheduleStore
    tasks: TaskStore
    ticks: Ticks
    internal: Mapping[str, Callable[[Any, Any], dict[str, Any]]]  #: the handlers of internal types


def submissions(celery: Any, redis: RedisHandle, publisher: Publisher, ladders: Ladders) -> WorkerSubmissions:
    """Make them; nothing connects.

    Args:
        celery: the worker's app.
        redis: the handle.
        publisher: may write to the task exchange and to the delay levels.
        ladders: of the task types.
    """
    settings: Settings = celery.dispatch_settings
    types, longest = celery.dispatch_types, delays.longest(settings.delay_levels)
    tasks, store = TaskStore(redis, settings), ScheduleStore(redis)
    keys = IdempotencyKeys(redis, settings)
    submitter = Submitter(
        tasks, keys, publisher, celery.tasks, ladders, sealing=settings.sealing, shards=settings.shards
    )
    once = OnceSubmitter(submitter, tasks, ChildEntries(redis), settings)
    ticks = Ticks(once, longest_delay=longest)
    wakeups = WakeUps(store, tasks, once, ticks, types, max_body=settings.max_body)
    return WorkerSubmissions(
        publisher=publisher,
        children=ChildSubmitter(once, types, max_body=settings.max_body, longest_delay=longest),
        store=store,
        tasks=tasks,
        ticks=ticks,
        internal={TICK.name: wakeups},
    )
