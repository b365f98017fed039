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

_LOCAL_PRINCIPAL = Principal(api_keys.LOCAL, frozenset(api_keys.SCOPES))
_UNKNOWN = api_keys.ApiKey("unknown", "0" * 64, frozenset())
_CHALLENGE = 'Bearer realm="robot-dispatch"'


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
            raise Problem("unauthenticated", headers={"WWW-Authenticate": _CHALLENGE})
        scheme, _, token = header.partition(" ")
        entry = self._find(token.strip()) if scheme.lower() == "bearer" else None
        if entry is None:
            raise Problem("unauthenticated", headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'})
        return Principal(entry.id, entry.scopes)

    def _find(self, token: str) -> api_keys.ApiKey | None:
        """The entry of an API key. An unknown id takes as long as a wrong secret, so timing reveals nothing."""
        candidates = self._entries.get(api_keys.key_id(token) or "", [_UNKNOWN])
        digest = api_keys.digest(self._pepper, token)
        matches = [entry for entry in candidates if hmac.compare_digest(entry.digest, digest)]
        return matches[0] if matches else None


def _local(environ: Mapping[str, object]) -> Principal:
    """Without API keys, only loopback clients are authorised, whatever address the server is bound to.

    The Host and Origin checks reject requests of web pages in a local browser (DNS rebinding, CSRF).
    """
    peer = str(environ.get("REMOTE_ADDR") or "127.0.0.1")  # a Unix socket has no address
    host = str(environ.get("HTTP_HOST") or "localhost")
    origin = environ.get("HTTP_ORIGIN")
    names = [peer, _hostname(f"//{host}"), *([_hostname(str(origin))] if origin is not None else [])]
    if not all(map(is_loopback, names)):
        detail = f"No API keys are configured, so only this machine may use the API. Set {PREFIX}API_KEYS."
        raise Problem("unauthenticated", detail, headers={"WWW-Authenticate": _CHALLENGE})
    return _LOCAL_PRINCIPAL


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
