"""A receiver of webhooks on a port of its own: it keeps what it gets, and answers what it is asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from support.ports import free_port


@dataclasses.dataclass(frozen=True)
class Received:
    """One request."""

    headers: Mapping[str, str]  #: names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class WebhookReceiver:
    """What a receiver got, and what it answers: the statuses in turn, then 204."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/events"
        self.got: list[Received] = []
        self.statuses: list[int] = []
        self.location = ""
        self.pause = threading.Event()  #: cleared: it answers nothing
        self.pause.set()

    def answer(self) -> int:
        """The status of the next response."""
        self.pause.wait(60)
        return self.statuses.pop(0) if self.statuses else 204


@contextlib.contextmanager
def running_receiver() -> Iterator[WebhookReceiver]:
    """A receiver; ended at the end."""
    receiver = WebhookReceiver(free_port())

    class _Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(Received({name.lower(): value for name, value in self.headers.items()}, body))
            status = receiver.answer()
            with contextlib.suppress(OSError):  # the sender waits no more
                self.send_response(status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep the log free of requests."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", receiver.port), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.pause.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
