"""HTTP entry: ``gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'``, or ``flask --app app run``.

Only assembles. Importing it does nothing; `create_app` returns at once and the connections are made by
threads in the background, so call it after the fork (no ``--preload``).
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable

import flask

import dispatch.config.settings
import tasks
import topology
from dispatch import tasktypes
from dispatch.broker import celery_client, provision, queue_stats
from dispatch.broker.depth import DepthGauge, ack_rate
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.deadletters.bulk import BulkRedrives
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.admission.depth import DepthReader
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.admission.quota import Quota
from dispatch.gateway.admission.readiness import Readiness, broker_check, store_check
from dispatch.gateway.application import Parts, build
from dispatch.gateway.submission import Submitter
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import WorkerRegistry
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logs, tracing


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
    types, wanted = tasktypes.load(tasks), topology.broker_map(settings)
    ladders = Ladders.of_types(settings.ladder, types.values())
    celery = celery_client.create(settings, types, wanted)
    logs.configure("gateway")
    if tracing.start("gateway") and (recording := tracing.backend()) is not None:
        celery.set_default()  # where the instrumentation looks a task up when its message is made
        recording.instrument_tasks()
    redis = RedisHandle(settings, timeout=settings.store_timeout)
    store, idempotency = TaskStore(redis, settings), IdempotencyKeys(redis, settings)
    declare = functools.partial(provision.declare_at, wanted=wanted, settings=settings)
    publisher = Publisher(
        settings.address("gateway"),
        timeout=settings.confirm_timeout,
        on_open=declare if settings.apply_topology else None,
    )
    guard = Guard(settings.queue_depth_limit)
    reader = DepthReader(guard, DepthGauge(settings), functools.partial(ack_rate, settings))
    readiness = Readiness({"broker": broker_check(reader, publisher), "store": store_check(store)})
    app = build(
        Parts(
            settings=settings,
            types=types,
            ladders=ladders,
            tasks=store,
            submitter=Submitter(store, idempotency, publisher, celery.tasks, ladders),
            idempotency=idempotency,
            dead_letters=DeadLetterService(store, DeadLetterRecords(redis, settings), publisher, ladders),
            bulk=BulkRedrives(redis),
            guard=guard,
            spend=Quota(redis, settings).spend,
            readiness=readiness,
            queues=functools.partial(queue_stats.snapshot, wanted, settings, depth_limit=settings.queue_depth_limit),
            workers=WorkerRegistry(redis).present,
        )
    )
    publisher.start()
    reader.start()
    _close_with(app, readiness.close, reader.close, publisher.close, redis.close, tracing.stop)
    return app


def _close_with(app: flask.Flask, *closers: Callable[[], None]) -> None:
    """End threads and connections with the process, or earlier by ``app.extensions["close"]()``."""

    def close() -> None:
        atexit.unregister(close)
        for one in closers:
            one()

    app.extensions["close"] = close
    atexit.register(close)
