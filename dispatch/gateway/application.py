"""The Flask application, put together from its parts; connects to nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flask
from flask import Response

from dispatch.broker.queue_stats import QueueView
from dispatch.config.settings import Settings
from dispatch.control.service import ControlService
from dispatch.control.signalling import Signaller
from dispatch.deadletters.bulk import BulkRedrives
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.admission.readiness import Readiness
from dispatch.gateway.contract import openapi
from dispatch.gateway.errors import ErrorHandlers
from dispatch.gateway.http import access_log, context
from dispatch.gateway.http.audit_trail import AuditTrail
from dispatch.gateway.http.auth import Keyring
from dispatch.gateway.http.context import Site
from dispatch.gateway.http.direct import DirectOperations
from dispatch.gateway.http.key_source import KeySource
from dispatch.gateway.http.long_poll import WaitingRoom
from dispatch.gateway.http.operations import Meter, Operation, contracts, endpoints, register
from dispatch.gateway.http.reply import Reply
from dispatch.gateway.server import unread_body
from dispatch.gateway.views import pages
from dispatch.gateway.views.audit import AuditViews
from dispatch.gateway.views.batches import BatchViews
from dispatch.gateway.views.callbacks import CallbackViews
from dispatch.gateway.views.concurrency import ConcurrencyViews
from dispatch.gateway.views.control import ControlViews
from dispatch.gateway.views.dead_letter_groups import DeadLetterGroupViews
from dispatch.gateway.views.dead_letters import DeadLetterViews
from dispatch.gateway.views.docs import DocsViews, serve_static
from dispatch.gateway.views.health import HealthViews
from dispatch.gateway.views.intake import Intake
from dispatch.gateway.views.jobs import JobViews
from dispatch.gateway.views.metrics import MetricViews
from dispatch.gateway.views.pages import PageViews
from dispatch.gateway.views.pauses import PauseViews
from dispatch.gateway.views.queues import QueueViews
from dispatch.gateway.views.schedules import ScheduleViews
from dispatch.gateway.views.signals import SignalViews
from dispatch.gateway.views.task_search import TaskSearchViews
from dispatch.gateway.views.task_types import TaskTypeViews
from dispatch.gateway.views.tasks import TaskViews
from dispatch.gateway.views.webhooks import WebhookViews
from dispatch.gateway.views.workers import WorkerViews
from dispatch.protocol import delays
from dispatch.schedules.service import ScheduleService
from dispatch.store.audit import AuditLog
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.jobs import Jobs
from dispatch.store.pauses import HeldTasks, Pauses
from dispatch.store.task_counts import TaskCounts
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import WorkerInfo
from dispatch.submission.submitter import Submitter
from dispatch.submission.webhooks import WebhookSubmitter
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import tracing


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
    guard: Guard
    meter: Meter
    allowance: Callable[[str], Allowance]  #: whether a principal may submit a task
    readiness: Readiness
    queues: Callable[[], Sequence[QueueView]]
    workers: Callable[[], Sequence[WorkerInfo]]


def operations() -> list[Operation]:
    """Every operation's contract."""
    clients = (
        TaskViews,
        BatchViews,
        WebhookViews,
        ControlViews,
        SignalViews,
        CallbackViews,
        TaskSearchViews,
        TaskTypeViews,
        ScheduleViews,
    )
    operators = (
        DeadLetterViews,
        DeadLetterGroupViews,
        JobViews,
        PauseViews,
        ConcurrencyViews,
        QueueViews,
        WorkerViews,
        AuditViews,
    )
    groups = (*clients, *operators, HealthViews, MetricViews, PageViews, DocsViews)
    return [contract for group in groups for _, contract in contracts(group)]


def document(types: Mapping[str, TaskType], *, keyed: bool = True) -> dict[str, Any]:
    """The OpenAPI document of the whole API; arguments as `openapi.document`."""
    return openapi.document(operations(), _public(types), keyed=keyed)


class Gateway(flask.Flask):
    """The Flask application; frequent operations pass it by, where they can."""

    def __init__(self, direct: DirectOperations) -> None:
        super().__init__("dispatch.gateway", static_folder=None)
        self._direct = direct

    def carry_out(self, environ: Any, start_response: Any) -> Iterable[bytes] | None:
        """Respond to a request without Flask, or return None where that can't be."""
        if tracing.enabled():  # Flask begins the request's span
            return None
        return self._direct.carry_out(environ, start_response)

    def wsgi_app(self, environ: Any, start_response: Any) -> Any:
        """Respond to a request."""
        response = self.carry_out(environ, start_response)
        return super().wsgi_app(environ, start_response) if response is None else response

    def make_response(self, rv: Any) -> Response:
        """As Flask's, also of a `Reply`."""
        return super().make_response(rv.response() if isinstance(rv, Reply) else rv)


def build(parts: Parts) -> flask.Flask:
    """Make the application.

    Args:
        parts: real ones, or fakes in tests.

    Returns:
        The WSGI application.
    """
    settings, pepper = parts.settings, parts.settings.api_key_pepper
    keyring = Keyring(parts.keys, pepper.get_secret_value() if pepper else "")
    site = Site(settings.trace_url, settings.max_body, settings.http_hsts, settings.lanes, keyring.stands)
    errors = ErrorHandlers(parts.guard, settings.idempotency_retry)
    steps = (AuditTrail(parts.audit.add).finish, access_log.finish, unread_body.settle)
    app = Gateway(direct := DirectOperations(site, errors.reply, steps))
    app.url_map.merge_slashes = False  # never a redirect; see `context.refuse_other_slashes`
    if (recording := tracing.backend()) is not None:
        recording.instrument_app(app)  # first of all, so that its span is there when the context begins
    app.before_request(functools.partial(context.begin_in_flask, site))
    app.before_request(context.refuse_other_slashes)
    app.after_request(functools.partial(_finished, steps))
    app.teardown_request(context.end)
    errors.install(app)
    docs = DocsViews()
    for group in [*_views(parts, errors), docs]:
        for contract, endpoint in endpoints(group, keyring, parts.meter):
            argument = register(app, contract, endpoint)
            if contract.direct:
                direct.add(contract, argument, endpoint)
    serve_static(app)
    pages.install(app)
    docs.describe(functools.partial(document, parts.types, keyed=parts.keys.keyed))
    return app


def _public(types: Mapping[str, TaskType]) -> Mapping[str, TaskType]:
    """What clients may submit."""
    return {name: kind for name, kind in types.items() if not kind.internal}


def _finished(steps: Sequence[Callable[[Response | Reply], None]], response: Response) -> Response:
    """Runs after every request that Flask has carried out, failures included."""
    for step in steps:
        step(response)
    return response


def _views(parts: Parts, errors: ErrorHandlers) -> list[object]:
    settings = parts.settings
    public = _public(parts.types)
    intake = Intake(
        tasks=parts.tasks,
        submitter=parts.submitter,
        types=public,
        idempotency=parts.idempotency,
        guard=parts.guard,
        allowance=parts.allowance,
        longest_delay=delays.longest(settings.delay_levels),
        settings=settings.handlers(),
    )
    return [
        TaskViews(
            tasks=parts.tasks,
            intake=intake,
            room=WaitingRoom(settings.http_waits, settings.http_waits_per_principal),
            result_ttl=settings.result_ttl,
        ),
        BatchViews(intake, parts.meter, errors.problem, max_body=settings.max_batch_body, max_item=settings.max_body),
        TaskSearchViews(
            parts.tasks, parts.counts, parts.types, sealing=settings.sealing, result_ttl=settings.result_ttl
        ),
        SignalViews(parts.tasks, parts.signaller, settings.result_ttl),
        CallbackViews(settings.callbacks, parts.signaller),
        ControlViews(parts.tasks, parts.control, settings.result_ttl),
        TaskTypeViews(public, parts.ladders),
        ScheduleViews(parts.schedules, public, parts.guard, parts.allowance),
        WebhookViews(parts.tasks.get, parts.webhooks, result_ttl=settings.result_ttl),
        DeadLetterViews(parts.dead_letters, parts.bulk, parts.types, settings.sealing),
        DeadLetterGroupViews(parts.dead_letters),
        JobViews(parts.jobs, parts.bulk),
        PauseViews(parts.pauses, parts.held),
        ConcurrencyViews(parts.concurrency),
        QueueViews(parts.queues, parts.guard),
        WorkerViews(parts.workers),
        AuditViews(parts.audit),
        HealthViews(parts.readiness),
        MetricViews(parts.types),
        PageViews(),
    ]
