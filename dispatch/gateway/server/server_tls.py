"""HTTPS: the server's side of TLS. A renewed certificate is used by new connections, without a restart."""

from __future__ import annotations

import dataclasses
import pathlib
import ssl
import time
from typing import Any

import gevent

from dispatch.config.tls import OLDEST
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds between two looks at the files.
LOOK = 1.0

#: What identifies a version of a file.
_Version = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class ServerFiles:
    """Files in PEM form, by path."""

    cert: str  #: the certificate, with those that lead to its authority
    key: str = ""  #: its key; may be in the file of the certificate
    client_ca: str = ""  #: authorities of the certificates that clients must present; empty: they need none

    def context(self) -> ssl.SSLContext:
        """A server's context.

        Raises:
            OSError: a file can't be read, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = OLDEST
        context.load_cert_chain(self.cert, self.key or None, password=lambda: "")
        if self.client_ca:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def versions(self) -> list[_Version]:
        """What the files are now; an absent one is none."""
        found = []
        for path in filter(None, (self.cert, self.key, self.client_ca)):
            try:
                state = pathlib.Path(path).stat()
            except OSError:
                continue
            found.append((state.st_ino, state.st_mtime_ns, state.st_size))
        return found


class ServerTls:
    """Makes connections of a process secure.

    Args:
        files: checked when the process started.
        handshake: seconds that a client has for it.
    """

    def __init__(self, files: ServerFiles, handshake: float) -> None:
        self._files = files
        self._handshake = handshake
        self._context = files.context()
        self._versions = files.versions()
        self._looked = time.monotonic()

    def secure(self, client: Any) -> Any:
        """The connection after its handshake.

        Args:
            client: a socket; closed with the one returned, which takes its place.

        Raises:
            OSError: the handshake failed, or took too long.
        """
        secured = self._current().wrap_socket(
            client, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        with gevent.Timeout(self._handshake, TimeoutError("the handshake took too long")):
            secured.do_handshake()
        return secured

    def _current(self) -> ssl.SSLContext:
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            versions = self._files.versions()
            if versions != self._versions:
                self._reload(versions)
        return self._context

    def _reload(self, versions: list[_Version]) -> None:
        """Certificate and key are replaced one after the other: in between the last pair stays."""
        try:
            self._context = self._files.context()
        except OSError as exc:
            log.warning("certificate not reloaded", reason=str(exc))
            return
        self._versions = versions
        log.info("certificate reloaded")
