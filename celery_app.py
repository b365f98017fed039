"""Worker entry: ``celery -A celery_app worker | inspect | status | flower | dlq | topology``. Only assembles."""

from __future__ import annotations

import functools
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

import tasks
from dispatch import tasktypes
from dispatch.broker.celery_task import DispatchTask
from dispatch.broker.publisher import Publisher, hooked
from dispatch.config.settings import Settings, load
from dispatch.protocol import names
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logs
from dispatch.worker.bootstrap import LocalRunner, install


def create_celery(settings: Settings) -> Celery:
    """The Celery app with every task type of ``tasks/``.

    Args:
        settings: the process's.

    Returns:
        The app; it has not connected to anything.

    Raises:
        ConfigurationError: a task type doesn't fit the settings.
    """
    logs.configure()
    celery = Celery(
        "robot",
        task_cls=DispatchTask,
        control="dispatch.worker.patches.control_queue:WorkerControl",
        set_as_current=False,
    )
    celery.conf.update(configuration(settings))
    types = dict(tasktypes.load(tasks))
    celery.dispatch_settings = settings
    celery.dispatch_types = types
    runner = LocalRunner(settings)
    for task_type in types.values():
        _register(celery, task_type, runner)
    publisher = Publisher(settings.broker("worker"), timeout=settings.publish_timeout)
    celery.dispatch_producer = functools.partial(hooked, publisher.publish)
    install(celery, settings, types)
    return celery


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration; each line that isn't a name has its reason in docs/explanation/design-decisions.md."""
    work = Queue(
        names.WORK_QUEUE,
        Exchange(names.TASK_EXCHANGE, type="topic", no_declare=True),
        routing_key=f"{names.ROUTING_KEY}.#",
        queue_arguments={"x-queue-type": "quorum"},  # Celery must see a quorum queue, or sets a global prefetch
        no_declare=True,
    )
    return {
        "broker_url": settings.broker("worker"),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 4,
        "broker_heartbeat": 20,
        "broker_channel_error_retry": True,  # otherwise a consumer_timeout ends the worker
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "task_queues": [work],
        "task_create_missing_queues": False,
        "task_default_queue": names.WORK_QUEUE,
        "task_default_exchange": names.TASK_EXCHANGE,
        "task_default_exchange_type": "topic",
        "task_default_routing_key": names.ROUTING_KEY,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,  # the record is the result store
        "task_send_sent_event": False,  # its failure would raise for a task that is queued already
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": settings.prefetch_multiplier,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_detect_quorum_queues": True,
        "worker_soft_shutdown_timeout": settings.soft_shutdown,
        "worker_proc_alive_timeout": 60.0,
        "worker_consumer": "dispatch.worker.consumer:DispatchConsumer",
        "worker_pool": "dispatch.worker.patches.pool:TaskPool",
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def _register(celery: Celery, task_type: TaskType, runner: LocalRunner) -> None:
    @celery.task(name=task_type.name, bind=True, time_limit=task_type.time_limit, typing=False, shared=False)
    def run(self: Any, payload: dict[str, Any]) -> dict[str, Any]:
        return runner.run(task_type, self.request, payload)


@functools.lru_cache(maxsize=1)
def _default() -> Celery:
    return create_celery(load())


def __getattr__(name: str) -> Any:
    """``celery_app.app``: read the settings when somebody asks for the app, not at import."""
    if name in {"app", "celery"}:
        return _default()
    raise AttributeError(name)
