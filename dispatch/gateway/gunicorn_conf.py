"""gunicorn's configuration, from ``DISPATCH_*``: ``gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'``.

Loading the settings here rejects a non-loopback address without API keys before the socket is bound.
"""

from __future__ import annotations

import importlib
import itertools
import shutil
import tempfile
from typing import Any

from gunicorn import glogging

from dispatch.config.settings import load
from dispatch.gateway.http import closing, long_poll, protocol_errors, wire
from dispatch.telemetry import logs, metrics

_settings = load()
_host = f"[{_settings.http_host}]" if ":" in _settings.http_host else _settings.http_host

bind = [f"{_host}:{_settings.http_port}"]
worker_class = "gthread"
workers = _settings.http_workers
threads = _settings.http_threads

#: Threads and connections do not survive a fork: each worker creates its own.
preload_app = False

#: Seconds: longer than the longest long poll, so that a restart interrupts none.
graceful_timeout = 25

#: Seconds: longer than the idle timeout of most clients' and proxies' pools, or reuse races with closing.
keepalive = 75

#: Bytes: a cursor may be 4,096 characters long.
limit_request_line = 8_190

#: Headers by which a client on this machine could set parts of the WSGI environment, `SCRIPT_NAME` for one.
forwarder_headers = ""

#: gunicorn would create it in the home directory.
control_socket_disable = True

#: The gateway writes its own access log.
accesslog = None


class _Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's log lines in the gateway's format."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True
        logs.configure("gateway")


logger_class = _Logger

protocol_errors.install()
closing.install()
wire.install(
    wire.Limits(
        head=_settings.http_head_timeout,
        body=_settings.http_body_timeout,
        drain=_settings.http_drain_timeout,
        drain_bytes=_settings.http_drain_bytes,
    )
)

#: Directory in which this gateway's processes share metrics; new at each start, so that it has no counts of an earlier one.
_metrics_directory = ""


def on_starting(server: Any) -> None:
    """Runs before the address is bound and the first worker is forked.

    Imports the modules once: clients would wait in the backlog while each worker imports them on a busy machine. Only
    `create_app`, in each worker, starts threads and connections.
    """
    global _metrics_directory  # noqa: PLW0603 - gunicorn calls functions by their names
    importlib.import_module(server.app.app_uri.partition(":")[0])
    _metrics_directory = tempfile.mkdtemp(prefix="robot-dispatch-metrics-")


def pre_fork(server: Any, worker: Any) -> None:
    """Assign the lowest free slot: the successor of a dead worker continues its counts."""
    taken = {getattr(other, "slot", None) for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Runs in the worker, before the application is built."""
    del server
    metrics.share(_metrics_directory, f"slot{worker.slot}")


def post_worker_init(worker: Any) -> None:
    """Runs in the worker, after the application is built: long polls end when the worker shuts down."""
    worker.wsgi.extensions[long_poll.ENDING] = lambda: not worker.alive


def on_exit(server: Any) -> None:
    """Runs in the master at exit."""
    del server
    shutil.rmtree(_metrics_directory, ignore_errors=True)
