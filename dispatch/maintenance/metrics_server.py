"""A worker's own HTTP port, where its metrics are scraped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import start_http_server

from dispatch.background import Background
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Seconds between two tries to bind the port: children of a worker that was killed hold it until they are gone.
BIND_INTERVAL = 1.0

#: Seconds: there is nothing to repeat once the port is bound.
_DONE = 3_600.0


class MetricsServer(Background):
    """Serves metrics on threads; without the port the worker works all the same.

    Args:
        host: address to bind.
        port: to bind.
        collectors: read at each scrape, besides the instruments.
    """

    def __init__(self, host: str, port: int, collectors: Iterable[Any]) -> None:
        super().__init__("metrics-port", interval=BIND_INTERVAL)
        self._host, self._port = host, port
        self._registry = metrics.registry(*collectors)
        self._server: Any = None

    def step(self) -> float | None:
        """Bind the port; tried again while it is taken.

        Raises:
            OSError: it is taken.
        """
        if self._server is None:
            self._server, _ = start_http_server(self._port, self._host, self._registry)
            log.info("metrics are served", host=self._host, port=self._port)
        return _DONE

    def stop(self, wait: float = 0.0) -> None:
        """Close the port."""
        super().stop(wait)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close_in_child(self) -> None:
        """In a child: close the parent's socket, or it stays bound after the parent's death."""
        if self._server is not None:
            self._server.socket.close()
