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
import select
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
        self._doors = threading.Lock()  # one refuses or admits at a time
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.admit()

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
        """Refuse new connections, as a server that is down does; every one accepted before is an open one now."""
        with self._doors:
            listener, self._listener = self._listener, None
            if listener:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread, which closes it
                self._acceptor.join()

    def admit(self) -> None:
        """Accept connections again, on the same port; a closed proxy stays closed."""
        with self._doors:
            if self._listener is None and not self._closed:
                self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
                self._listener.setblocking(False)
                self.port = self._listener.getsockname()[1]
                self._acceptor = self._start(self._accept, self._listener)

    def cut(self) -> None:
        """Break every open connection, both ends getting a reset.

        Open is what the client takes for open: also a connection that the kernel has accepted and the proxy has not
        yet, and one whose way to the server is still being opened.
        """
        listener = self._listener
        with self._change:
            if listener:
                self._take(listener)
            for link in self._links:
                link.break_off()
            self._change.notify_all()

    def close(self) -> None:
        """Stop, and wait for every thread."""
        with self._doors:
            self._closed = True
        self.refuse()
        self.cut()
        deadline = time.monotonic() + 5
        while alive := self._alive():  # a link's first thread may just be starting its second one
            alive[0].join(max(0.0, deadline - time.monotonic()))
            assert time.monotonic() < deadline, [thread.name for thread in self._alive()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, name=f"proxy-{work.__name__}", daemon=True)
        with self._change:
            thread.start()
            self._threads = [*self._alive(), thread]
        return thread

    def _alive(self) -> list[threading.Thread]:
        with self._change:
            return [thread for thread in self._threads if thread.is_alive()]

    def _accept(self, listener: socket.socket) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        with listener:
            while self._take(listener):
                poll.poll()

    def _take(self, listener: socket.socket) -> bool:
        """Accept what waits at the listener; False when that is shut.

        Accepting and registering are one step under the lock: a cut finds a connection at the listener or among the
        links, and no third place exists.
        """
        with self._change:
            while True:
                try:
                    client, _ = listener.accept()
                except BlockingIOError:
                    return True
                except OSError:
                    return False
                client.setblocking(True)
                self.accepted += 1
                link = _Link(client)
                self._links.add(link)
                self._start(self._serve, link)

    def _serve(self, link: "_Link") -> None:
        """Open a link's way to the server, then forward what the client sends."""
        try:
            server = socket.create_connection(self._target, 5)
        except OSError:
            server = None
        if server and link.attach(server):
            self._start(self._pump, link, link.server, link.client, DOWN)
            self._pump(link, link.client, link.server, UP)
        else:
            self._discard(link)

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
            with self._change:
                self._change.notify_all()  # the other pump may be held
        finally:
            if link.ended():
                self._discard(link)

    def _discard(self, link: "_Link") -> None:
        with self._change:
            self._links.discard(link)
        link.close()

    def _gate(self, link: "_Link", direction: str) -> None:
        """Wait until this direction is open: a delay first, so that what was late is held by a hold that came since."""
        with self._change:
            if pause := self._delays[direction]:
                self._change.wait_for(lambda: link.broken, pause)
            self._change.wait_for(lambda: direction not in self._held or link.broken)


class _Link:
    """One client's connection and, once it is attached, its twin to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self._lock = threading.Lock()
        self._pumps = 2
        self.broken = False
        _prompt(client)

    def attach(self, server: socket.socket) -> bool:
        """Add the server's end; False, and that end is closed, when the link was broken meanwhile."""
        server.settimeout(None)
        _prompt(server)
        with self._lock:
            if self.broken:
                server.close()
            else:
                self.server = server
            return not self.broken

    def break_off(self) -> None:
        """Reset both ends; the pumps notice."""
        with self._lock:
            if not self.broken:
                self.broken = True
                for end in filter(None, (self.client, self.server)):
                    with contextlib.suppress(OSError):
                        _linger_no_more(end)
                        end.shutdown(socket.SHUT_RDWR)

    def ended(self) -> bool:
        """Whether the calling pump was the last of the two."""
        with self._lock:
            self._pumps -= 1
            return self._pumps == 0

    def close(self) -> None:
        """Close both ends; a client whose server is away gets a reset."""
        if self.server is None:
            with contextlib.suppress(OSError):
                _linger_no_more(self.client)
        else:
            self.server.close()
        self.client.close()


def _prompt(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer may have reset it
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _linger_no_more(end: socket.socket) -> None:
    """A close sends a reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
