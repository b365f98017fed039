"""The HTTP server for a worker's metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from prometheus_client import start_http_server

from dispatch.telemetry import logger, metrics

log = logger("dispatch.metrics")

#: Seconds between two attempts to bind the port: children of a killed worker hold it until they end.
BIND_RETRY = 1.0


class MetricsServer:
    """Serves metrics on threads; the worker runs without it while the port is taken.

    Args:
        host: address to bind.
        port: port to bind.
        collectors: collected at each scrape, besides the instruments.
    """

    def __init__(self, host: str, port: int, collectors: Iterable[Any]) -> None:
        self._host, self._port = host, port
        self._registry = metrics.registry(*collectors)
        self._server: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._open, name="metrics-port", daemon=True)

    def start(self) -> None:
        """Start the thread that binds the port."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def leave(self) -> None:
        """In a child: close the inherited socket, or the port stays bound after the parent's death."""
        if self._server is not None:
            self._server.socket.close()

    def _open(self) -> None:
        logged = False
        while not self._stop.is_set():
            try:
                self._server, _ = start_http_server(self._port, self._host, self._registry)
            except OSError as exc:
                if not logged:
                    log.warning(
                        "binding the metrics port failed, retrying", host=self._host, port=self._port, reason=str(exc)
                    )
                logged = True
                self._stop.wait(BIND_RETRY)
            else:
                log.info("serving metrics", host=self._host, port=self._port)
                return
