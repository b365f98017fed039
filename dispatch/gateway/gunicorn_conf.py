"""gunicorn's configuration, from ``DISPATCH_*``: ``gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'``.

Reading the settings here refuses a non-loopback address without API keys before anything is bound.
"""

from __future__ import annotations

from typing import Any

from gunicorn import glogging

from dispatch.settings import load
from dispatch.telemetry import logs

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
