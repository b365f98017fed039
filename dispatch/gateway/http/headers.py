"""Reading request headers. Pure: text in, values out."""

from __future__ import annotations

import re
import secrets

#: Seconds a client may ask a GET to wait (`Prefer: wait=N`).
MAX_WAIT = 20

MAX_IDEMPOTENCY_KEY = 255  #: characters

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_WAIT = re.compile(r'wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))', re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


class InvalidIdempotencyKey(ValueError):
    """The Idempotency-Key must be 1-255 visible ASCII characters, quoted or bare."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def request_id(given: str | None) -> str:
    """The caller's X-Request-Id when it is usable, a fresh one otherwise."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def idempotency_key(given: str | None) -> str | None:
    """Read an Idempotency-Key.

    Args:
        given: the header. The IETF draft (draft-ietf-httpapi-idempotency-key-header) has a quoted string
            (RFC 9651, 3.3.3); most clients send it bare. ``"a"`` and ``a`` are the same key.

    Returns:
        The key without quotes; None when there is no header.

    Raises:
        InvalidIdempotencyKey: it is empty, too long, not visible ASCII, or its quotes don't match.
    """
    if given is None:
        return None
    key = given
    if given.startswith('"'):
        match = _QUOTED.fullmatch(given)
        if match is None:
            raise InvalidIdempotencyKey
        key = re.sub(r"\\(.)", r"\1", match[1])
    if len(key) > MAX_IDEMPOTENCY_KEY or not _VISIBLE.fullmatch(key):
        raise InvalidIdempotencyKey
    return key


def preferred_wait(given: str | None) -> int:
    """Seconds of ``Prefer: wait=N`` (RFC 7240, 4.3).

    Args:
        given: the header; the first `wait` counts, anything unusable is ignored (RFC 7240, 2).

    Returns:
        Whole seconds up to `MAX_WAIT`; 0 when none are asked for.
    """
    for preference in (given or "").split(","):
        match = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if match:
            return min(int(match[1] or match[2]), MAX_WAIT)
    return 0


def etag_matches(given: str | None, etag: str) -> bool:
    """Whether an If-None-Match covers a tag.

    Args:
        given: the header; compared weakly (RFC 9110, 13.1.2).
        etag: the opaque part, without quotes.
    """
    if given is None:
        return False
    return given.strip() == "*" or etag in _ETAG.findall(given)
