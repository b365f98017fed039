"""A threaded server for tests and the command line.

One process, since the state is in its memory; werkzeug's server, since it exposes the socket that a fault closes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

#: Seconds between two checks for a shutdown.
_POLL_INTERVAL = 0.05


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no requests."""


def listen(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """Bind a server; `run` starts serving.

    Args:
        app: the application.
        host: address to bind.
        port: port to bind; 0 chooses a free one.

    Returns:
        The server; ``server_port`` is the port it has bound.

    Raises:
        SystemExit: the port is taken.
    """
    return make_server(host, port, app, threaded=True, request_handler=_Quiet)


def run(server: BaseWSGIServer) -> None:
    """Serve until the server's ``shutdown`` is called from another thread."""
    server.serve_forever(poll_interval=_POLL_INTERVAL)


@contextlib.contextmanager
def serving(app: Flask, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a background thread.

    Args:
        app: the application.
        host: address to bind.
        port: port to bind; 0 chooses a free one.

    Yields:
        The base URL.
    """
    server = listen(app, host, port)
    thread = threading.Thread(target=run, args=(server,), name="robot-simulator", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        if (callbacks := app.extensions.get("callbacks")) is not None:
            callbacks.close()
