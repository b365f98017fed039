"""Why a connection failed, whatever the protocol: from an error and from what caused it. Pure.

The reasons name no host: `/readyz` shows them to anyone.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from dispatch.config import tls

#: Texts of libraries for a connection that ended without an error of the operating system.
_CLOSED = ("closed by server", "unexpectedly closed", "connection lost", "invalid argument", "bad file descriptor")

_PASSWORD = re.compile(r"://[^\s/@]*:[^\s@]*@")

#: Characters of an error's text.
LONGEST = 300

CLOSED = "it closed the connection"
SILENT = "it did not answer in time"

_BY_ERRNO = {
    errno.ECONNREFUSED: "connection refused: nothing listens at its port",
    errno.ECONNRESET: CLOSED,
    errno.EPIPE: CLOSED,
    errno.EHOSTUNREACH: "there is no route to it",
    errno.ENETUNREACH: "there is no route to it",
    errno.ETIMEDOUT: SILENT,
    errno.ENOENT: "its socket does not exist",
    errno.EACCES: "its socket may not be opened",
    errno.EMFILE: "this process has too many open files",
}


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An error, then what caused it, and so on."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        yield exc
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__


def failure(exc: BaseException | None) -> str:
    """Why the network or TLS failed.

    Args:
        exc: any error.

    Returns:
        The reason; empty when it lies elsewhere.
    """
    if refused := tls.refusal(exc):
        hint = "; is its port one without TLS?" if "wrong version number" in refused else ""
        return refused.partition(", certificate is not valid for ")[0] + hint
    return next(filter(None, map(_one, causes(exc))), "")


def _one(exc: BaseException) -> str:
    text = str(exc).lower()
    if isinstance(exc, socket.gaierror):
        later = exc.errno == socket.EAI_AGAIN
        return "its host name can't be looked up now" if later else "its host name is not known"
    if isinstance(exc, TimeoutError):
        tls_silent = "handshake" in text
        return "it did not answer the TLS handshake; is its port one without TLS?" if tls_silent else SILENT
    if isinstance(exc, OSError) and exc.errno in _BY_ERRNO:
        return _BY_ERRNO[exc.errno]
    if isinstance(exc, ssl.SSLEOFError) or any(words in text for words in _CLOSED):
        return CLOSED
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return ""


def words(exc: BaseException | None) -> str:
    """An error's text as operators may read it: one line, without the password of a URL."""
    return _PASSWORD.sub("://…@", " ".join(str(exc).split()))[:LONGEST]


def shown(url: str) -> str:
    """A URL as operators may read it.

    Args:
        url: one, or several separated by ``;``.

    Returns:
        ``user@host:port/path`` of each, without scheme, password and options.
    """
    return ";".join(map(_shown, url.split(";")))


def _shown(url: str) -> str:
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{user}{at if user else ''}{hosts}{parts.path}"
