"""HTTP entry: ``gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'``, or ``flask --app app run``.

Only assembles. Importing it does nothing; `create_app` returns at once and the connections are made by
threads in the background, so call it after the fork (no ``--preload``).
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable

import flask
import kombu
import structlog

import dispatch.config.settings
import tasks
from celery_app import create_celery
from dispatch import tasktypes
from dispatch.broker import provision
from dispatch.broker import queue_stats as queues
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.admission.depth import DepthGauge, DepthReader, ack_rate
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.admission.quota import Quota
from dispatch.gateway.application import Parts, build
from dispatch.gateway.letters import LetterDesk
from dispatch.gateway.replays import Replays
from dispatch.gateway.submission import Submitter
from dispatch.gateway.views.health import Readiness, broker_check, store_check
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import WorkerRegistry
from dispatch.telemetry import logs, tracing

_PATIENCE = 2.0  #: seconds for connecting to the broker, and for each of its answers while declaring


def create_app(settings: Settings | None = None) -> flask.Flask:
    """Make the gateway.

    Args:
        settings: read from ``DISPATCH_*`` by default.

    Returns:
        The WSGI application; ``app.extensions["close"]()`` ends its threads and connections.

    Raises:
        ConfigurationError: every problem with the settings.
    """
    settings = settings or dispatch.config.settings.load()
    celery = create_celery(settings)
    logs.configure("gateway")
    if tracing.start("gateway") and (recording := tracing.backend()) is not None:
        celery.set_default()  # where the instrumentation looks a task up when its message is made
        recording.instrument_tasks()
    types = tasktypes.load(tasks)
    store = TaskStore(settings)
    publisher = Publisher(
        settings.broker("gateway"),
        timeout=settings.confirm_timeout,
        on_open=functools.partial(_declare, settings) if settings.apply_topology else None,
    )
    verbs = DeadLetterService(settings, store, publisher)
    replays = Replays(settings)
    guard = Guard(settings.queue_depth_limit)
    quota = Quota(settings)
    roster = WorkerRegistry(settings, timeout=settings.store_timeout)
    reader = DepthReader(guard, DepthGauge(settings), functools.partial(ack_rate, settings))
    readiness = Readiness({"broker": broker_check(reader, publisher), "store": store_check(store)})
    app = build(
        Parts(
            settings=settings,
            types=types,
            tasks=store,
            submitter=Submitter(settings, store, publisher, celery),
            keys=replays,
            letters=LetterDesk(store, verbs),
            guard=guard,
            spend=quota.spend,
            readiness=readiness,
            queues=functools.partial(queues.snapshot, settings),
            workers=roster.present,
        )
    )
    publisher.start()
    reader.start()
    _close_with(
        app, readiness.close, reader.close, publisher.close, verbs.close, replays.close, quota.close, roster.close,
        store.close, tracing.stop,
    )  # fmt: skip
    return app


def _close_with(app: flask.Flask, *closers: Callable[[], None]) -> None:
    """Have threads and connections end with the process, or earlier by ``app.extensions["close"]()``."""

    def close() -> None:
        atexit.unregister(close)
        for one in closers:
            one()

    app.extensions["close"] = close
    atexit.register(close)


def _declare(settings: Settings, url: str) -> None:
    """Create what is missing in the broker before the first publish of a connection.

    What is there with other arguments, or may not be created by this user, is an operator's business: tasks that
    can be routed all the same are still accepted, the others are refused as unroutable.
    """
    limits = {"read_timeout": _PATIENCE, "write_timeout": _PATIENCE}
    with kombu.Connection(url, connect_timeout=_PATIENCE, transport_options=limits) as connection:
        try:
            provision.declare(connection, settings)
        except (provision.TopologyConflict, provision.TopologyRefused) as exc:
            structlog.get_logger("dispatch.gateway").error("the broker map can't be applied", why=str(exc))
