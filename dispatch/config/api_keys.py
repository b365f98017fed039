"""API keys: format, scopes and stored digests. Pure.

A client sends ``rk_<id>_<secret>``. The configuration holds ``<id>:<hmac>:<scope>+<scope>``, where the
HMAC-SHA256 is over the whole API key with a pepper, so that neither the configuration nor the pepper alone
grants access. A secret has 256 random bits, so a fast hash is sufficient. ``expires=<time>`` may follow.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import hmac
import re
import secrets

from dispatch.config import type_scopes

PREFIX = "rk"  #: of every API key, so that secret scanners find leaked ones

TASKS_READ = "tasks:read"  #: read the principal's own tasks
TASKS_READ_ALL = (
    "tasks:read-all"  #: operators: read the tasks of all principals, their payloads included; includes tasks:read
)
TASKS_WRITE = "tasks:write"  #: submit tasks; `dispatch.config.type_scopes` names types
TASKS_CONTROL = "tasks:control"  #: operators: cancel, retry now, pause and resume tasks of all principals
SCHEDULES_WRITE = "schedules:write"  #: create, change and run schedules
QUEUES_READ = "queues:read"  #: operators: read queues and task counts
DEADLETTERS_READ = "deadletters:read"  #: operators: read the dead letters of all principals
DEADLETTERS_WRITE = "deadletters:write"  #: operators: redrive and discard them
AUDIT_READ = "audit:read"  #: read the audit log: what operators did

SCOPES = (
    TASKS_READ, TASKS_READ_ALL, TASKS_WRITE, TASKS_CONTROL, SCHEDULES_WRITE, QUEUES_READ, DEADLETTERS_READ,
    DEADLETTERS_WRITE, AUDIT_READ,
)  # fmt: skip

_ID = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
_KEY = re.compile(rf"{PREFIX}_({_ID})_([A-Za-z0-9_-]{{20,128}})")
_DIGEST = re.compile(r"[0-9a-f]{64}")

EXPIRES = "expires"  #: attribute of an entry: an RFC 3339 time with its offset


@dataclasses.dataclass(frozen=True, slots=True)
class ApiKey:
    """One configured API key."""

    id: str  #: the principal; two entries may share it while a secret is being replaced
    digest: str  #: 64 hex digits
    scopes: frozenset[str]
    expires: dt.datetime | None = None  #: with its offset; None: never

    def __str__(self) -> str:
        """The entry in ``DISPATCH_API_KEYS`` and in the file of API keys."""
        text = f"{self.id}:{self.digest}:{self.granted}"
        return text if self.expires is None else f"{text} {EXPIRES}={written(self.expires)}"

    @property
    def granted(self) -> str:
        """The scopes as `scopes` reads them."""
        plain = [scope for scope in SCOPES if scope in self.scopes]
        return "+".join([*plain, *sorted(self.scopes - set(plain))])

    @property
    def fingerprint(self) -> str:
        """Distinguishes the secrets of one id, in lists and in the audit log; of no use to authenticate."""
        return self.digest[:12]

    def expired(self, now: float) -> bool:
        """Whether it no longer authenticates at a time, epoch seconds."""
        return self.expires is not None and now >= self.expires.timestamp()


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
    """Parse ``tasks:read+tasks:write``; ``tasks:write:robot.*`` writes tasks of some types only.

    Raises:
        ValueError: a scope is unknown, or there is none.
    """
    names = frozenset(filter(None, text.split("+")))
    unknown = [name for name in names - set(SCOPES) if not type_scopes.is_valid(name)]
    if unknown or not names:
        raise ValueError(f"scopes must be some of {', '.join(SCOPES)}, or {TASKS_WRITE}:<type>, joined by '+'")
    return names


def parse(text: str) -> ApiKey:
    """Parse one entry of ``DISPATCH_API_KEYS``, or a line of the file of API keys.

    Args:
        text: ``<id>:<hmac>:<scope>+<scope>``, and perhaps `` expires=<time>``.

    Returns:
        The entry.

    Raises:
        ValueError: the reason, without the text.
    """
    entry, _, attributes = text.partition(" ")
    name, _, rest = entry.partition(":")
    hashed, _, granted = rest.partition(":")
    if not re.fullmatch(_ID, name):
        raise ValueError("the id must be 1-32 lower-case letters, digits and inner '-'")
    if not _DIGEST.fullmatch(hashed):
        raise ValueError("the HMAC must be 64 lower-case hex digits (not the API key itself)")
    return ApiKey(name, hashed, scopes(granted), _expires(attributes.split()))


def _expires(attributes: list[str]) -> dt.datetime | None:
    # A misspelt or repeated attribute is refused: the API key would otherwise never expire.
    if not attributes:
        return None
    name, _, text = attributes[0].partition("=")
    if len(attributes) > 1 or name != EXPIRES:
        raise ValueError(f"after the scopes there must be {EXPIRES}=<time> at most")
    return moment(text)


def moment(text: str) -> dt.datetime:
    """Parse a time, as of ``expires=``.

    Args:
        text: RFC 3339, e.g. ``2027-01-31T00:00:00Z``.

    Raises:
        ValueError: it is no time, or has no offset.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not 2_000 <= found.year < 9_000:
        raise ValueError("a time must be RFC 3339 with its offset, as 2027-01-31T00:00:00Z")
    return found


def written(at: dt.datetime) -> str:
    """A time as `moment` reads it, in UTC to the second."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


LOCAL = "local"  #: the principal when no API keys are configured
