"""``http.request``: one HTTP request to a host and port on the operator's allow-list.

The allow-list compares names; the addresses that they resolve to are checked at connecting: `tasks.egress`.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, Self

import httpx
import pydantic
from pydantic import Field, JsonValue

from dispatch.config.groups import HandlerSettings
from dispatch.errors import PermanentError
from dispatch.tasktypes import Context, Payload, Secret, task
from tasks import egress, upstream

#: Seconds; longer than the longest `timeoutSeconds`, so that the handler's own timeout applies first.
_TIME_LIMIT = 150.0

#: Request headers set by the worker, the connection or a proxy: rejected in a payload.
_RESERVED = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "forwarded", "host", "idempotency-key", "keep-alive",
    "proxy-authorization", "proxy-connection", "te", "traceparent", "tracestate", "trailer", "transfer-encoding",  # codespell:ignore te
    "upgrade",
})  # fmt: skip

#: Response headers that are part of the result.
_KEPT = ("content-type", "etag", "location", "retry-after", "x-request-id")

#: Default ports by scheme.
_PORTS = {"http": 80, "https": 443}

_ORIGIN = re.compile(r"https?://[^/?#@\\\s]+([/?#]|$)", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]{0,4094}[\x21-\x7e])?|")


def valid_url(value: str) -> str:
    """An http or https URL without credentials, as it is.

    Raises:
        ValueError: it is none.
    """
    if not _ORIGIN.match(value):
        raise ValueError("must start with http:// or https:// and a host, without user or password")
    try:
        url = httpx.URL(value)
    except httpx.InvalidURL as exc:
        raise ValueError("is not a URL") from exc
    if not url.raw_host or (url.port is not None and not 1 <= url.port <= 65_535):
        raise ValueError("needs a host, and a port between 1 and 65535")
    return value


class HttpRequest(Payload):
    """The request to send; the worker adds `Idempotency-Key` and `traceparent`."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(description="HTTP method.")
    url: str = Field(
        max_length=4_096,
        description="http or https, without credentials; its host and port must be on the allow-list.",
        examples=["http://robots.example/status"],
    )
    headers: dict[str, Secret] = Field(
        {},
        max_length=50,
        description="Additional request headers. Their values are redacted in logs, events and dead letters.",
    )
    content: JsonValue = Field(None, alias="json", description="JSON body; not with GET or HEAD. No body if absent.")
    timeout_seconds: float = Field(
        30, ge=0.1, le=120, allow_inf_nan=False, description="Timeout of the complete response."
    )

    @pydantic.field_validator("url")
    @classmethod
    def _valid_url(cls, value: str) -> str:
        return valid_url(value)

    @pydantic.field_validator("headers")
    @classmethod
    def _valid_headers(cls, value: dict[str, Secret]) -> dict[str, Secret]:
        names = [name.lower() for name in value]
        if len(set(names)) < len(names):
            raise ValueError("header names must differ in more than case")
        if reserved := sorted(_RESERVED.intersection(names)):
            msg = f"the worker sets these headers itself: {', '.join(reserved)}"
            raise ValueError(msg)
        if not all(map(_HEADER_NAME.fullmatch, value)) or not all(
            _HEADER_VALUE.fullmatch(secret.get_secret_value()) for secret in value.values()
        ):
            raise ValueError("names must be tokens and values at most 4096 visible ASCII characters")
        return value

    @pydantic.field_validator("content")
    @classmethod
    def _encodable(cls, value: JsonValue) -> JsonValue:
        if not _is_json(value):
            raise ValueError("NaN, infinity and lone surrogates are not JSON")
        return value

    @pydantic.model_validator(mode="after")
    def _body_fits_method(self) -> Self:
        if self.has_body and self.method in {"GET", "HEAD"}:
            msg = f"json cannot be sent with {self.method}"
            raise ValueError(msg)
        return self

    @property
    def has_body(self) -> bool:
        """Whether the payload has a JSON body; null is one."""
        return "content" in self.model_fields_set


@task("http.request", payload=HttpRequest, time_limit=_TIME_LIMIT)
def request(order: HttpRequest, ctx: Context) -> dict[str, Any]:
    """Send an HTTP request with the task's Idempotency-Key and trace.

    Args:
        order: the request.
        ctx: the running task.

    Returns:
        ``status``, selected ``headers``, the ``body`` (JSON, text, or null when it is compressed or not
        text; at most 64 KiB) and ``bodyTruncated``.

    Raises:
        PermanentError: ``host-not-allowed``, ``address-not-allowed``, ``upstream-redirect``, ``upstream-unauthorized``,
            ``upstream-rejected``.
        Throttled: 429.
        RetryableError: any other failure, see `tasks.upstream`.
    """
    body = json.dumps(order.content).encode() if order.has_body else None
    with connected(order.url, ctx.settings, order.timeout_seconds, _headers(order, ctx)) as (http, peer):
        answer = upstream.exchange(http, order.method, order.url, peer=peer, within=order.timeout_seconds, content=body)
    if error := upstream.failure(answer, peer=peer):
        raise error
    return {
        "status": answer.status,
        "headers": {name: answer.headers[name] for name in _KEPT if name in answer.headers},
        "body": _content(answer),
        "bodyTruncated": answer.truncated,
    }


@contextlib.contextmanager
def connected(
    text: str, settings: HandlerSettings, timeout: float, headers: httpx.Headers
) -> Iterator[tuple[httpx.Client, str]]:
    """A client that connects where a URL of a client's choosing may lead: to what the allow-list names, at permitted addresses.

    Args:
        text: the URL.
        settings: has the list.
        timeout: seconds to wait for each part of a response.
        headers: of every request.

    Yields:
        The client, and the peer's name for messages.

    Raises:
        PermanentError: ``host-not-allowed``; from the client ``address-not-allowed``.
    """
    url = httpx.URL(text)
    peer = _origin(url)
    if not is_allowed(url, settings):
        raise PermanentError(f"{peer} is not among DISPATCH_HTTP_ALLOWED_HOSTS", type="host-not-allowed")
    transport = egress.Transport(upstream.tls(), functools.partial(settings.allows_http, default=_PORTS[url.scheme]))
    with upstream.client(timeout, headers=headers, transport=transport) as client:
        yield client, peer


def _headers(order: HttpRequest, ctx: Context) -> httpx.Headers:
    headers = httpx.Headers({"Content-Type": "application/json"} if order.has_body else {})
    headers.update({name: value.get_secret_value() for name, value in order.headers.items()})
    headers.update({"Idempotency-Key": ctx.idempotency_key, "traceparent": ctx.traceparent})
    return headers


def is_allowed(url: httpx.URL, settings: HandlerSettings) -> bool:
    """Whether the allow-list contains the URL's host and port.

    Args:
        url: parsed by the library that connects, so that both use the same host.
        settings: has the list.

    Returns:
        True when an entry matches.
    """
    default = _PORTS[url.scheme]
    return settings.allows_http(url.raw_host.decode("ascii"), url.port or default, default)


def _origin(url: httpx.URL) -> str:
    host = url.raw_host.decode("ascii")
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}" + (f":{url.port}" if url.port else "")


def _content(answer: upstream.Answer) -> Any:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        return None
    try:
        # Truncation may split a character: only the last one may be incomplete.
        text = codecs.getincrementaldecoder("utf-8")().decode(answer.body, final=not answer.truncated)
    except UnicodeDecodeError:
        return None
    if answer.truncated or not _is_json_type(answer):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if _is_json(value) else text


def _is_json_type(answer: upstream.Answer) -> bool:
    media_type: str = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True
