"""Imports what processes of ours import; `support.processes` forks from a process that has imported this."""

import gc
import importlib

NAMES = (
    "celery.app.control",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "celery.worker.control",
    "cronsim",
    "flask",
    "flower.command",
    "httpx",
    "kombu.transport.pyamqp",
    "prometheus_client",
    "pydantic_settings",
    "redis",
    "structlog",
    "uuid_utils",
)

#: Of this project: with what they import, most of what a worker does, and nothing that reads a variable.
OWN = (
    "dispatch.broker.provision",
    "dispatch.broker.publisher",
    "dispatch.broker.queue_stats",
    "dispatch.store.claims",
    "dispatch.store.concurrency",
    "dispatch.store.holds",
    "dispatch.store.jobs",
    "dispatch.store.pauses",
    "dispatch.store.rates",
    "dispatch.store.schedules",
    "dispatch.store.signals",
    "dispatch.store.tasks",
    "dispatch.store.workers",
    "dispatch.tasktypes.builtin",
)

gc.disable()
for _name in (*NAMES, *OWN):
    importlib.import_module(_name)
# No collection of a forked process looks at what is here, nor copies its pages.
gc.freeze()
gc.enable()
