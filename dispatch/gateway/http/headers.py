"""Parsers of request headers. Pure: text in, values out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dispatch.protocol import request_ids

#: Seconds: longest wait of a long poll (`Prefer: wait=N`).
MAX_WAIT = 20

MAX_IDEMPOTENCY_KEY = 255  #: characters

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_WAIT = re.compile(r'wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))', re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


class InvalidIdempotencyKey(ValueError):
    """The Idempotency-Key must be 1-255 visible ASCII characters, quoted or bare."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def request_id(value: str | None) -> str:
    """The client's X-Request-Id if valid, a new id otherwise."""
    return value if value is not None and request_ids.is_valid(value) else request_ids.new()


def idempotency_key(value: str | None) -> str | None:
    """Parse an Idempotency-Key.

    Args:
        value: the header. The IETF draft (draft-ietf-httpapi-idempotency-key-header) defines a quoted string
            (RFC 9651, 3.3.3); most clients send it bare. ``"a"`` and ``a`` are the same Idempotency-Key.

    Returns:
        The Idempotency-Key without quotes; None without the header.

    Raises:
        InvalidIdempotencyKey: it is empty, too long, not visible ASCII, or its quotes are unbalanced.
    """
    if value is None:
        return None
    key = value
    if value.startswith('"'):
        match = _QUOTED.fullmatch(value)
        if match is None:
            raise InvalidIdempotencyKey
        key = re.sub(r"\\(.)", r"\1", match[1])
    if len(key) > MAX_IDEMPOTENCY_KEY or not _VISIBLE.fullmatch(key):
        raise InvalidIdempotencyKey
    return key


def preferred_wait(value: str | None) -> int:
    """Seconds of ``Prefer: wait=N`` (RFC 7240, 4.3).

    Args:
        value: the header; the first `wait` applies, invalid preferences are ignored (RFC 7240, 2).

    Returns:
        Whole seconds up to `MAX_WAIT`; 0 without the preference.
    """
    for preference in (value or "").split(","):
        match = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if match:
            return min(int(match[1] or match[2]), MAX_WAIT)
    return 0


def joined(first: Mapping[str, str], second: Mapping[str, str]) -> Mapping[str, str]:
    """Headers whose values are lists, from two sources."""
    if not second:
        return first
    names = dict.fromkeys([*first, *second])
    return {name: ", ".join(each[name] for each in (first, second) if name in each) for name in names}


def etag_matches(value: str | None, etag: str) -> bool:
    """Whether an If-None-Match matches an entity tag.

    Args:
        value: the header; weak comparison (RFC 9110, 13.1.2).
        etag: the opaque part, without quotes.
    """
    if value is None:
        return False
    return value.strip() == "*" or etag in _ETAG.findall(value)
