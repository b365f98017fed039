"""API keys: format, scopes and stored digests. Pure.

A client sends ``rk_<id>_<secret>``. The configuration holds ``<id>:<hmac>:<scope>+<scope>``, where the
HMAC-SHA256 is over the whole API key with a pepper, so that neither the configuration nor the pepper alone
grants access. A secret has 256 random bits, so a fast hash is sufficient.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
import secrets

PREFIX = "rk"  #: of every API key, so that secret scanners find leaked ones

TASKS_READ = "tasks:read"  #: read the principal's own tasks
TASKS_WRITE = "tasks:write"  #: submit tasks
QUEUES_READ = "queues:read"  #: operators: read queues and task counts
DEADLETTERS_READ = "deadletters:read"  #: operators: read the dead letters of all principals
DEADLETTERS_WRITE = "deadletters:write"  #: operators: redrive and discard them

SCOPES = (TASKS_READ, TASKS_WRITE, QUEUES_READ, DEADLETTERS_READ, DEADLETTERS_WRITE)

_ID = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
_KEY = re.compile(rf"{PREFIX}_({_ID})_([A-Za-z0-9_-]{{20,128}})")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, slots=True)
class ApiKey:
    """One configured API key."""

    id: str  #: the principal; two entries may share it while a secret is being replaced
    digest: str  #: 64 hex digits
    scopes: frozenset[str]

    def __str__(self) -> str:
        """The entry in ``DISPATCH_API_KEYS``."""
        return f"{self.id}:{self.digest}:{'+'.join(scope for scope in SCOPES if scope in self.scopes)}"


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def token(key_id: str, secret: str) -> str:
    """The API key that a client sends.

    Args:
        key_id: lower-case letters, digits and inner ``-``, at most 32.
        secret: from `new_secret`.

    Returns:
        ``rk_<id>_<secret>``.

    Raises:
        ValueError: the id is invalid.
    """
    if not re.fullmatch(_ID, key_id):
        raise ValueError("the id of an API key must be 1-32 lower-case letters, digits and inner '-'")
    return f"{PREFIX}_{key_id}_{secret}"


def key_id(text: str) -> str | None:
    """The id in an API key; None when the text is no API key."""
    match = _KEY.fullmatch(text)
    return match and match[1]


def digest(pepper: str, text: str) -> str:
    """The stored digest of an API key.

    Args:
        pepper: ``DISPATCH_API_KEY_PEPPER``.
        text: the whole API key.

    Returns:
        HMAC-SHA256 as 64 hex digits (RFC 2104).
    """
    return hmac.new(pepper.encode(), text.encode(), hashlib.sha256).hexdigest()


def scopes(text: str) -> frozenset[str]:
    """Parse ``tasks:read+tasks:write``.

    Raises:
        ValueError: a scope is unknown, or there is none.
    """
    names = frozenset(filter(None, text.split("+")))
    unknown = sorted(names - set(SCOPES))
    if unknown or not names:
        raise ValueError(f"scopes must be some of {', '.join(SCOPES)}, joined by '+'")
    return names


def parse(text: str) -> ApiKey:
    """Parse one entry of ``DISPATCH_API_KEYS``.

    Args:
        text: ``<id>:<hmac>:<scope>+<scope>``.

    Returns:
        The entry.

    Raises:
        ValueError: the reason, without the text.
    """
    name, _, rest = text.partition(":")
    hashed, _, granted = rest.partition(":")
    if not re.fullmatch(_ID, name):
        raise ValueError("the id must be 1-32 lower-case letters, digits and inner '-'")
    if not _DIGEST.fullmatch(hashed):
        raise ValueError("the HMAC must be 64 lower-case hex digits (not the API key itself)")
    return ApiKey(name, hashed, scopes(granted))


LOCAL = "local"  #: the principal when no API keys are configured
