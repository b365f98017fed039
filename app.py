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
from dispatch.broker.model import BrokerMap
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.control.send_now import SendNow
from dispatch.control.service import ControlService
from dispatch.control.signalling import Signaller
from dispatch.deadletters.bulk import BulkRedrives
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.admission.allowance import Allowances
from dispatch.gateway.admission.depth import DepthReader
from dispatch.gateway.admission.guard import LaneGuards
from dispatch.gateway.admission.key_watch import KeyWatch
from dispatch.gateway.admission.quota import Quota
from dispatch.gateway.admission.readiness import Readiness, broker_check, key_checks, store_check
from dispatch.gateway.application import build
from dispatch.gateway.http.key_source import KeySource
from dispatch.gateway.parts import Parts
from dispatch.gateway.server import pacing
from dispatch.maintenance.restart_watch import RestartWatch
from dispatch.protocol import delays
from dispatch.schedules.service import ScheduleService
from dispatch.schedules.ticks import Ticks
from dispatch.store.audit import AuditLog
from dispatch.store.cancellations import Cancellations
from dispatch.store.children import ChildEntries
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.console_sessions import EndedSessions
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.handovers import Handovers
from dispatch.store.history import History
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.jobs import Jobs
from dispatch.store.key_usage import KeyUsage
from dispatch.store.oldest import Oldest
from dispatch.store.pauses import HeldTasks, Pauses
from dispatch.store.rates import Rates
from dispatch.store.saved_views import SavedViews
from dispatch.store.schedules import ScheduleStore
from dispatch.store.scripts import RedisHandle
from dispatch.store.signals import Signals
from dispatch.store.task_counts import TaskCounter
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import WorkerRegistry
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submitter
from dispatch.submission.webhooks import WebhookSubmitter
from dispatch.tasktypes.builtin import BUILTIN
from dispatch.tasktypes.ladders import Ladders
from dispatch.telemetry import logs, tracing


def create_app(settings: Settings | None = None) -> flask.Flask:
    """Make the gateway.

    Args:
        settings: read from ``DISPATCH_*`` by default.

    Returns:
        The WSGI application; ``app.extensions["close"]()`` ends its threads and connections.

    Raises:
        ConfigurationError: the settings that were given don't fit.
        SystemExit: 2, those of the environment are wrong; every problem is on standard error.
    """
    if settings is None:
        with dispatch.config.settings.problems_exit():
            settings = dispatch.config.settings.load()
    types, wanted = tasktypes.load(tasks), topology.broker_map(settings)
    every = {**types, **BUILTIN}
    ladders = Ladders.of_types(settings.ladder, every.values())
    celery = celery_client.create(settings, every, wanted)
    logs.configure("gateway")
    if tracing.start("gateway") and (recording := tracing.backend()) is not None:
        celery.set_default()  # where the instrumentation looks a task up when its message is made
        recording.instrument_tasks()
    redis = RedisHandle(
        settings, timeout=settings.store_timeout, connections=settings.http_threads, share=True, pace=pacing.wait
    )
    keys = KeySource.from_settings(settings)
    store, idempotency = TaskStore(redis, settings), IdempotencyKeys(redis, settings)
    publisher, later = _publisher(settings, wanted), _later(settings)
    sender = SendNow(store, Handovers(redis), publisher, settings.sealing)
    guard = LaneGuards(settings.depth_limits, settings.lanes)
    reader, *readers = _depth_readers(guard, settings)
    checks = {"broker": broker_check(reader, publisher), "store": store_check(store), **key_checks(keys)}
    readiness, watch = Readiness(checks), KeyWatch(keys, KeyUsage(redis))
    restarts = RestartWatch(redis)
    submitter = Submitter(
        store,
        idempotency,
        publisher,
        celery.tasks,
        ladders,
        sealing=settings.sealing,
        later=later,
        shards=settings.shards,
    )
    webhooks = WebhookSubmitter(submitter, store, types)
    app = build(
        Parts(
            settings=settings,
            keys=keys,
            types=types,
            ladders=ladders,
            tasks=store,
            counts=TaskCounter(redis, settings).counts,
            submitter=submitter,
            schedules=_schedules(settings, redis, store, submitter),
            webhooks=webhooks,
            idempotency=idempotency,
            dead_letters=DeadLetterService(
                store,
                DeadLetterRecords(redis, settings),
                publisher,
                ladders,
                sealing=settings.sealing,
                shards=settings.shards,
            ),
            signaller=Signaller(store, Signals(redis), sender, settings.sealing),
            control=ControlService(
                store,
                Cancellations(redis, settings, tasktypes.undoing(types.values())),
                sender,
                ended=webhooks.announce,
            ),
            bulk=BulkRedrives(redis),
            jobs=Jobs(redis),
            audit=AuditLog(redis, settings),
            pauses=Pauses(redis),
            held=HeldTasks(redis),
            concurrency=ConcurrencyKeys(redis, lease=settings.lease),
            rates=Rates(redis, lease=settings.lease),
            guard=guard,
            meter=Quota(redis, settings),
            allowance=Allowances(store.usage, settings).of,
            readiness=readiness,
            queues=functools.partial(queue_stats.snapshot, wanted, settings, depth_limits=settings.depth_limits),
            workers=WorkerRegistry(redis).present,
            ended_sessions=EndedSessions(redis),
            ages=Oldest(redis).ages,
            history=History(redis),
            views=SavedViews(redis),
        )
    )
    publisher.start()
    for each in (reader, *readers):
        each.start()
    app.extensions["wake"] = redis.wake
    watch.start()
    restarts.start()
    closing = [each.close for each in (reader, *readers)]
    _close_with(
        app,
        readiness.close,
        watch.stop,
        restarts.stop,
        *closing,
        publisher.close,
        later.close,
        redis.close,
        tracing.stop,
    )
    return app


def _schedules(settings: Settings, redis: RedisHandle, tasks: TaskStore, submitter: Submitter) -> ScheduleService:
    once = OnceSubmitter(submitter, tasks, ChildEntries(redis), settings)
    ticks = Ticks(once, longest_delay=delays.longest(settings.delay_levels))
    return ScheduleService(ScheduleStore(redis), ticks, submitter)


def _depth_readers(guard: LaneGuards, settings: Settings) -> list[DepthReader]:
    """One for each lane, the default one first."""
    return [
        DepthReader(
            guard.of_queue(queues[0]),
            DepthGauge(settings, queues),
            functools.partial(ack_rate, settings, queues),
            of_all=guard,
        )
        for queues in settings.lane_queues.values()
    ]


def _publisher(settings: Settings, wanted: BrokerMap) -> Publisher:
    """The gateway's, which applies the topology before it uses a new connection."""
    declare = functools.partial(provision.declare_at, wanted=wanted, settings=settings)
    return Publisher(
        settings.address("gateway"),
        timeout=settings.confirm_timeout,
        on_open=declare if settings.apply_topology else None,
        keys=settings.signing,
    )


def _later(settings: Settings) -> Publisher:
    """For delayed tasks; it connects at the first of them, which waits for that."""
    seconds = settings.confirm_timeout
    return Publisher(settings.address("gateway"), timeout=seconds, connect_timeout=2 * seconds, keys=settings.signing)


def _close_with(app: flask.Flask, *closers: Callable[[], None]) -> None:
    """End threads and connections with the process, or earlier by ``app.extensions["close"]()``."""

    def close() -> None:
        atexit.unregister(close)
        for one in closers:
            one()

    app.extensions["close"] = close
    atexit.register(close)


if __name__ == "__main__":
    command = "gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'"
    raise SystemExit(f"start the gateway with `{command}`, or everything with `make up`")
