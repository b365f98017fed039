"""Assemble what a worker is beside Celery: the router in its main process, a runner in each child, and maintenance."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from celery import bootsteps
from celery.signals import task_prerun, worker_process_init, worker_process_shutdown
from celery.worker import state
from celery.worker.control import Panel

from dispatch import __version__
from dispatch.background import Background
from dispatch.broker import connections
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.control.key_sender import KeySender
from dispatch.control.send_many import SendMany
from dispatch.control.send_now import SendNow
from dispatch.deadletters.janitor import Janitor
from dispatch.deadletters.recorder import DeadLetterRecorder
from dispatch.deadletters.service import DeadLetterService
from dispatch.errors import ConfigurationError
from dispatch.maintenance import history_keeper
from dispatch.maintenance.history_keeper import HistoryKeeper
from dispatch.maintenance.jobs import job_runner
from dispatch.maintenance.key_keeper import KeyKeeper
from dispatch.maintenance.metrics_server import MetricsServer
from dispatch.maintenance.presence import Heartbeat
from dispatch.maintenance.queue_metrics import QueueMetrics
from dispatch.maintenance.rate_keeper import RateKeeper
from dispatch.maintenance.restart_watch import RestartWatch
from dispatch.maintenance.resumer import Resumer
from dispatch.maintenance.schedule_keeper import ScheduleKeeper
from dispatch.maintenance.sweeper import Sweeper
from dispatch.protocol import delays, names
from dispatch.protocol.lanes import Lanes
from dispatch.protocol.message import Copy
from dispatch.store.audit import AuditLog
from dispatch.store.claims import Claims
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.handovers import Handovers
from dispatch.store.history import History
from dispatch.store.holds import Holds
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.pauses import Pauses
from dispatch.store.rates import Rates
from dispatch.store.reminders import Reminders
from dispatch.store.scripts import RedisHandle
from dispatch.store.signals import Signals
from dispatch.store.tasks import TaskStore
from dispatch.store.unsynced import Unsynced
from dispatch.store.workers import WorkerInfo, WorkerRegistry
from dispatch.submission.submitter import Submitter
from dispatch.submission.webhooks import WebhookSubmitter
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType, rates_of, undoing
from dispatch.telemetry import logger, logs, metrics, tracing
from dispatch.worker import tracer
from dispatch.worker.batcher import Batcher
from dispatch.worker.executor import RetryingExecutor
from dispatch.worker.holding import DeliveryHolder, PauseWatch
from dispatch.worker.key_gate import KeyGate, KeyRenewals
from dispatch.worker.lane_consumers import LaneConsumers
from dispatch.worker.leases import Leases
from dispatch.worker.lines import DeliveryLine, LaneLines
from dispatch.worker.loop import LoopBridge
from dispatch.worker.outcomes import FENCE
from dispatch.worker.pace import Pace
from dispatch.worker.patches.shutdown import Shutdown
from dispatch.worker.pools import PoolPlan, check_time_limits, plan
from dispatch.worker.remote_control import NO_EFFECT, SETTING
from dispatch.worker.router import Router
from dispatch.worker.run_metrics import create_series
from dispatch.worker.runner import Runner
from dispatch.worker.server_clock import ServerClock
from dispatch.worker.starter import Starter
from dispatch.worker.submissions import submissions

log = logger(__name__)

#: Seconds for each Redis answer in a worker.
REDIS_TIMEOUT = 1.0

#: Threads of the router's executor.
_EXECUTOR_SIZE = 8


@dataclasses.dataclass
class WorkerParts:
    """What the worker's main process is made of; ``celery.dispatch_worker``."""

    router: Router
    starter: Starter
    shutdown: Shutdown
    pool: PoolPlan
    runs: Runs
    watch: PauseWatch
    holder: DeliveryHolder
    lanes: LaneConsumers
    gate: KeyGate
    replay: Publisher  #: as the user who may write to the task exchange
    send_now: SendNow
    webhooks: Any = None  #: `WebhookSubmitter`, once the worker starts
    consumer: Any = None  #: Celery's, once it is made


def install(celery: Any, worker: Any, name: str, options: Mapping[str, Any]) -> None:
    """Make a Celery app a worker's; nothing connects until the worker starts.

    Args:
        celery: made by `dispatch.broker.celery_client`.
        worker: Celery's, about to be configured.
        name: its node name.
        options: the worker's, as its command line gave them.

    Raises:
        ConfigurationError: a task type doesn't fit the settings, or an option doesn't fit our queues or its pool.
    """
    settings: Settings = celery.dispatch_settings
    pool = plan(options, settings)
    check_control_commands(settings.control_commands)
    logs.identify(service="worker", worker=name)
    worker.quiet = worker.quiet or not sys.stdout.isatty()  # Celery's banner is for people only
    check_time_limits(celery.dispatch_types, settings, pool)
    metrics.register_types(celery.dispatch_types)
    celery.conf.update(connections.celery(settings.address("worker")))
    ladders = Ladders.of_types(settings.ladder, celery.dispatch_types.values())
    redis = RedisHandle(settings, timeout=REDIS_TIMEOUT)
    clock = ServerClock()
    router = _router(redis, ladders, settings, clock)
    runs = Runs(celery, ladders, threads=pool.threads)
    watch = PauseWatch(Pauses(redis), clock)
    replay = Publisher(settings.address("replay"), timeout=settings.publish_timeout, keys=settings.signing)
    tasks = TaskStore(redis, settings)
    send_now = SendNow(tasks, Handovers(redis), replay, settings.sealing)
    send_many = SendMany(tasks, Handovers(redis), replay, settings.sealing)
    gate = _gate(redis, tasks, (send_now, send_many), celery, paused=lambda: watch.paused)
    holder = DeliveryHolder(router, Holds(redis), Handovers(redis), ttl=settings.hold_ttl)
    starter = Starter(router.batcher, router.pace, watch.held_by, _line(settings.lanes, pool, router.pace))
    lanes = LaneConsumers(settings.lane_queues, router.loop)
    watch.readers.append(lanes.read)
    celery.dispatch_worker = WorkerParts(
        router, starter, Shutdown(router.loop), pool, runs, watch, holder, lanes, gate, replay, send_now
    )
    celery.dispatch_run = runs.run
    if pool.threads:
        celery.conf.worker_concurrency = pool.slots
    tracer.prepare(celery.tasks)
    celery.steps["worker"].add(type("DispatchStep", (_DispatchStep,), {"redis": redis}))
    gc.collect()
    gc.freeze()  # the modules stay: collections pass them by, and copy none of their pages in a child


def _line(lanes: Lanes, pool: PoolPlan, pace: Pace) -> DeliveryLine | None:
    """A line for each lane; None where there is one work queue."""
    if not lanes:
        return None
    return LaneLines(lanes.lane_of, lanes=len(lanes.queues), places=pool.most, seconds=pace.seconds)


def check_control_commands(commands: Iterable[str]) -> None:
    """Refuse names that are no remote-control commands, or of commands without an effect.

    Raises:
        ConfigurationError: every such name.
    """
    unknown = [command for command in commands if command not in Panel.data]
    if unknown:
        raise ConfigurationError(f"{SETTING}: no such remote-control command: {', '.join(unknown)}")
    if useless := sorted(NO_EFFECT.intersection(commands)):
        raise ConfigurationError(f"{SETTING}: have no effect here but an OK: {', '.join(useless)}")


def _router(redis: RedisHandle, ladders: Ladders, settings: Settings, clock: ServerClock) -> Router:
    # Waits have a connection of their own, which the first one opens: see `Router`.
    publisher, later = (
        Publisher(settings.address(role), timeout=settings.publish_timeout, keys=settings.signing)
        for role in ("worker", "replay")
    )
    # Leases have a handle of their own: a call that waits for a silent Redis must not delay a renewal.
    own = RedisHandle(settings, timeout=min(REDIS_TIMEOUT, settings.lease / 4))
    # So has the batcher: it shares its one connection, whose answers come in order, with no other part.
    loop, shared = LoopBridge(), RedisHandle(settings, timeout=REDIS_TIMEOUT, share=True)
    return Router(
        claims=Claims(redis, settings),
        handovers=Handovers(redis),
        publisher=publisher,
        later=later,
        batcher=Batcher(Claims(shared, settings), loop.call),
        pace=Pace(),
        leases=Leases(Claims(own, settings), lease=settings.lease),
        ladders=ladders,
        executor=RetryingExecutor(min(_EXECUTOR_SIZE, settings.prefetch)),
        loop=loop,
        deadline=settings.deadline,
        lost_runs=settings.lost_runs,
        longest_wait=delays.longest(settings.delay_levels),
        cancel_grace=settings.cancel_grace,
        sealing=settings.sealing,
        clock=clock,
    )


def _gate(
    redis: RedisHandle,
    tasks: TaskStore,
    senders: tuple[SendNow, SendMany],
    celery: Any,
    *,
    paused: Callable[[], Collection[str]],
) -> KeyGate:
    send_now, send_many = senders
    settings: Settings = celery.dispatch_settings
    types: Mapping[str, TaskType] = celery.dispatch_types
    # As leases: a call that waits for a silent Redis must not delay a renewal.
    own = RedisHandle(settings, timeout=min(REDIS_TIMEOUT, settings.lease / 4))
    keys, rates = ConcurrencyKeys(redis, lease=settings.lease), Rates(redis, lease=settings.lease)
    return KeyGate(
        keys,
        KeySender(keys, send_now),
        KeyRenewals(ConcurrencyKeys(own, lease=settings.lease), lease=settings.lease),
        keeper=RateKeeper(rates, rates_of(types), send_many, paused),
        limits={name: each.limits for name, each in types.items() if each.limits is not None},
        record=tasks.get,
        margin=settings.queue_ttl + settings.lease,
    )


def _keeper(redis: RedisHandle, tasks: TaskStore, send_now: SendNow, settings: Settings) -> KeyKeeper:
    keys = ConcurrencyKeys(redis, lease=settings.lease)
    return KeyKeeper(keys, KeySender(keys, send_now), tasks)


class _DispatchStep(bootsteps.StartStopStep):
    """Starts router and maintenance once the pool's first children are there, so that these inherit no threads."""

    requires = ("celery.worker.components:Pool",)
    redis: RedisHandle

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._publisher: Publisher | None = None
        self._threads: list[Background] = []
        self._server: MetricsServer | None = None

    def start(self, parent: Any) -> None:
        """Start before the consumer does."""
        app, settings = parent.app, parent.app.dispatch_settings
        for reason in getattr(app, "dispatch_ignored", ()):
            log.warning("variable ignored", reason=reason)
        for note in getattr(app, "dispatch_notes", ()):
            log.warning("settings of a stack", reason=note)
        app.dispatch_worker.shutdown.install()
        tracing.start("worker")
        if app.dispatch_worker.pool.threads:
            app.dispatch_worker.runs.prepare()
        app.dispatch_worker.router.start()
        app.dispatch_worker.gate.start()
        app.dispatch_worker.watch.prime()
        self._publisher = app.dispatch_worker.replay
        self._publisher.start()
        app.dispatch_worker.webhooks = self._webhooks(app, app.dispatch_worker.router.ladders, self._publisher)
        app.dispatch_worker.holder.ended = app.dispatch_worker.webhooks.ended
        self._threads = self._maintenance(parent, app.dispatch_worker.router, self._publisher, settings)
        for thread in self._threads:
            thread.start()

    def _webhooks(self, app: Any, ladders: Ladders, publisher: Publisher) -> WebhookSubmitter:
        """What submits the deliveries of webhooks, for the main process's executor and the recorder."""
        settings: Settings = app.dispatch_settings
        tasks, keys = TaskStore(self.redis, settings), IdempotencyKeys(self.redis, settings)
        submitter = Submitter(
            tasks, keys, publisher, app.tasks, ladders, sealing=settings.sealing, shards=settings.shards
        )
        return WebhookSubmitter(submitter, tasks, app.dispatch_types)

    def _maintenance(self, parent: Any, router: Router, publisher: Publisher, settings: Settings) -> list[Background]:
        """The threads beside the runs: sweeper, recorder, janitor, keeper of schedules, heartbeat, metrics."""
        redis, ladders, parts = self.redis, router.ladders, parent.app.dispatch_worker
        tasks, dead_letters = TaskStore(redis, settings), DeadLetterRecords(redis, settings)
        send_many = SendMany(tasks, Handovers(redis), publisher, settings.sealing)
        restarts = RestartWatch(redis, router.batcher.unsynced, *parts.runs.unsynced)
        threads: list[Background] = [
            Sweeper(
                tasks=tasks,
                claims=Claims(redis, settings),
                handovers=Handovers(redis),
                dead_letters=dead_letters,
                reminders=Reminders(redis),
                send=functools.partial(_send, router, publisher),
                settings=settings,
                steady=restarts.steady,
                ended=parts.webhooks.announce,
            ),
            DeadLetterRecorder(
                settings.address("worker"),
                dead_letters,
                ladders,
                settings.signing,
                ended=functools.partial(parent.app.dispatch_worker.webhooks.ended, dead=True),
            ),
            Janitor(
                redis,
                settings.address("replay"),
                DeadLetterService(tasks, dead_letters, publisher, ladders),
                tasks=tasks,
                records=dead_letters,
                ladders=ladders,
                audit=AuditLog(redis, settings).add,
                interval=min(1.0, settings.sweep_interval),
                keys=settings.signing,
            ),
            job_runner(
                redis,
                publisher,
                ladders,
                settings,
                undoing=undoing(parent.app.dispatch_types.values()),
                ended=parts.webhooks.announce,
            ),
            self._schedules(parent.app, publisher, ladders),
            parts.watch,
            Resumer(redis, send_many, lambda: parts.watch.paused, rate=settings.resume_rate),
            parts.gate.renewals,
            _keeper(redis, tasks, parts.send_now, settings),
            *([parts.gate.keeper] if rates_of(parent.app.dispatch_types) else []),
            Heartbeat(WorkerRegistry(redis), functools.partial(_info, parent, int(time.time() * 1_000))),
            HistoryKeeper(History(redis), history_keeper.totals),
            restarts,
        ]
        if settings.worker_metrics_port:
            threads += self._serve_metrics(parent.app, settings)
        return threads

    def _schedules(self, app: Any, publisher: Publisher, ladders: Ladders) -> ScheduleKeeper:
        made = submissions(app, self.redis, publisher, ladders)
        return ScheduleKeeper(made.store, made.tasks, made.ticks, interval=app.dispatch_settings.sweep_interval)

    def _serve_metrics(self, app: Any, settings: Settings) -> list[Background]:
        create_series(rung.name for rung in settings.ladder.rungs)
        queues = QueueMetrics(self.redis, app.dispatch_map, settings, rates_of(app.dispatch_types))
        self._server = MetricsServer(settings.worker_metrics_host, settings.worker_metrics_port, [queues])
        worker_process_init.connect(self._close_in_child)
        return [queues, self._server]

    def _close_in_child(self, **_: Any) -> None:
        if self._server is not None:
            self._server.close_in_child()

    def stop(self, parent: Any) -> None:
        """Stop after the pool has: what its processes still report is recorded, handed over and acked."""
        parent.pool.stop()  # Celery would do so afterwards
        self.terminate(parent)

    def terminate(self, parent: Any) -> None:
        """Stop; the pool has been stopped, or is not waited for."""
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.stop(wait=2 * REDIS_TIMEOUT if isinstance(thread, Heartbeat) else 0.0)
        if self._publisher is not None:
            self._publisher.close()
        parent.app.dispatch_worker.gate.stop()
        parent.app.dispatch_worker.router.stop()
        parent.app.dispatch_worker.runs.close()
        tracing.stop()


def _send(router: Router, publisher: Publisher, copy: Copy) -> None:
    """Each user may write to its own exchanges only: a sweeper's copy may go to any of the three."""
    if copy.exchange == names.TASK_EXCHANGE:
        publisher.publish(copy.message, copy.exchange, copy.routing_key)
    else:
        router.publish(copy)


def _info(worker: Any, started: int) -> WorkerInfo:
    """A worker as its main process is now."""
    return WorkerInfo(
        name=worker.hostname,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        processes=worker.pool.num_processes,
        active=len(state.active_requests),
        reserved=len(state.reserved_requests),
        done=dict(state.total_count),
        started_at=started,
    )


class Runs:
    """The runner of this process: made anew in each child, since connections don't survive a fork; one for all threads.

    Args:
        celery: the worker's app.
        ladders: of the task types.
        threads: the worker runs tasks in its main process.
    """

    def __init__(self, celery: Any, ladders: Ladders, *, threads: bool) -> None:
        self._celery = celery
        self._settings: Settings = celery.dispatch_settings
        self._ladders = ladders
        self._threads = threads
        self._runner: Runner | None = None
        self._publisher: Publisher | None = None
        self.unsynced: list[Unsynced] = []  #: of its Redis handle, where that is the main process's
        if not threads:
            worker_process_init.connect(self._forked, weak=False)

    def _forked(self, **_: Any) -> None:
        # The pool grows when a message comes: that child's lines would all carry this message's fields.
        logs.clear()
        if tracing.start("worker"):
            worker_process_shutdown.connect(_stop_traces, weak=False)
        self.prepare()

    def prepare(self) -> None:
        """Make it, once this process records its traces."""
        if (recording := tracing.backend()) is not None:
            task_prerun.connect(_expect_span, weak=False)  # before the instrumentation, which begins the span
            recording.instrument_tasks()
            recording.instrument_http()
        # A child is ended at any point of its code, also in the middle of what others share; a thread never is.
        redis = RedisHandle(self._settings, timeout=REDIS_TIMEOUT, share=self._threads)
        self.unsynced = [redis.unsynced] if self._threads else []
        publisher = self._publisher = Publisher(  # it connects at the first task that a handler submits
            self._settings.address("replay"),
            timeout=self._settings.publish_timeout,
            connect_timeout=self._settings.publish_timeout,
            keys=self._settings.signing,
        )
        made = submissions(self._celery, redis, publisher, self._ladders)
        claims = Claims(redis, self._settings)
        self._runner = Runner(
            claims,
            self._ladders,
            self._settings.handlers(),
            made.children,
            signals=Signals(redis),
            internal=made.internal,
            callbacks=self._settings.callback_urls,
            sealing=self._settings.sealing,
            longest_wait=delays.longest(self._settings.delay_levels),
        )

    def close(self) -> None:
        """End its connection to RabbitMQ."""
        if self._publisher is not None:
            self._publisher.close()

    def run(self, task_type: TaskType, request: Any, payload: Any) -> dict[str, Any]:
        """See `Runner.run`."""
        assert self._runner is not None  # noqa: S101 - for the type checker
        return self._runner.run(task_type, request, payload)


def _expect_span(task: Any, **_: Any) -> None:
    """A run's span has its fence for an id: the main process knows it without a message from the child."""
    tracing.expect(task.request.get(FENCE) or "")


def _stop_traces(**_: Any) -> None:
    tracing.stop()
