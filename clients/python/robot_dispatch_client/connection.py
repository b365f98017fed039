"""What both clients are made with: address, API key, retries."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator, Mapping

import httpx

from robot_dispatch_client.flows import STREAM_SILENCE, Send, Setting
from robot_dispatch_client.headers import checked_key
from robot_dispatch_client.retries import RetryPolicy

URL_VARIABLE, KEY_VARIABLE = "ROBOT_DISPATCH_URL", "ROBOT_DISPATCH_API_KEY"

VERSION = "1.0.0"

USER_AGENT = f"robot-dispatch-client/{VERSION} httpx/{httpx.__version__} python/{platform.python_version()}"


class BearerAuth(httpx.Auth):
    """Adds the API key to each request. It is in no header of the client and in no repr.

    Args:
        key: the API key, if there is one.
    """

    __slots__ = ("_key",)

    def __init__(self, key: str | None) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add it."""
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        yield request

    def __repr__(self) -> str:
        return f"BearerAuth({'a key' if self._key else 'no key'})"


class Target:
    """The API that a client is for.

    Args:
        url: its address; `ROBOT_DISPATCH_URL` by default.
        api_key: `ROBOT_DISPATCH_API_KEY` by default; "" for none.

    Raises:
        ValueError: there is no usable address, or the API key can't be one.
    """

    def __init__(self, url: str | None, api_key: str | None) -> None:
        given = url or os.environ.get(URL_VARIABLE, "")
        try:
            parsed = httpx.URL(given)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in {"http", "https"} or not parsed.host:  # it is not quoted: it may have a password
            raise ValueError(f"Give the API's address, http(s)://host:port, as url or in {URL_VARIABLE}")
        self.auth = BearerAuth(checked_key(os.environ.get(KEY_VARIABLE) if api_key is None else api_key))
        self.url = parsed.copy_with(username=None, password=None, query=None, fragment=None)
        if parsed.userinfo:
            raise ValueError("The address has a user or a password; the API takes an API key: api_key")

    def __str__(self) -> str:
        return str(self.url)


def setting(retry: RetryPolicy | None, timeout: float, context: Callable[[], Mapping[str, str]] | None) -> Setting:
    """What all flows of a client share.

    Args:
        retry: `RetryPolicy()` by default.
        timeout: seconds for one try.
        context: headers of the caller's context.
    """
    return Setting(retry or RetryPolicy(), timeout, context or dict)


def request(http: httpx.Client | httpx.AsyncClient, step: Send, *, stream: bool = False) -> httpx.Request:
    """The request of a step.

    Args:
        http: that will send it.
        step: what to send.
        stream: its response is read piece by piece.
    """
    timeout = httpx.Timeout(step.timeout, read=STREAM_SILENCE) if stream else httpx.Timeout(step.timeout)
    return http.build_request(
        step.method,
        step.path,
        params=tuple(step.params) or None,
        content=step.content,
        headers=dict(step.headers),
        timeout=timeout,
    )
