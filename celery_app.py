"""Worker entry: ``celery -A celery_app worker | inspect | status | flower | dlq | topology``. Only assembles."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import celeryd_init

import tasks
import topology
from dispatch import tasktypes
from dispatch.broker import celery_client
from dispatch.cli import refused
from dispatch.config import foreign, stack_env
from dispatch.config.settings import Settings, load, problems_exit
from dispatch.errors import ConfigurationError
from dispatch.tasktypes.builtin import BUILTIN

#: Commands that write a log, where they name what they ignore.
_SERVICES = {"worker", "flower"}


def create_celery(settings: Settings) -> Celery:
    """The Celery app with every task type of ``tasks/``, which becomes a worker's when a worker starts.

    Args:
        settings: the process's.

    Returns:
        The app; it has not connected to anything.

    Raises:
        ConfigurationError: a task type doesn't fit the settings.
    """
    types = {**tasktypes.load(tasks), **BUILTIN}
    celery = celery_client.create(settings, types, topology.broker_map(settings))
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
    ignored = foreign.drop(os.environ)  # `celery -b` and its siblings set theirs when the app has been found
    notes = stack_env.adopt(os.environ, Path(__file__).parent)
    with problems_exit():
        celery = create_celery(load())
    celery.dispatch_ignored, celery.dispatch_notes = ignored, notes
    if not _SERVICES & set(sys.argv):
        atexit.register(gc.freeze)  # a third of a command's CPU would be the last collection, of modules
        for line in (*ignored, *notes):
            sys.stderr.write(f"{line}\n")
    return celery


def __getattr__(name: str) -> Any:
    """``celery_app.app``: the settings are read when the app is asked for, not at import."""
    if name in {"app", "celery"}:
        return _default()
    raise AttributeError(name)


if __name__ == "__main__":
    raise SystemExit("start a worker with `celery -A celery_app worker`, or everything with `make up`")
