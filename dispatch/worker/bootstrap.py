"""Assembles what a worker is beside Celery.

The router in its main process, a runner in each child, and the threads that look after what is dead or silent.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import bootsteps
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_process_init,
    worker_process_shutdown,
)
from celery.worker import state

from dispatch import __version__
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.deadletters.recorder import DeadLetterRecorder
from dispatch.deadletters.service import DeadLetterService
from dispatch.deadletters.walk import Janitor
from dispatch.errors import ConfigurationError, DispatchError
from dispatch.maintenance.queue_metrics import QueueMetrics
from dispatch.maintenance.sweeper import Sweeper
from dispatch.protocol import names
from dispatch.protocol.message import Copy
from dispatch.protocol.retry import Rung
from dispatch.store.tasks import TaskStore
from dispatch.store.workers import Heartbeat, WorkerInfo
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger, logs, metrics, tracing
from dispatch.telemetry.metrics_server import MetricsServer
from dispatch.worker.outcomes import FENCE
from dispatch.worker.patches.shutdown import Shutdown
from dispatch.worker.router import Plan, Router
from dispatch.worker.run_metrics import expect_series
from dispatch.worker.runner import Runner

log = logger("dispatch.worker")


@celeryd_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _identify(sender: str, instance: Any, **_: Any) -> None:
    """Say in every line which worker it is; Celery's banner is for people only."""
    logs.identify(service="worker", worker=sender)
    instance.quiet = instance.quiet or not sys.stdout.isatty()


@setup_logging.connect  # type: ignore[untyped-decorator, unused-ignore]
def _log_our_way(loglevel: int | None = None, **_: Any) -> None:
    """A receiver keeps Celery from configuring the logs itself, in main and in each child."""
    logs.configure(level=loglevel or logging.INFO)


def ladder_of(task_type: TaskType, settings: Settings) -> tuple[Rung, ...]:
    """The rungs a type climbs.

    Raises:
        ConfigurationError: it names a rung that isn't declared.
    """
    if task_type.ladder is None:
        return settings.ladder
    declared = {rung.name: rung for rung in settings.ladder}
    unknown = [name for name in task_type.ladder if name not in declared]
    if unknown:
        msg = f"task type {task_type.name}: no rung {', '.join(unknown)} in DISPATCH_LADDER ({', '.join(declared)})"
        raise ConfigurationError(msg)
    return tuple(declared[name] for name in task_type.ladder)


def check_time_limits(types: Mapping[str, TaskType], settings: Settings) -> None:
    """Refuse task types that could outlast what the broker waits for an ack.

    A prefetched message is unacked while all before it run: the hard limit, times the prefetch, by the least number
    of children. RabbitMQ closes a channel whose consumer takes longer than `consumer_timeout`; and a message that is
    older than the queue's TTL when it is requeued goes straight to the DLQ.

    Raises:
        ConfigurationError: every type that is too slow.
    """
    turns = settings.prefetch / settings.concurrency_min
    longest = min(settings.consumer_timeout / 2 / turns, settings.queue_ttl / 2)
    slow = [f"{each.name} ({each.time_limit:g} s)" for each in types.values() if each.time_limit > longest]
    if slow:
        msg = (
            f"time limits must not exceed {longest:g} s, so that {settings.prefetch} prefetched tasks on "
            f"{settings.concurrency_min} processes end within half of DISPATCH_CONSUMER_TIMEOUT and none outlasts half "
            f"of DISPATCH_QUEUE_TTL: {', '.join(slow)}"
        )
        raise ConfigurationError(msg)


class Keeper:
    """Runs sweeper, dead tap and janitor."""

    def __init__(self, settings: Settings, router: Router) -> None:
        self._settings = settings
        self._publisher = Publisher(settings.broker("replay"), timeout=settings.publish_timeout)
        self._router = router
        self._sweeper = Sweeper(settings, send=self._send)
        self._tap = DeadLetterRecorder(settings, max_attempts=lambda name: router.plan(name).max_attempts)
        letters = DeadLetterService(settings, TaskStore(settings, timeout=1.0), self._publisher)
        self._janitor = Janitor(settings, letters)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tidy, name="janitor", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._publisher.start()
        self._sweeper.start()
        self._tap.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop the threads."""
        self._stop.set()
        self._sweeper.stop()
        self._tap.stop()
        self._publisher.close()

    def _send(self, copy: Copy) -> None:
        """Each user may write to its own exchanges only: a sweeper's copy may go to any of the three."""
        if copy.exchange == names.TASK_EXCHANGE:
            self._publisher.publish(copy.message, copy.exchange, copy.routing_key)
        else:
            self._router.send(copy)

    def _tidy(self) -> None:
        while not self._stop.wait(min(1.0, self._settings.sweep_interval)):
            try:
                self._janitor.tidy()
            except DispatchError as exc:
                log.warning("janitor waits", reason=str(exc))
            except Exception as exc:  # noqa: BLE001 - the broker is away; the next look may go better
                log.warning("janitor interrupted", reason=repr(exc))


class DispatchStep(bootsteps.StartStopStep):
    """Starts router and keeper once the pool's first children are there, so that these inherit no threads."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._keeper: Keeper | None = None
        self._watch: QueueMetrics | None = None
        self._port: MetricsServer | None = None
        self._presence: Heartbeat | None = None

    def start(self, parent: Any) -> None:
        """Start before the consumer does."""
        app = parent.app
        app.dispatch_shutdown.install()
        tracing.start("worker")
        app.dispatch_router.start()
        self._keeper = Keeper(app.dispatch_settings, app.dispatch_router)
        self._keeper.start()
        self._presence = Heartbeat(app.dispatch_settings, functools.partial(_look, parent, int(time.time() * 1_000)))
        self._presence.start()
        if app.dispatch_settings.worker_metrics_port:
            self._serve_metrics(app.dispatch_settings)

    def _serve_metrics(self, settings: Settings) -> None:
        expect_series(rung.name for rung in settings.ladder)
        self._watch = QueueMetrics(settings)
        self._watch.start()
        self._port = MetricsServer(settings.worker_metrics_host, settings.worker_metrics_port, [self._watch])
        self._port.start()
        worker_process_init.connect(self._leave_port)

    def _leave_port(self, **_: Any) -> None:
        if self._port is not None:
            self._port.leave()

    def stop(self, parent: Any) -> None:
        """Stop after the pool has."""
        if self._presence is not None:
            self._presence.stop()
        if self._port is not None:
            self._port.stop()
        if self._watch is not None:
            self._watch.stop()
        if self._keeper is not None:
            self._keeper.stop()
        parent.app.dispatch_router.stop()
        tracing.stop()

    terminate = stop


def _look(worker: Any, started: int) -> WorkerInfo:
    """A worker as its main process sees it now."""
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


def install(app: Any, settings: Settings, types: Mapping[str, TaskType]) -> None:
    """Make a Celery app a dispatch worker's app; nothing connects until the worker starts.

    Args:
        app: its tasks are registered already.
        settings: the worker's.
        types: the task types.

    Raises:
        ConfigurationError: a type doesn't fit the settings.
    """
    plans = {name: Plan(ladder_of(task_type, settings)) for name, task_type in types.items()}
    check_time_limits(types, settings)
    metrics.register_types(types)
    publisher = Publisher(settings.broker("worker"), timeout=settings.publish_timeout)
    app.dispatch_router = Router(settings, plans, publisher=publisher)
    app.dispatch_shutdown = Shutdown(app.dispatch_router.loop)
    app.dispatch_consumer = None
    app.steps["worker"].add(DispatchStep)


def _name_run(task: Any, **_: Any) -> None:
    """A run's span has its fence for an id: so the main process knows it without a word from the child."""
    tracing.expect(task.request.get(FENCE) or "")


def _end_lines(**_: Any) -> None:
    logs.clear()


def _end_traces(**_: Any) -> None:
    tracing.stop()


class LocalRunner:
    """The runner of this process: made anew in each child, since connections don't survive a fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner: Runner | None = None
        worker_process_init.connect(self._forked, weak=False)

    def _forked(self, **_: Any) -> None:
        # The pool grows when a message comes: that child would say of all its lines that they are about this message.
        logs.clear()
        task_postrun.connect(_end_lines, weak=False)
        if tracing.start("worker") and (recording := tracing.backend()) is not None:
            task_prerun.connect(_name_run, weak=False)  # before the instrumentation, which begins the span
            recording.instrument_tasks()
            recording.instrument_http()
            worker_process_shutdown.connect(_end_traces, weak=False)
        self._runner = Runner(self._settings)

    def run(self, task_type: TaskType, request: Any, payload: Any) -> dict[str, Any]:
        """See `Runner.run`."""
        if self._runner is None:
            self._runner = Runner(self._settings)
        return self._runner.run(task_type, request, payload)
