"""gunicorn's configuration, from ``DISPATCH_*``: ``gunicorn -c python:dispatch.gateway.gunicorn_conf 'app:create_app()'``.

Loading the settings here rejects a non-loopback address without API keys before the socket is bound. What holds a lock, a
thread or a socket is imported by the hooks below, after `worker.GatewayWorker.setup` has patched the standard library.
"""

from __future__ import annotations

import gc
import importlib
import ipaddress
import itertools
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn import glogging

from dispatch.config import foreign
from dispatch.config.settings import load, problems_exit
from dispatch.telemetry import logs

_CMD_ARGS = "GUNICORN_CMD_ARGS"


def _without_foreign_variables() -> None:
    """Take libraries' variables out of the environment, and name them.

    gunicorn has read `GUNICORN_CMD_ARGS` before this file, and applies it after: only a start without it has no trace of it. The
    process stays the same one, and has bound nothing yet.

    Raises:
        SystemExit: 2, the variable is what names this file.
    """
    again = _CMD_ARGS in os.environ and "gunicorn" in Path(sys.argv[0]).parts[-2:]
    if again and not any(word.startswith(("-c", "--config")) for word in sys.argv[1:]):
        sys.stderr.write(f"{_CMD_ARGS} is ignored: give -c on the command line\n")
        raise SystemExit(2)
    ignored = foreign.drop(os.environ, foreign.GATEWAY)
    if ignored:
        logs.configure("gateway")
    for reason in ignored:
        logs.logger(__name__).warning("variable ignored", reason=reason)
    if again:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this command, without a shell


_without_foreign_variables()
with problems_exit():
    _settings = load()
_host = f"[{_settings.http_host}]" if ":" in _settings.http_host else _settings.http_host

bind = [f"{_host}:{_settings.http_port}"]
worker_class = "dispatch.gateway.server.worker.GatewayWorker"  # see there and docs/explanation/design-decisions.md
workers = _settings.http_workers

#: That requests are of the scheme https; their connections are made secure by `server_tls`.
certfile = _settings.http_tls_cert or None
keyfile = _settings.http_tls_key or None

#: gunicorn's C parser saves 10 µs a request of 900 to 1,900: not worth that what is installed decides how heads are read.
http_parser = "python"

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

#: gunicorn's default without its variable.
forwarded_allow_ips = "127.0.0.1,::1"

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

#: Open files of a process beside its clients' connections, with those that are about to be closed.
_OTHER_FILES = 1_024

#: Directory in which this gateway's processes share metrics; new at each start, so that it has no counts of an earlier one.
_metrics_directory = ""


def on_starting(server: Any) -> None:
    """Runs before the address is bound and the first worker is forked.

    Imports the modules once: clients would wait in the backlog while each worker imports them on a busy machine. Only
    `create_app`, in each worker, starts threads and connections.
    """
    global _metrics_directory  # noqa: PLW0603 - gunicorn calls functions by their names
    _raise_file_limit()
    _install()
    gc.disable()  # modules stay: a fifth of the time would go into collections that find nothing
    importlib.import_module(server.app.app_uri.partition(":")[0])
    gc.freeze()
    gc.enable()
    _metrics_directory = tempfile.mkdtemp(prefix="robot-dispatch-metrics-")


def _raise_file_limit() -> None:
    """Each connection is an open file, and the usual limit is 1,024: raise it as far as the system allows."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _settings.http_connections + _OTHER_FILES
    if limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most), most))


def _install() -> None:
    """Have gunicorn read requests, and end connections, by this gateway's rules."""
    from dispatch.gateway.server import closing, exchanges, protocol_errors, wire  # noqa: PLC0415 - after the patch

    protocol_errors.install()
    closing.install()
    exchanges.install()
    wire.install(
        wire.Limits(
            head=_settings.http_head_timeout,
            head_bytes=_settings.http_head_bytes,
            body=_settings.http_body_timeout,
            body_rate=_settings.http_body_rate,
            idle=keepalive,
            write=_settings.http_write_timeout,
            drain=_settings.http_drain_timeout,
            drain_bytes=_settings.http_drain_bytes,
        )
    )


def pre_fork(server: Any, worker: Any) -> None:
    """Assign the lowest free slot: the successor of a dead worker continues its counts."""
    taken = {getattr(other, "slot", None) for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Runs in the worker, before the application is built."""
    from dispatch.gateway.server import connections, server_tls  # noqa: PLC0415 - after the patch
    from dispatch.telemetry import metrics  # noqa: PLC0415 - the same

    del server
    metrics.share(_metrics_directory, f"slot{worker.slot}")
    worker.tls = None
    if certfile:
        files = server_tls.ServerFiles(certfile, keyfile or "", _settings.http_tls_client_ca)
        worker.tls = server_tls.ServerTls(files, _settings.http_head_timeout)
    worker.connections = connections.Connections(
        connections.ConnectionLimits(
            most=_settings.http_connections,
            a_peer=_settings.http_peer_connections,
            exempt=[ipaddress.ip_network(one) for one in _settings.http_proxies],
        ),
        secure=worker.tls is not None,
    )


def post_worker_init(worker: Any) -> None:
    """Runs in the worker, after the application is built: long polls end when the worker shuts down."""
    from dispatch.gateway.http import long_poll  # noqa: PLC0415 - after the patch

    worker.wsgi.extensions[long_poll.ENDING] = lambda: not worker.alive


def on_exit(server: Any) -> None:
    """Runs in the master at exit."""
    del server
    shutil.rmtree(_metrics_directory, ignore_errors=True)
