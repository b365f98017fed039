"""gunicorn's worker of the gateway: one thread in which each connection is a greenlet, so that one that waits costs memory only.

This module and what it imports are loaded before the standard library is patched: everything of ours that holds a lock, a
thread or a socket is imported later, by gunicorn's hooks (`dispatch.gateway.gunicorn_conf`) and by the application.
"""

from __future__ import annotations

import collections
import functools
import gc
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey, socket
from gevent.lock import BoundedSemaphore
from gevent.server import StreamServer
from gevent.threadpool import ThreadPool
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

if TYPE_CHECKING:
    from dispatch.gateway.server.connections import Connections
    from dispatch.gateway.server.server_tls import ServerTls

#: Key in `flask.Flask.extensions` of a callable that has everything that waits look up: `dispatch.store.scripts.RedisHandle.wake`.
WAKE = "wake"

#: Seconds between two signs of life to gunicorn's master, and within which a signal to end is noticed.
BEAT = 0.5

#: Connections that a process accepts in one turn of its loop: few, so that a burst is spread over the processes (with 16, all of a client's
#: 16 were one's in most bursts, and kept); not one by one, since a turn with many requests is long, and who is not accepted waits behind
#: all who came before.
ACCEPTED = 4

#: Seconds after which the thread of heavy work hands Python's lock back. The thread of the connections gives it away at each
#: system call, some thirty times a request, and gets it back only then; Python's default is 5 ms.
SWITCH = 0.0005

#: Objects that a process makes, beyond those that it has freed, before the youngest are searched for cycles; Python's default is 700.
#: Few of a request's are in one. What the application is made of is never searched again.
GARBAGE = 20_000

#: Highest priority of an event loop's watcher: an idle one of it is called in each pass, not only once nothing else is ready.
_FIRST = 2

#: Seconds between two looks at what is still under way after a signal to end.
_LOOK = 0.05


class GatewayWorker(GeventWorker):  # type: ignore[misc]
    """Serves connections within the limits of its process; `gunicorn_conf` gives it `connections`."""

    connections: Connections
    tls: ServerTls | None  #: of HTTPS
    sockets: list[Any]

    _direct: Any = None  #: of the application, see `dispatch.gateway.server.exchanges`

    @classmethod
    def setup(cls) -> None:
        """Called by gunicorn in the master, which then imports the application: nothing of it may hold an unpatched lock.

        The master itself forks and waits for signals by what the patch leaves alone, or what it had before.
        """
        with warnings.catch_warnings():
            # gunicorn has imported ssl already; nothing has made a connection yet.
            warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
            monkey.patch_all(os=False, signal=False, subprocess=False)

    def patch(self) -> None:
        """In the worker: the listeners, which the master has made without the patch, wait in the loop as well."""
        self.sockets = [socket.socket(one.FAMILY, socket.SOCK_STREAM, fileno=one.sock.detach()) for one in self.sockets]

    def timeout_ctx(self) -> Any:
        """No deadline beside those of `dispatch.gateway.server.wire`, which distinguish an idle connection from a slow one."""
        return gevent.Timeout(None, exception=False)

    def run(self) -> None:
        """Accept until a signal to end comes; then finish what is under way, within gunicorn's `graceful_timeout`."""
        from dispatch.gateway.http import heavy  # noqa: PLC0415 - after the patch
        from dispatch.gateway.server import pacing  # noqa: PLC0415 - after the patch

        # gunicorn looks each of a dozen settings up by name in each request; from here on none changes.
        self.cfg.__dict__ |= {name: setting.get() for name, setting in self.cfg.settings.items()}
        self._direct = getattr(self.wsgi, "carry_out", None)
        heavy.install(ThreadPool(1).apply)
        sys.setswitchinterval(SWITCH)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])
        pacing.install(Turns().wait, functools.partial(gevent.sleep, 0))
        servers = [StreamServer(one, handle=functools.partial(self.handle, one)) for one in self.sockets]
        for server in servers:
            if self.cfg.workers > 1:
                server.max_accept = ACCEPTED
            server.start()
        while self.alive:
            self.notify()
            gevent.sleep(BEAT)
        for server in servers:
            server.close()
        self._finish()

    def _finish(self) -> None:
        wake = self.wsgi.extensions.get(WAKE)
        if wake is not None:
            wake()  # long polls and streams, which then see that the process ends
        end = time.monotonic() + self.cfg.graceful_timeout
        while self.connections.count and time.monotonic() < end:
            self.connections.end_idle()
            self.notify()
            gevent.sleep(_LOOK)
        if self.connections.count:
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            gevent.killall(list(self.connections.greenlets), timeout=1)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection, from its acceptance to its end."""
        with self.connections.admitted(client, addr, gevent.getcurrent()) as admitted:
            if admitted and (secured := self._secured(client)) is not None:
                AsyncWorker.handle(self, listener, secured, addr)

    def _secured(self, client: Any) -> Any:
        """The client's socket, with HTTPS after its handshake; None when that failed."""
        if self.tls is None:
            return client
        try:
            return self.tls.secure(client)
        except OSError as exc:
            self.connections.abandon(client, exc)
            return None

    def _try_h2c_upgrade(self, *_: Any) -> bool:
        """HTTP/2 is not configured."""
        return False

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """One request; ends the connection when the client does not take the response."""
        from dispatch.gateway.server import connections, pacing  # noqa: PLC0415 - after the patch

        if req.waits and not req.unreader.paced:
            pacing.wait(f"waits {connections.peer(addr)}")
        try:
            if not self._carried_out(listener_name, req, sock, addr):
                super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            self.connections.give_up(sock)
            raise StopIteration from None
        # Whether the client has sent its next request without waiting for the response.
        req.unreader.paced = req.unreader.has_more
        if req.unreader.paced:
            pacing.wait(f"pipelines {connections.peer(addr)}")
        else:
            pacing.give_way()  # nor may one whose bytes come as fast as they are read keep the process to itself

    def _carried_out(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Whether the application could carry the request out directly, and did; ends the connection as gunicorn does."""
        from dispatch.gateway.server import exchanges  # noqa: PLC0415 - after the patch

        if self._direct is None or not isinstance(req, exchanges.PlainRequest) or self.nr + 1 >= self.max_requests:
            return False
        if not self.alive:
            req.force_close()
        base = req.unreader.environ
        if base is None:
            base = req.unreader.environ = exchanges.base_environ(sock, addr, listener_name, self.cfg)
        try:
            if not exchanges.respond(self._direct, req, base):
                return False
        except gevent.GreenletExit:
            raise StopIteration from None
        self.nr += 1
        if req.should_close():
            raise StopIteration
        return True


class Turns:
    """Lines before the one place of each pass: the first of each line stands before it, so that the lines take turns."""

    def __init__(self) -> None:
        self._one = BoundedSemaphore()
        self._lines: dict[str, BoundedSemaphore] = {}
        self._lengths: collections.Counter[str] = collections.Counter()

    def wait(self, name: str = "") -> None:
        """Return when it is this greenlet's turn.

        Args:
            name: of the line.
        """
        line = self._lines.setdefault(name, BoundedSemaphore())
        self._lengths[name] += 1
        try:
            with line:
                _one_a_pass(self._one)
        finally:
            self._lengths[name] -= 1
            if not self._lengths[name]:
                del self._lines[name], self._lengths[name]


def _one_a_pass(one: BoundedSemaphore) -> None:
    """Return for one greenlet in each pass of the loop; `gevent.sleep(0)` lets no bytes arrive in between."""
    with one:
        gevent.idle(_FIRST)
