"""Worker entry: ``celery -A celery_app worker | inspect | status | flower | dlq | topology``. Only assembles."""

from __future__ import annotations

import functools
from typing import Any

from celery import Celery
from celery.signals import celeryd_init

import tasks
import topology
from dispatch import tasktypes
from dispatch.broker import celery_client
from dispatch.cli import refused
from dispatch.config.settings import Settings, load
from dispatch.errors import ConfigurationError


def create_celery(settings: Settings) -> Celery:
    """The Celery app with every task type of ``tasks/``, which becomes a worker's when a worker starts.

    Args:
        settings: the process's.

    Returns:
        The app; it has not connected to anything.

    Raises:
        ConfigurationError: a task type doesn't fit the settings.
    """
    celery = celery_client.create(settings, dict(tasktypes.load(tasks)), topology.broker_map(settings))
    refused.install()
    celeryd_init.connect(functools.partial(_install_worker, celery), weak=False)
    return celery


def _install_worker(celery: Celery, *, sender: str, instance: Any, options: Any, **_: Any) -> None:
    """Imported late: every other command answers without the worker's modules."""
    if instance.app is celery:
        from dispatch.worker import bootstrap  # noqa: PLC0415

        try:
            bootstrap.install(celery, instance, sender, options)
        except ConfigurationError as exc:  # Celery logs any other exception of a receiver, and starts the worker
            raise SystemExit(f"the worker does not start: {exc}") from None


@functools.lru_cache(maxsize=1)
def _default() -> Celery:
    return create_celery(load())


def __getattr__(name: str) -> Any:
    """``celery_app.app``: the settings are read when the app is asked for, not at import."""
    if name in {"app", "celery"}:
        return _default()
    raise AttributeError(name)
