"""One HTTP exchange with an upstream: bounded in time and size; each failure is a `TaskError`.

::

    429                                → Throttled       upstream-throttled
    503, 502, no connection, closed    → RetryableError  upstream-unavailable
    408, 504, no response in time      → RetryableError  upstream-timeout
    425, other 5xx                     → RetryableError  upstream-error
    an invalid response                → RetryableError  upstream-garbled
    3xx                                → PermanentError  upstream-redirect (redirects are never followed)
    401                                → PermanentError  upstream-unauthorized
    other 4xx                          → PermanentError  upstream-rejected

Every retryable error carries ``Retry-After`` (seconds or a date). Messages contain the peer and the status only: URLs,
headers and bodies may contain secrets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import email.utils
import functools
import logging
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from dispatch.errors import PermanentError, RetryableError, TaskError, Throttled

#: Seconds: timeout of connecting.
CONNECT_TIMEOUT = 2.0

#: Bytes of a body that are read; the rest is discarded.
MAX_BODY = 65_536

_DIGITS = re.compile(r"[0-9]{1,10}")

# httpx logs complete URLs at level INFO, including secrets in the query.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A response of the upstream."""

    status: int  #: HTTP status
    headers: httpx.Headers
    body: bytes  #: at most `MAX_BODY` bytes, not decoded
    truncated: bool  #: whether the body was longer


@functools.cache
def tls() -> ssl.SSLContext:
    """How upstreams' certificates are checked; made once a process."""
    return httpx.create_ssl_context(trust_env=False)


def client(
    timeout: float, *, headers: Mapping[str, str] | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Create an HTTP client for one attempt: no redirects, no proxies or ``.netrc`` from the environment.

    Args:
        timeout: seconds to wait for each part of a response.
        headers: sent with every request.
        transport: one that restricts where it connects; httpx's own by default.

    Returns:
        A client that the caller closes; never created at import, since workers fork.
    """
    merged = httpx.Headers({"User-Agent": "robot-dispatch", "Accept-Encoding": "identity"})
    merged.update(headers)
    return httpx.Client(
        timeout=httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout)),
        headers=merged,
        verify=tls(),
        follow_redirects=False,
        trust_env=False,
        transport=transport,
    )


def exchange(http: httpx.Client, method: str, url: str, *, peer: str, within: float, **request: Any) -> Answer:
    """Send one request and read the response.

    Args:
        http: from `client`.
        method: HTTP method.
        url: absolute URL.
        peer: name of the upstream in messages.
        within: seconds for the complete response, so that a slow stream cannot block the worker.
        request: arguments of `httpx.Client.stream`: ``json``, ``data``, ``headers``, ``content``.

    Returns:
        The response, of any status.

    Raises:
        RetryableError: no response, or none in time.
        PermanentError: the request cannot be sent.
    """
    until = time.monotonic() + within
    with _translated(peer), http.stream(method, url, **request) as response:
        body = bytearray()
        # Raw: a small compressed body could decompress to gigabytes.
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_BODY:
                break
            if time.monotonic() > until:
                msg = f"{peer} did not complete its response within {within:g} s"
                raise RetryableError(msg, type="upstream-timeout")
        return Answer(response.status_code, response.headers, bytes(body[:MAX_BODY]), len(body) > MAX_BODY)


@contextlib.contextmanager
def _translated(peer: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as exc:
        msg = f"{peer} did not respond in time ({type(exc).__name__})"
        raise RetryableError(msg, type="upstream-timeout") from exc
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as exc:
        # Without the cause: its text quotes the header or the URL.
        msg = f"the request to {peer} cannot be sent ({type(exc).__name__})"
        raise PermanentError(msg, type="request-invalid") from None
    except httpx.RequestError as exc:
        msg = f"{peer} is unreachable or closed the connection ({type(exc).__name__}: {exc})"
        raise RetryableError(msg, type="upstream-unavailable") from exc


def failure(answer: Answer, *, peer: str, detail: str = "") -> TaskError | None:
    """The error for a response.

    Args:
        answer: the response.
        peer: name of the upstream in the message.
        detail: the upstream's error message, without secrets.

    Returns:
        The error to raise; None for a 2xx.
    """
    status = answer.status
    message = f"{peer} responded {status}" + (f": {detail}" if detail else "")
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return PermanentError(f"{message}; redirects are not followed", type="upstream-redirect")
    wait = retry_after(answer.headers.get("Retry-After"), now=time.time())
    if status == 429:
        return Throttled(message, type="upstream-throttled", retry_after=wait)
    if status in _RETRYABLE or status >= 500:
        return RetryableError(message, type=_RETRYABLE.get(status, "upstream-error"), retry_after=wait)
    if status < 400:
        return RetryableError(message, type="upstream-garbled")
    return PermanentError(message, type="upstream-unauthorized" if status == 401 else "upstream-rejected")


_RETRYABLE = {
    408: "upstream-timeout",
    425: "upstream-error",
    502: "upstream-unavailable",
    503: "upstream-unavailable",
    504: "upstream-timeout",
}


def retry_after(value: str | None, *, now: float) -> float | None:
    """Parse a ``Retry-After`` header (RFC 9110, 10.2.3).

    Args:
        value: seconds or an HTTP date; None when the header is missing.
        now: epoch seconds.

    Returns:
        Seconds to wait, 0 for a date in the past; None when missing or invalid.
    """
    text = (value or "").strip()
    if _DIGITS.fullmatch(text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
        # Without a time zone (asctime, "-0000") it is UTC.
        moment = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
