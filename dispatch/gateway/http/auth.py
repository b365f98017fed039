"""Who may do what: API keys with scopes (RFC 6750 bearer tokens)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

import flask

from dispatch.config import api_keys
from dispatch.config import api_keys as keys
from dispatch.config.settings import PREFIX, Settings, is_loopback
from dispatch.errors import ConfigurationError
from dispatch.gateway.http.context import Principal
from dispatch.gateway.http.problems import Problem

_EVERYTHING = Principal(api_keys.LOCAL, frozenset(keys.SCOPES))
_NOBODY = keys.ApiKey("nobody", "0" * 64, frozenset())
_CHALLENGE = 'Bearer realm="robot-dispatch"'


class Keyring:
    """The configured keys.

    Args:
        entries: the keys; none leaves the API open to this machine only.
        pepper: of their HMAC.
    """

    def __init__(self, entries: tuple[keys.ApiKey, ...], pepper: str) -> None:
        self._pepper = pepper
        self._entries: dict[str, list[keys.ApiKey]] = {}
        for entry in entries:
            self._entries.setdefault(entry.id, []).append(entry)

    @classmethod
    def from_settings(cls, settings: Settings) -> Keyring:
        """Read ``DISPATCH_API_KEYS``.

        Raises:
            ConfigurationError: every entry that is not usable, by its place; never its text.
        """
        entries: list[keys.ApiKey] = []
        problems: list[str] = []
        for number, text in enumerate(settings.api_keys, 1):
            try:
                entries.append(keys.parse(text))
            except ValueError as exc:
                problems.append(f"{PREFIX}API_KEYS: entry {number}: {exc}")
        if problems:
            raise ConfigurationError("\n".join(problems))
        pepper = settings.api_key_pepper
        return cls(tuple(entries), pepper.get_secret_value() if pepper else "")

    def authorise(self, scope: str) -> Principal:
        """Let the request in hand pass, or not.

        Args:
            scope: what the operation needs.

        Returns:
            Who sent it.

        Raises:
            Problem: 401 or 403.
        """
        who = self._identify() if self._entries else _local(flask.request.environ)
        if scope not in who.scopes:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            detail = f"The operation needs the scope {scope}."
            raise Problem("insufficient-scope", detail, headers={"WWW-Authenticate": challenge})
        return who

    def _identify(self) -> Principal:
        given = flask.request.headers.get("Authorization")
        if given is None:
            raise Problem("unauthenticated", headers={"WWW-Authenticate": _CHALLENGE})
        scheme, _, token = given.partition(" ")
        entry = self._find(token.strip()) if scheme.lower() == "bearer" else None
        if entry is None:
            raise Problem("unauthenticated", headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'})
        return Principal(entry.id, entry.scopes)

    def _find(self, token: str) -> keys.ApiKey | None:
        """The entry of a key. An unknown id costs as much as a wrong secret, so timing tells nothing."""
        candidates = self._entries.get(keys.key_id(token) or "", [_NOBODY])
        digest = keys.digest(self._pepper, token)
        found = [entry for entry in candidates if hmac.compare_digest(entry.digest, digest)]
        return found[0] if found else None


def _local(environ: Mapping[str, object]) -> Principal:
    """Without keys, only this machine gets in, whatever address the server was bound to.

    The Host and Origin checks keep a web page in a browser on this machine out (DNS rebinding, CSRF).
    """
    peer = str(environ.get("REMOTE_ADDR") or "127.0.0.1")  # a Unix socket has no address
    host = str(environ.get("HTTP_HOST") or "localhost")
    origin = environ.get("HTTP_ORIGIN")
    names = [peer, _hostname(f"//{host}"), *([_hostname(str(origin))] if origin is not None else [])]
    if not all(map(is_loopback, names)):
        detail = f"No API keys are configured, so only this machine may use the API. Set {PREFIX}API_KEYS."
        raise Problem("unauthenticated", detail, headers={"WWW-Authenticate": _CHALLENGE})
    return _EVERYTHING


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
