"""The Flask application, put together from its parts; connects to nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flask
from flask import Response

from dispatch.gateway.contract import openapi
from dispatch.gateway.errors import ErrorHandlers
from dispatch.gateway.http import access_log, context
from dispatch.gateway.http.audit_trail import AuditTrail
from dispatch.gateway.http.auth import Keyring
from dispatch.gateway.http.context import Site
from dispatch.gateway.http.direct import DirectOperations
from dispatch.gateway.http.long_poll import WaitingRoom
from dispatch.gateway.http.operations import Operation, contracts, endpoints, register
from dispatch.gateway.http.reply import Reply
from dispatch.gateway.http.routes import Route
from dispatch.gateway.ops import console
from dispatch.gateway.parts import Parts
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
from dispatch.tasktypes.registry import TaskType, rates_of
from dispatch.telemetry import tracing


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

    url_rule_class = Route

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
    site = Site(
        settings.trace_url, settings.max_body, settings.http_hsts, settings.lanes, settings.shards, keyring.stands
    )
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
    room = WaitingRoom(settings.http_waits, settings.http_waits_per_principal)
    for group in [*_views(parts, errors, room), docs]:
        for contract, endpoint in endpoints(group, keyring, parts.meter):
            argument = register(app, contract, endpoint)
            if contract.direct:
                direct.add(contract, argument, endpoint)
    serve_static(app)
    pages.install(app)
    if settings.console:
        console.install(app, parts, keyring, room, errors.problem)
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


def _views(parts: Parts, errors: ErrorHandlers, room: WaitingRoom) -> list[object]:
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
            room=room,
            result_ttl=settings.result_ttl,
        ),
        BatchViews(intake, parts.meter, errors.problem, max_body=settings.max_batch_body, max_item=settings.max_body),
        TaskSearchViews(
            parts.tasks, parts.counts, parts.types, sealing=settings.sealing, result_ttl=settings.result_ttl
        ),
        SignalViews(parts.tasks, parts.signaller, settings.result_ttl),
        CallbackViews(settings.callbacks, parts.signaller, settings.callback_limit),
        ControlViews(parts.tasks, parts.control, settings.result_ttl),
        TaskTypeViews(public, parts.ladders),
        ScheduleViews(parts.schedules, public, parts.guard, parts.allowance),
        WebhookViews(parts.tasks.get, parts.webhooks, result_ttl=settings.result_ttl),
        DeadLetterViews(parts.dead_letters, parts.bulk, parts.types, settings.sealing),
        DeadLetterGroupViews(parts.dead_letters),
        JobViews(parts.jobs, parts.bulk, parts.audit.add),
        PauseViews(parts.pauses, parts.held),
        ConcurrencyViews(parts.concurrency, parts.rates, rates_of(parts.types)),
        QueueViews(parts.queues, parts.guard),
        WorkerViews(parts.workers),
        AuditViews(parts.audit),
        HealthViews(parts.readiness),
        MetricViews(parts.types),
        PageViews(),
    ]
