"""gunicorn's configuration, from ``DISPATCH_*``: ``gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'``.

Reading the settings here refuses a non-loopback address without API keys before anything is bound.
"""

from __future__ import annotations

import importlib
import itertools
import shutil
import tempfile
from typing import Any

from gunicorn import glogging

from dispatch.config.settings import load
from dispatch.gateway.http import long_poll as polling
from dispatch.gateway.http import protocol_errors
from dispatch.telemetry import logs, metrics

_settings = load()
_host = f"[{_settings.http_host}]" if ":" in _settings.http_host else _settings.http_host

bind = [f"{_host}:{_settings.http_port}"]
worker_class = "gthread"
workers = _settings.http_workers
threads = _settings.http_threads

#: Threads and connections don't survive a fork: each worker makes its own.
preload_app = False

#: Longer than the longest wait a client may ask for, so that a restart cuts nobody off.
graceful_timeout = 25

#: Idle connections are kept longer than most clients' and proxies' pools do, or reuse races with closing.
keepalive = 75

#: Bytes: a cursor may be 4,096 characters long.
limit_request_line = 8_190

#: It would be written into the home directory.
control_socket_disable = True

#: The gateway writes its own line for each request.
accesslog = None


class _Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's own lines, written as ours are."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True
        logs.configure("gateway")


logger_class = _Logger

protocol_errors.install()

#: Where this gateway's processes share their metrics; new at each start, so that no counts of an earlier one are told.
_shared = ""


def on_starting(server: Any) -> None:
    """Before the first worker, and before the address is bound.

    The modules are imported here, once: a worker that imports them itself keeps clients waiting in the backlog for as
    long as that takes on a busy machine. Only `create_app`, in each worker, starts threads and connections.
    """
    global _shared  # noqa: PLW0603 - gunicorn calls functions by their names
    importlib.import_module(server.app.app_uri.partition(":")[0])
    _shared = tempfile.mkdtemp(prefix="robot-dispatch-metrics-")


def pre_fork(server: Any, worker: Any) -> None:
    """Give a worker the lowest free slot: the successor of a dead one goes on with its counts."""
    taken = {getattr(other, "slot", None) for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """In the worker, before the application is made."""
    del server
    metrics.share(_shared, f"slot{worker.slot}")


def post_worker_init(worker: Any) -> None:
    """In the worker, once the application is made: whoever waits in it hears when the worker must end."""
    worker.wsgi.extensions[polling.ENDING] = lambda: not worker.alive


def on_exit(server: Any) -> None:
    """The master ends."""
    del server
    shutil.rmtree(_shared, ignore_errors=True)
