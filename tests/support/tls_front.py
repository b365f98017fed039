"""A TLS server before a plain one: what an impostor with a certificate sees, and what a client sees of it.

What it decrypts is kept in `received` and forwarded to the real server, so that a client that does not verify succeeds.
"""

import contextlib
import selectors
import socket
import ssl
import threading
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from support.certificates import Certificate

_PORTS = {"amqp": 5672, "redis": 6379, "http": 80}


class TlsFront:
    """Terminates TLS on a loopback port.

    Args:
        url: the server's, in plain: ``amqp``, ``http`` or ``redis``.
        own: the certificate that it presents.
        clients: the authority whose certificates clients must present; empty asks for none.
    """

    def __init__(self, url: str, own: Certificate, clients: str = "") -> None:
        self._url = urlsplit(url)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(own.cert, own.key)
        if clients:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients)
        self.received = bytearray()  #: every byte of clients, decrypted
        self.versions: set[str] = set()
        self.refused: list[str] = []  #: reasons of handshakes that failed
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def url(self, host: str = "localhost") -> str:
        """The server's URL through this front, by a name."""
        user, at, _ = self._url.netloc.rpartition("@")
        return urlunsplit(self._url._replace(scheme=f"{self._url.scheme}s", netloc=f"{user}{at}{host}:{self.port}"))

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        accepted.settimeout(10)
        with contextlib.suppress(OSError), accepted:
            try:
                client = self._context.wrap_socket(accepted, server_side=True)
            except OSError as exc:
                self.refused.append(str(exc))
                return
            self.versions.add(client.version() or "")
            with client, socket.create_connection((self._url.hostname, self._url.port or 0)) as server:
                with self._lock:
                    self._open |= {client, server}
                self._pump(client, server)

    def _pump(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """One thread reads and writes: a TLS connection is one's at a time."""
        client.settimeout(10)
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is client:
                        data = client.recv(65_536)
                        while client.pending():
                            data += client.recv(65_536)
                        self.received += data
                        server.sendall(data)
                    else:
                        data = server.recv(65_536)
                        client.sendall(data)
                    if not data:
                        return
