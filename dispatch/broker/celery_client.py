"""The Celery app as a client: its configuration, and every task type as a Celery task. It builds no worker."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery, concurrency
from celery.signals import setup_logging
from kombu import Exchange, Queue

from dispatch.broker import connections
from dispatch.broker.celery_producer import CapturingProducer, capturing
from dispatch.broker.celery_task import DispatchTask, Refused, check_options
from dispatch.broker.model import BrokerMap
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.protocol import names
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logs


class CeleryClient(Celery):
    """Celery with one way out: what is sent by a task's name takes the same as `DispatchTask.apply_async`."""

    dispatch_types: Mapping[str, TaskType]
    dispatch_producer: Callable[[], CapturingProducer]

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Publish a task by its type's name.

        Raises:
            Refused: no such task type, or an option that loses or doubles work here.
        """
        if more:
            raise Refused("send_task takes its options by their names")
        if name not in self.dispatch_types:
            raise Refused(f"there is no task type {name!r}; GET /v1/task-types lists them")
        check_options(options)
        if options.get("task_type") is None:
            return self.tasks[name].apply_async(args, kwargs, **options)
        if options.get("producer") is None:
            raise Refused("send_task takes no task_type")
        return super().send_task(name, args, kwargs, **options)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Our producer, where Celery would take one of its own: for the tasks of a group, for example."""
        return self.dispatch_producer() if producer is None else producer


def create(settings: Settings, types: Mapping[str, TaskType], wanted: BrokerMap) -> Celery:
    """The Celery app with every task type; it has not connected to anything.

    Its attributes ``dispatch_settings``, ``dispatch_types`` and ``dispatch_map`` are for our commands. It has the broker URL of the
    ``control`` role: what `celery inspect`, `celery status` and Flower need. A worker takes its own
    (`dispatch.worker.bootstrap`), and every publish goes through our publisher.

    Args:
        settings: the process's.
        types: the task types by name.
        wanted: the broker map.
    """
    logs.configure()
    concurrency.ALIASES["threads"] = "dispatch.worker.threads.pool:ThreadPool"  # of --pool; Celery's has no time limits
    celery = CeleryClient(
        "robot",
        task_cls=DispatchTask,
        control="dispatch.worker.patches.control_queue:WorkerControl",
        events="dispatch.worker.events:WorkerEvents",
        set_as_current=False,
    )
    celery.conf.update(configuration(settings))
    celery.dispatch_settings = settings
    celery.dispatch_types = types
    celery.dispatch_map = wanted
    celery.dispatch_run = _refuse
    # A chain's next task is published by the child that ran the one before: unstarted here, since threads and locks
    # don't survive a fork.
    publisher = Publisher(settings.address("worker"), timeout=settings.publish_timeout, keys=settings.signing)
    celery.dispatch_producer = functools.partial(capturing, publisher.publish, settings.sealing)
    for task_type in types.values():
        _register(celery, task_type)
    return celery


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration; each line that isn't a name has its reason in docs/explanation/design-decisions.md."""
    exchange = Exchange(names.TASK_EXCHANGE, type="topic", no_declare=True)
    work = [
        Queue(
            name,
            exchange,
            routing_key=f"{names.ROUTING_KEY}.#",
            queue_arguments={"x-queue-type": "quorum"},  # Celery must see a quorum queue, or sets a global prefetch
            no_declare=True,
        )
        for name in settings.work_queues
    ]
    return {
        **connections.celery(settings.address("control")),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 4,
        "broker_heartbeat": 20,
        "broker_channel_error_retry": True,  # otherwise a consumer_timeout ends the worker
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "task_queues": work,
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
        "worker_pool": "dispatch.worker.prefork:TaskPool",
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def _register(celery: Celery, task_type: TaskType) -> None:
    @celery.task(name=task_type.name, bind=True, time_limit=task_type.time_limit, typing=False, shared=False)
    def run(self: Any, payload: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = celery.dispatch_run(task_type, self.request, payload)
        return result

    run.message_templates = {}


def _refuse(task_type: TaskType, _request: Any, _payload: Any) -> dict[str, Any]:
    raise Refused(f"{task_type.name} runs in a worker only: submit it through the gateway")


@setup_logging.connect  # type: ignore[untyped-decorator, unused-ignore]
def _configure_logs(loglevel: int | None = None, **_: Any) -> None:
    """A receiver keeps Celery from configuring the logs itself, in the main process and in each child."""
    logs.configure(level=loglevel or logging.INFO)
