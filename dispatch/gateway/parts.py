"""What the gateway's application is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from dispatch.broker.queue_stats import QueueView
from dispatch.config.settings import Settings
from dispatch.control.service import ControlService
from dispatch.control.signalling import Signaller
from dispatch.deadletters.bulk import BulkRedrives
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.admission.readiness import Readiness
from dispatch.gateway.http.key_source import KeySource
from dispatch.gateway.http.operations import Meter
from dispatch.schedules.service import ScheduleService
from dispatch.store.audit import AuditLog
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.console_sessions import EndedSessions
from dispatch.store.history import History
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.jobs import Jobs
from dispatch.store.pauses import HeldTasks, Pauses
from dispatch.store.rates import Rates
from dispatch.store.saved_views import SavedViews
from dispatch.store.task_counts import TaskCounts
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import WorkerInfo
from dispatch.submission.submitter import Submitter
from dispatch.submission.webhooks import WebhookSubmitter
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the application is made of."""

    settings: Settings
    keys: KeySource
    types: Mapping[str, TaskType]
    ladders: Ladders
    tasks: TaskStore
    counts: Callable[[str | None], TaskCounts]  #: of a principal's tasks, or of all
    submitter: Submitter
    webhooks: WebhookSubmitter
    idempotency: IdempotencyKeys
    signaller: Signaller
    control: ControlService
    dead_letters: DeadLetterService
    schedules: ScheduleService
    bulk: BulkRedrives
    jobs: Jobs
    audit: AuditLog
    pauses: Pauses
    held: HeldTasks
    concurrency: ConcurrencyKeys
    rates: Rates
    guard: Guard
    meter: Meter
    allowance: Callable[[str], Allowance]  #: whether a principal may submit a task
    readiness: Readiness
    queues: Callable[[], Sequence[QueueView]]
    workers: Callable[[], Sequence[WorkerInfo]]
    ended_sessions: EndedSessions  #: of the console
    ages: Callable[[], Mapping[str, float]]  #: seconds for which the oldest message of a queue waits
    history: History
    views: SavedViews
