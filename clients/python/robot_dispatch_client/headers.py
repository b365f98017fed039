"""Headers of responses and requests. Pure."""

from __future__ import annotations

import email.utils
import math
import re
import time
import uuid
from collections.abc import Mapping

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds of a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3).

    Args:
        headers: of the response.
        now: epoch seconds; the current time by default.

    Returns:
        None without the header, or with one that is neither.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, math.ceil(until - (time.time() if now is None else now)))


def request_id(given: str | None) -> str:
    """The X-Request-Id to send: the given one if the API takes it, otherwise a new one.

    Args:
        given: of the caller.
    """
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def key_header(key: str) -> str:
    """An idempotency key as the API reads it, in a header and in a batch.

    Args:
        key: 1 to 255 visible ASCII characters.

    Raises:
        ValueError: it is none.
    """
    if not _KEY.fullmatch(key):
        raise ValueError("An idempotency key has 1 to 255 visible ASCII characters")
    # What begins with a quote would be read as a quoted string.
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' if key.startswith('"') else key


def traceparent(value: str | None) -> str | None:
    """A W3C trace context that can be passed on; None for anything else, which begins a trace of its own.

    Args:
        value: of the caller.
    """
    return value if value and _TRACEPARENT.fullmatch(value) else None


def checked_key(key: str | None) -> str | None:
    """An API key that can be a header; the text of an HTTP library's error would quote another one.

    Args:
        key: surrounding blanks and line ends, as of a file, are dropped.

    Raises:
        ValueError: it has other characters than visible ASCII; the key is not quoted.
    """
    stripped = (key or "").strip()
    if stripped and not re.fullmatch(r"[\x21-\x7e]+", stripped):
        raise ValueError("The API key has characters that no key has; it is not quoted here")
    return stripped or None
