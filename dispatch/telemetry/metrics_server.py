"""A worker's own HTTP port, where its metrics are scraped."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from prometheus_client import start_http_server

from dispatch.telemetry import logger, metrics

log = logger("dispatch.metrics")

#: Seconds between two tries to bind the port: children of a worker that was killed hold it until they are gone.
BIND_AGAIN = 1.0


class MetricsServer:
    """Serves metrics on threads; without the port the worker works all the same.

    Args:
        host: address to bind.
        port: to bind.
        collectors: told at each scrape, besides the instruments.
    """

    def __init__(self, host: str, port: int, collectors: Iterable[Any]) -> None:
        self._host, self._port = host, port
        self._registry = metrics.registry(*collectors)
        self._server: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._open, name="metrics-port", daemon=True)

    def start(self) -> None:
        """Begin to bind."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def leave(self) -> None:
        """In a child: let go of the parent's socket, or it stays bound after the parent's death."""
        if self._server is not None:
            self._server.socket.close()

    def _open(self) -> None:
        told = False
        while not self._stop.is_set():
            try:
                self._server, _ = start_http_server(self._port, self._host, self._registry)
            except OSError as exc:
                if not told:
                    log.warning(
                        "the metrics port can't be bound yet", host=self._host, port=self._port, reason=str(exc)
                    )
                told = True
                self._stop.wait(BIND_AGAIN)
            else:
                log.info("metrics are served", host=self._host, port=self._port)
                return
