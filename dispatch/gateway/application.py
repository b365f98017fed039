"""The Flask application, put together from its parts; connects to nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flask

from dispatch.broker.queue_stats import QueueView
from dispatch.config.settings import Settings
from dispatch.deadletters.bulk import BulkRedrives
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.admission.readiness import Readiness
from dispatch.gateway.contract import openapi
from dispatch.gateway.errors import ErrorHandlers
from dispatch.gateway.http import access_log as access
from dispatch.gateway.http import context, unread_body
from dispatch.gateway.http.auth import Keyring
from dispatch.gateway.http.long_poll import Slots
from dispatch.gateway.http.operations import Operation, Spend, contracts, register
from dispatch.gateway.submission import Submitter
from dispatch.gateway.views.dead_letters import DeadLetterViews
from dispatch.gateway.views.docs import DocsViews, serve_static
from dispatch.gateway.views.health import HealthViews
from dispatch.gateway.views.metrics import MetricViews
from dispatch.gateway.views.queues import QueueViews
from dispatch.gateway.views.task_types import TaskTypeViews
from dispatch.gateway.views.tasks import TaskViews
from dispatch.gateway.views.workers import WorkerViews
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import WorkerInfo
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import tracing


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the application is made of."""

    settings: Settings
    types: Mapping[str, TaskType]
    ladders: Ladders
    tasks: TaskStore
    submitter: Submitter
    idempotency: IdempotencyKeys
    dead_letters: DeadLetterService
    bulk: BulkRedrives
    guard: Guard
    spend: Spend
    readiness: Readiness
    queues: Callable[[], Sequence[QueueView]]
    workers: Callable[[], Sequence[WorkerInfo]]


def operations() -> list[Operation]:
    """Every operation's contract."""
    groups = (TaskViews, TaskTypeViews, DeadLetterViews, QueueViews, WorkerViews, HealthViews, MetricViews, DocsViews)
    return [contract for group in groups for _, contract in contracts(group)]


def document(types: Mapping[str, TaskType], *, keyed: bool = True) -> dict[str, Any]:
    """The OpenAPI document of the whole API; arguments as `openapi.document`."""
    return openapi.document(operations(), types, keyed=keyed)


def build(parts: Parts) -> flask.Flask:
    """Make the application.

    Args:
        parts: real ones, or fakes in tests.

    Returns:
        The WSGI application.

    Raises:
        ConfigurationError: ``DISPATCH_API_KEYS`` has entries that are not usable.
    """
    keyring = Keyring.from_settings(parts.settings)
    app = flask.Flask("dispatch.gateway", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = parts.settings.max_body + 1  # see `validation.read_object`
    app.url_map.merge_slashes = False  # never a redirect; see `context.refuse_doubled_slash`
    app.config["TRACE_URL"] = parts.settings.trace_url
    if (recording := tracing.backend()) is not None:
        recording.instrument_app(app)  # first of all, so that its span is there when the context begins
    app.before_request(context.begin)
    app.before_request(context.refuse_doubled_slash)
    app.after_request(unread_body.settle)  # the last: they run in reverse
    app.after_request(access.finish)
    ErrorHandlers(parts.guard, parts.settings.idempotency_retry).install(app)
    docs = DocsViews()
    register(app, [*_views(parts), docs], keyring, parts.spend)
    serve_static(app)
    docs.describe(functools.partial(document, parts.types, keyed=bool(parts.settings.api_keys)))
    return app


def _views(parts: Parts) -> list[object]:
    settings = parts.settings
    return [
        TaskViews(
            tasks=parts.tasks,
            submitter=parts.submitter,
            types=parts.types,
            idempotency=parts.idempotency,
            guard=parts.guard,
            slots=Slots(settings.http_threads),
            stream_slots=Slots(settings.http_threads),
            result_ttl=settings.result_ttl,
        ),
        TaskTypeViews(parts.types, parts.ladders),
        DeadLetterViews(parts.dead_letters, parts.bulk, parts.types),
        QueueViews(parts.queues, parts.guard),
        WorkerViews(parts.workers),
        HealthViews(parts.readiness),
        MetricViews(parts.types),
    ]
