"""Imports the libraries that processes of ours import; `support.processes` forks from a process that has imported this."""

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
    "flask",
    "flower.command",
    "httpx",
    "kombu.transport.pyamqp",
    "prometheus_client",
    "pydantic_settings",
    "redis",
    "structlog",
)

gc.disable()
for _name in NAMES:
    importlib.import_module(_name)
# No collection of a forked process looks at what is here, nor copies its pages.
gc.freeze()
gc.enable()
