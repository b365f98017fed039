"""The one place that makes connections to RabbitMQ's AMQP port. A connection to an ``amqps`` URL verifies chain and host name.

kombu and py-amqp by themselves verify no name, unless each connection brings ``server_hostname``; kombu can fill it in, but
keeps the first host's for all others of a failover. So the scheme ``amqps`` is a transport of ours in every process that
imports this module: what Celery, Flower and `celery -b` connect by themselves goes through it, too.
"""

from __future__ import annotations

import errno
import functools
import select
import socket
import ssl
import struct
import threading
from typing import Any

import amqp
import kombu
from amqp.exceptions import UnexpectedFrame
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.pyamqp import Transport

from dispatch.config.tls import OLDEST, BrokerAddress, Tls, Where

#: py-amqp's options that ours may contain; a URL's own are refused (`dispatch.config.urls`).
_OPTIONS = ("ca_certs", "certfile", "keyfile", "server_hostname")

#: What every TLS connection verifies and agrees on, beside the name.
_ALWAYS: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED, "tls_minimum_version": OLDEST}


#: Bytes that are read at once; fewer on an event loop, which copies the rest for each frame that it takes from it.
_READ, _BULK = 65_536, 16_384

#: A frame: type, channel, size, then so many bytes, and the one at its end.
_FRAME, _FRAME_END = struct.Struct(">BHI"), 0xCE


class BulkTransport(Transport):  # type: ignore[misc, unused-ignore]
    """kombu's transport of ``amqp``: an event loop reads what has arrived at once, and not in three system calls a frame."""

    def on_readable(self, connection: amqp.Connection, loop: Any) -> None:
        """Handle every frame that has arrived."""
        transport = connection.transport
        if not connection.connected or isinstance(transport.sock, ssl.SSLSocket):
            super().on_readable(connection, loop)  # which raises, or reads what OpenSSL keeps as well
            return
        try:
            data = transport.sock.recv(_BULK, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            transport.connected = False
            raise
        if not data:
            transport.connected = False
            raise OSError(errno.ECONNRESET, "RabbitMQ closed the connection")
        transport._read_buffer += data  # noqa: SLF001 - where py-amqp looks first when it waits for an answer
        while connection.transport is transport and (frame := _frame(transport)) is not None:
            connection.on_inbound_frame(frame)


def _frame(transport: Any) -> tuple[int, int, bytes] | None:
    """The next whole frame of what was read. Before it is handled it has left the buffer: its handler may read on."""
    data = transport._read_buffer  # noqa: SLF001
    if len(data) < _FRAME.size:
        return None
    kind, channel, size = _FRAME.unpack_from(data)
    end = _FRAME.size + size
    if len(data) <= end:
        return None
    if data[end] != _FRAME_END:
        raise UnexpectedFrame(f"a frame ends in {data[end]:#04x}")
    transport._read_buffer = data[end + 1 :]  # noqa: SLF001
    return kind, channel, data[_FRAME.size : end]


class TlsTransport(BulkTransport):
    """kombu's transport of ``amqps``: each connection verifies the name of the host that it connects to."""

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        if not (isinstance(client.ssl, dict) and client.ssl):
            client.ssl = dict(_ALWAYS)  # kombu takes an empty one for no TLS, and the plain port

    def establish_connection(self) -> Any:
        """Connect; the client keeps its host and its options, for the next host of a failover."""
        client = self.client
        host, options = client.hostname, client.ssl
        client.ssl = verified(options, host)
        try:
            return super().establish_connection()
        finally:
            client.hostname, client.ssl = host, options


TRANSPORT_ALIASES["amqp"] = f"{__name__}:{BulkTransport.__name__}"
TRANSPORT_ALIASES["amqps"] = f"{__name__}:{TlsTransport.__name__}"


def verified(options: Any, host: str | None) -> dict[str, Any]:
    """py-amqp's TLS options for one connection.

    Args:
        options: made by `_options`; anything else counts as none.
        host: the host of the URL.

    Returns:
        Options with which the chain and the name are verified.
    """
    given = options if isinstance(options, dict) else {}
    own = {name: given[name] for name in _OPTIONS if given.get(name)}
    return {"server_hostname": host or "localhost", **own, **_ALWAYS}


def each(where: Where) -> list[Where]:
    """One for each URL, of the same kind."""
    return [*where.split(";")] if isinstance(where, str) else [*where.each()]


def celery(where: Where) -> dict[str, Any]:
    """Celery's settings of its own connections.

    Args:
        where: what they connect to.
    """
    address = _address(where)
    return {"broker_url": address.urls, "broker_use_ssl": _options(address)}


def connection(where: Where, **options: Any) -> kombu.Connection:
    """A connection to be opened; see `dispatch.broker.provision.connect`.

    Args:
        where: the broker.
        options: kombu's.
    """
    address = _address(where)
    return kombu.Connection(address.urls, ssl=_options(address), **options)


def raw(where: Where, **options: Any) -> amqp.Connection:
    """py-amqp's connection, not opened yet, with the URL's only host.

    Args:
        where: the broker, by one URL.
        options: py-amqp's.
    """
    client = connection(where)
    transport = client.transport
    for name, default in transport.default_connection_params.items():
        if not getattr(client, name, None):
            setattr(client, name, default)
    made = transport.Connection(
        host=client.host,
        userid=client.userid,
        password=client.password,
        login_method=client.login_method,
        virtual_host=client.virtual_host,
        ssl=verified(client.ssl, client.hostname) if isinstance(transport, TlsTransport) else False,
        **options,
    )
    made.client = client
    return made


def _address(where: Where) -> BrokerAddress:
    return BrokerAddress(where) if isinstance(where, str) else where


def _options(address: BrokerAddress) -> dict[str, Any] | bool:
    """For kombu, whose connection is one of TLS as soon as there are options: none for a plain URL."""
    if not address.urls.startswith("amqps:"):
        return False
    tls: Tls = address.tls
    files = {"ca_certs": tls.ca, "certfile": tls.cert, "keyfile": tls.key, "server_hostname": tls.server_name}
    return {**_ALWAYS, **{name: value for name, value in files.items() if value}}


def wait(sock: Any, seconds: float | None = None, *, write: bool = False) -> bool:
    """Wait for a socket, whatever its number: ``select`` takes none above 1,023, which a gateway of many clients reaches.

    Args:
        sock: with a ``fileno``.
        seconds: at most; None is for ever.
        write: wait until it takes bytes instead of until it has some.

    Returns:
        Whether it is ready, or has failed, which the next read or write raises.

    Raises:
        OSError: another thread has closed it.
    """
    number = sock.fileno()
    if number < 0:
        raise OSError(errno.EBADF, "the connection is closed")
    poll = select.poll()
    poll.register(number, select.POLLOUT if write else select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1_000))


class SharedSocket:
    """A TLS socket for one reading and one writing thread: OpenSSL lets only one at a time into a connection.

    The socket itself never blocks; each thread waits outside the lock, in `wait`.

    Args:
        sock: after the handshake.
        write_timeout: seconds the socket may refuse to take bytes.
    """

    def __init__(self, sock: ssl.SSLSocket, write_timeout: float) -> None:
        self._sock = sock
        self._write_timeout = write_timeout
        self._lock = threading.Lock()
        sock.setblocking(False)

    def read(self, size: int) -> bytes:
        """At least one byte; none at the end of the stream."""
        while True:
            try:
                with self._lock:
                    return self._sock.read(size)
            except ssl.SSLWantReadError:
                wait(self._sock)
            except ssl.SSLWantWriteError:
                wait(self._sock, self._write_timeout, write=True)

    def write(self, data: bytes) -> int:
        """How many bytes were taken; raises TimeoutError when none is for too long."""
        while True:
            try:
                with self._lock:
                    return self._sock.write(data)
            except ssl.SSLWantWriteError:
                ready = wait(self._sock, self._write_timeout, write=True)
            except ssl.SSLWantReadError:
                ready = wait(self._sock, self._write_timeout)
            if not ready:
                msg = "the connection takes no bytes"
                raise TimeoutError(msg)

    def unwrap(self) -> SharedSocket:
        """No farewell, which would wait for the other side's."""
        return self

    def fileno(self) -> int:
        """For `wait`."""
        return self._sock.fileno()

    def shutdown(self, how: int) -> None:
        """Wake both threads."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def gettimeout(self) -> float | None:
        """None: as a socket that waits as long as it takes."""
        return None

    def settimeout(self, seconds: float | None) -> None:
        """The threads wait in `wait`."""


def share(connected: amqp.Connection, write_timeout: float) -> None:
    """Let two threads, or greenlets, use an open connection, one that reads and one that writes.

    Args:
        connected: from `raw`, after the handshake and its last synchronous method.
        write_timeout: seconds the socket may refuse to take bytes.
    """
    transport = connected.transport
    if isinstance(transport.sock, ssl.SSLSocket):
        transport.sock = SharedSocket(transport.sock, write_timeout)
        transport._quick_recv = transport.sock.read  # noqa: SLF001 - py-amqp bound it at the handshake
    else:
        transport._write = functools.partial(_send, transport.sock, write_timeout)  # noqa: SLF001 - the same
        transport._quick_recv = functools.partial(_receive, transport.sock)  # noqa: SLF001 - the same


def _receive(sock: Any, _wanted: int) -> bytes:
    """What has arrived, frames after the wanted one as well: py-amqp keeps the surplus, and saves two reads a frame."""
    data: bytes = sock.recv(_READ)
    return data


def _send(sock: Any, seconds: float, data: bytes) -> None:
    """Send everything. ``SO_SNDTIMEO`` would bound it in a thread, but not in a greenlet, whose socket never blocks."""
    plain = getattr(sock, "_sock", sock)  # gevent's own would wait without an end
    left = memoryview(data)
    while left:
        try:
            left = left[plain.send(left, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            if not wait(sock, seconds, write=True):
                msg = "the connection takes no bytes"
                raise TimeoutError(msg) from None
