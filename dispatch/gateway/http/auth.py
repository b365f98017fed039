"""Authentication by API key (RFC 6750 bearer token) and authorisation by scope."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

import flask

from dispatch.config import api_keys
from dispatch.config.settings import PREFIX, Settings, is_loopback
from dispatch.errors import ConfigurationError
from dispatch.gateway.http.context import Principal
from dispatch.gateway.http.problems import Problem
from dispatch.telemetry import metrics

_LOCAL_PRINCIPAL = Principal(api_keys.LOCAL, frozenset(api_keys.SCOPES))
_NO_KEY = api_keys.ApiKey("unknown", "0" * 64, frozenset())
_CHALLENGE = 'Bearer realm="robot-dispatch"'

#: Why a request is refused with 401, as in metrics.
MISSING, MALFORMED, UNKNOWN, PEER, HOST, ORIGIN, FORWARDED = REASONS = (
    "missing", "malformed", "unknown", "peer", "host", "origin", "forwarded",
)  # fmt: skip

#: Headers by which a proxy names the client that it serves, as names of the WSGI environment.
_FORWARDING = frozenset({"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"})
_X_FORWARDED = "HTTP_X_FORWARDED_"

_LOCAL_ONLY = "No API keys are configured, so only this machine may use the API."
_REFUSALS = {
    PEER: "The client's address is not loopback.",
    HOST: "The Host is not loopback.",
    ORIGIN: "The Origin is not the gateway's own.",
    FORWARDED: "The request has headers of a proxy (Forwarded, Via, X-Forwarded-*, X-Real-IP).",
}


class Keyring:
    """The configured API api_keys.

    Args:
        entries: the API keys; without any, only loopback clients are authorised.
        pepper: key of their HMAC.
    """

    def __init__(self, entries: tuple[api_keys.ApiKey, ...], pepper: str) -> None:
        self._pepper = pepper
        self._entries: dict[str, list[api_keys.ApiKey]] = {}
        for entry in entries:
            self._entries.setdefault(entry.id, []).append(entry)

    @classmethod
    def from_settings(cls, settings: Settings) -> Keyring:
        """Read ``DISPATCH_API_KEYS``.

        Raises:
            ConfigurationError: names each invalid entry by its position, never by its text.
        """
        entries: list[api_keys.ApiKey] = []
        problems: list[str] = []
        for number, text in enumerate(settings.api_keys, 1):
            try:
                entries.append(api_keys.parse(text))
            except ValueError as exc:
                problems.append(f"{PREFIX}API_KEYS: entry {number}: {exc}")
        if problems:
            raise ConfigurationError("\n".join(problems))
        pepper = settings.api_key_pepper
        return cls(tuple(entries), pepper.get_secret_value() if pepper else "")

    def authorise(self, scope: str) -> Principal:
        """Authenticate the current request and check its scope.

        Args:
            scope: required by the operation.

        Returns:
            The principal.

        Raises:
            Problem: 401 without a valid API key, 403 without the scope.
        """
        principal = self._authenticate() if self._entries else _local(flask.request.environ)
        if scope not in principal.scopes:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            detail = f"The operation needs the scope {scope}."
            raise Problem("insufficient-scope", detail, headers={"WWW-Authenticate": challenge})
        return principal

    def _authenticate(self) -> Principal:
        header = flask.request.headers.get("Authorization")
        if header is None:
            raise _unauthenticated(MISSING)
        scheme, _, token = header.partition(" ")
        bearer = scheme.lower() == "bearer"
        entry = self._find(token.strip()) if bearer else None
        if entry is None:
            raise _unauthenticated(UNKNOWN if bearer else MALFORMED, challenge=f'{_CHALLENGE}, error="invalid_token"')
        return Principal(entry.id, entry.scopes)

    def _find(self, token: str) -> api_keys.ApiKey | None:
        """The entry of an API key. An unknown id takes as long as a wrong secret, so timing reveals nothing."""
        candidates = self._entries.get(api_keys.key_id(token) or "", [_NO_KEY])
        digest = api_keys.digest(self._pepper, token)
        matches = [entry for entry in candidates if hmac.compare_digest(entry.digest, digest)]
        return matches[0] if matches else None


def _local(environ: Mapping[str, object]) -> Principal:
    """Without API keys, only loopback clients are authorised, whatever address the server is bound to.

    The Host and Origin checks reject requests of web pages in a local browser (DNS rebinding, CSRF); the last check
    those that a proxy on this machine forwards, whose peer is loopback for every client.
    """
    peer = str(environ.get("REMOTE_ADDR") or "127.0.0.1")  # a Unix socket has no address
    host = str(environ.get("HTTP_HOST") or "localhost")
    own = f"{environ.get('wsgi.url_scheme')}://{host}"
    checks = {
        PEER: is_loopback(peer),
        HOST: is_loopback(_hostname(f"//{host}")),
        ORIGIN: str(environ.get("HTTP_ORIGIN", own)).lower() == own.lower(),
        FORWARDED: not any(name in _FORWARDING or name.startswith(_X_FORWARDED) for name in environ),
    }
    for reason, passed in checks.items():
        if not passed:
            raise _unauthenticated(reason, f"{_LOCAL_ONLY} {_REFUSALS[reason]} Set {PREFIX}API_KEYS.")
    return _LOCAL_PRINCIPAL


def _unauthenticated(reason: str, detail: str | None = None, *, challenge: str = _CHALLENGE) -> Problem:
    """The 401, counted."""
    metrics.HTTP_UNAUTHENTICATED.inc(reason)
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
