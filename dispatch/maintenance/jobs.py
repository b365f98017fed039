"""The runner of jobs, with the verbs that it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.control.jobs import JobRunner
from dispatch.control.refusals import UnknownTask, VerbRefused
from dispatch.control.send_now import SendNow
from dispatch.control.service import ControlService
from dispatch.deadletters.service import DeadLetterService, NoSuchDeadLetter, NotDead
from dispatch.protocol.jobs import JobVerb
from dispatch.protocol.record import Record
from dispatch.store.audit import AuditLog
from dispatch.store.cancellations import Cancellations
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.handovers import Handovers
from dispatch.store.jobs import Jobs
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders


def job_runner(
    redis: RedisHandle,
    publisher: Publisher,
    ladders: Ladders,
    settings: Settings,
    *,
    undoing: Iterable[str],
    ended: Callable[[Record], None],
) -> JobRunner:
    """Make a worker's.

    Args:
        redis: the process's handle.
        publisher: may write to the task exchange.
        ladders: of the task types.
        settings: times, and keys for sealing.
        undoing: names of the types whose handlers undo what a cancelled task has begun.
        ended: does what the end of a cancelled task asks for.
    """
    tasks, records = TaskStore(redis, settings), DeadLetterRecords(redis, settings)
    sender = SendNow(tasks, Handovers(redis), publisher, settings.sealing)
    control = ControlService(tasks, Cancellations(redis, settings, undoing), sender, ended=ended)
    dead_letters = DeadLetterService(
        tasks, records, publisher, ladders, sealing=settings.sealing, shards=settings.shards
    )
    return JobRunner(
        Jobs(redis),
        tasks,
        {
            JobVerb.CANCEL: lambda task_id, by: control.cancel(task_id, by=by),
            JobVerb.RETRY_NOW: lambda task_id, by: control.retry_now(task_id, by=by),
            JobVerb.REDRIVE: lambda task_id, by: dead_letters.redrive(task_id, by=by),
            JobVerb.DISCARD: lambda task_id, by: dead_letters.discard(task_id, by=by),
        },
        changed=(UnknownTask, VerbRefused, NotDead, NoSuchDeadLetter),
        audit=AuditLog(redis, settings).add,
        interval=min(1.0, settings.sweep_interval),
    )
