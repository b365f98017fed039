"""A TCP proxy with a hand on the wire: holds, delays, refuses and cuts real connections.

::

    with Proxy.to(broker_url) as proxy:
        connect(proxy.url)
        proxy.hold(DOWN)  # the server's answers stop, as on a silent network
        proxy.release()
        proxy.cut()       # every connection breaks
        proxy.refuse()    # and new ones are refused
        proxy.admit()
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit, urlunsplit

UP = "up"  #: client to server
DOWN = "down"  #: server to client

_PORTS = {"amqp": 5672, "redis": 6379, "http": 80}


class Proxy:
    """Forwards a loopback port to a server.

    Args:
        host: the server's address.
        port: the server's port.
        url: the server's URL, if it has one: `url` is the same through the proxy.
    """

    def __init__(self, host: str, port: int, url: str = "") -> None:
        self._target = (host, port)
        self._original = url
        self._change = threading.Condition()
        self._held: set[str] = set()
        self._delays = {UP: 0.0, DOWN: 0.0}
        self._links: set[_Link] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        #: Sees each piece before it is forwarded, ``watch(direction, data)``; may call any verb of the proxy.
        self.watch: Callable[[str, bytes], None] | None = None
        self.accepted = 0  #: connections accepted so far
        self.port = 0
        self._listener = self._listen()

    @classmethod
    def to(cls, url: str) -> Self:
        """A proxy to the server of an ``amqp``, ``redis`` or ``http`` URL."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or _PORTS[parts.scheme], url)

    @property
    def url(self) -> str:
        """The server's URL, through the proxy."""
        parts = urlsplit(self._original)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        with self._change:
            return len(self._links)

    def hold(self, *directions: str) -> None:
        """Let nothing through, not even a close, in these directions (both by default); the bytes are kept."""
        with self._change:
            self._held.update(directions or (UP, DOWN))

    def release(self, *directions: str) -> None:
        """Let everything through again, what was held first."""
        with self._change:
            self._held.difference_update(directions or (UP, DOWN))
            self._change.notify_all()

    def delay(self, seconds: float, *directions: str) -> None:
        """Make each piece this much late, in these directions (both by default); 0 ends it."""
        with self._change:
            self._delays.update(dict.fromkeys(directions or (UP, DOWN), seconds))

    def refuse(self) -> None:
        """Refuse new connections, as a server that is down does."""
        with self._change:
            listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            listener.close()

    def admit(self) -> None:
        """Accept connections again, on the same port."""
        if self._listener is None:
            self._listener = self._listen()

    def cut(self) -> None:
        """Break every open connection, both ends getting a reset."""
        with self._change:
            links = list(self._links)
        for link in links:
            link.break_off()
        with self._change:
            self._change.notify_all()

    def close(self) -> None:
        """StopWalk, and wait for every thread."""
        self._closed = True
        self.refuse()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        assert not alive, alive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._start(self._accept, listener)
        return listener

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name=f"proxy-{work.__name__}", daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            link = _Link(client, server)
            with self._change:
                self._links.add(link)
            self._start(self._pump, link, client, server, UP)
            self._start(self._pump, link, server, client, DOWN)

    def _pump(self, link: "_Link", source: socket.socket, target: socket.socket, direction: str) -> None:
        try:
            while data := source.recv(65_536):
                if self.watch:
                    self.watch(direction, data)
                self._gate(link, direction)
                target.sendall(data)
            self._gate(link, direction)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            link.break_off()
        finally:
            if link.ended():
                link.close()
                with self._change:
                    self._links.discard(link)

    def _gate(self, link: "_Link", direction: str) -> None:
        """Wait until this direction is open."""
        with self._change:
            self._change.wait_for(lambda: direction not in self._held or link.broken)
            pause = self._delays[direction]
        if pause and not link.broken:
            time.sleep(pause)


class _Link:
    """One client's connection and its twin to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._sockets = (client, server)
        self._lock = threading.Lock()
        self._pumps = 2
        self.broken = False
        for end in self._sockets:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def break_off(self) -> None:
        """Reset both ends; the pumps notice."""
        with self._lock:
            if not self.broken:
                self.broken = True
                for end in self._sockets:
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RDWR)

    def ended(self) -> bool:
        """Whether the calling pump was the last of the two."""
        with self._lock:
            self._pumps -= 1
            return self._pumps == 0

    def close(self) -> None:
        for end in self._sockets:
            end.close()


def _reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
