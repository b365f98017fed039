"""Authentication by API key (RFC 6750 bearer token) and authorisation by scope."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from dispatch.config import api_keys, type_scopes
from dispatch.config.settings import PREFIX, is_loopback
from dispatch.gateway.http import context
from dispatch.gateway.http.context import Principal, RequestContext
from dispatch.gateway.http.key_source import KeySource
from dispatch.gateway.http.problems import Problem
from dispatch.telemetry import metrics

_LOCAL_PRINCIPAL = Principal(api_keys.LOCAL, frozenset(api_keys.SCOPES))
_NO_KEY = api_keys.ApiKey("unknown", "0" * 64, frozenset())
_CHALLENGE = 'Bearer realm="robot-dispatch"'
_INVALID = f'{_CHALLENGE}, error="invalid_token"'

#: Why a request is refused with 401, as in metrics.
MISSING, MALFORMED, UNKNOWN, EXPIRED, PEER, HOST, ORIGIN, FORWARDED = REASONS = (
    "missing", "malformed", "unknown", "expired", "peer", "host", "origin", "forwarded",
)  # fmt: skip

#: Seconds after which a gateway that could not read its API keys may have read them.
_KEYS_RETRY = 2

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
    """Authenticates by the API keys of a source.

    Args:
        source: the API keys; without any, only loopback clients are authorised.
        pepper: key of their HMAC.
    """

    def __init__(self, source: KeySource, pepper: str) -> None:
        self._source = source
        self._pepper = pepper

    def authorise(self, scope: str, other: str = "") -> Principal:
        """Authenticate the current request and check its scope.

        Args:
            scope: required by the operation.
            other: a scope that does as well.

        Returns:
            The principal.

        Raises:
            Problem: 401 without a valid API key, 403 without the scope, 503 while no API key is known.
        """
        request = context.current()
        principal = self._authenticate(request) if self._source.keyed else _local(request.environ)
        request.principal = principal  # of a refused request, too
        if not type_scopes.permits(principal.scopes, scope) and other not in principal.scopes:
            raise insufficient(scope)
        return principal

    def stands(self, principal: Principal, scope: str) -> bool:
        """Whether a principal that `authorise` has returned for a scope would be authorised now."""
        if not principal.key:
            return not self._source.keyed
        entry = self._source.stands(principal.key)
        return entry is not None and type_scopes.permits(entry.scopes, scope)

    @property
    def keyed(self) -> bool:
        """Whether requests need an API key at all."""
        return self._source.keyed

    def local(self) -> Principal:
        """Where there are no API keys: the principal of every client on this machine.

        Raises:
            Problem: 401, the current request is of another machine, of another site's page, or forwarded.
        """
        return _local(context.current().environ)

    def admit(self, token: str) -> Principal:
        """The principal of an API key.

        Args:
            token: as a client has given it.

        Raises:
            Problem: 401 for one that is not valid, 503 while no API key is known.
        """
        return self._admit(token, bearer=True)

    def again(self, fingerprint: str) -> Principal | None:
        """The principal of an API key that was admitted before, with the scopes that it has now; None once it is revoked or over."""
        entry = self._source.stands(fingerprint)
        if entry is None:
            return None
        self._source.use(entry)
        return Principal(entry.id, entry.scopes, entry.fingerprint)

    def _authenticate(self, request: RequestContext) -> Principal:
        header = request.header("HTTP_AUTHORIZATION")
        if header is None:
            raise _unauthenticated(MISSING)
        scheme, _, token = header.partition(" ")
        return self._admit(token.strip(), bearer=scheme.lower() == "bearer")

    def _admit(self, token: str, *, bearer: bool) -> Principal:
        entry = self._find(token) if bearer else None
        if entry is None and not self._source.ready:
            raise Problem("keys-unavailable", retry_after=_KEYS_RETRY)
        if entry is None:
            raise _unauthenticated(UNKNOWN if bearer else MALFORMED, challenge=_INVALID)
        if self._source.lapsed(entry):
            raise _unauthenticated(EXPIRED, "The API key has expired.", challenge=_INVALID)
        self._source.use(entry)
        return Principal(entry.id, entry.scopes, entry.fingerprint)

    def _find(self, token: str) -> api_keys.ApiKey | None:
        """The entry of an API key.

        One HMAC and one comparison for every token, whether its id exists, how many secrets it has, or whether it is an
        API key at all: timing reveals nothing.
        """
        digest = api_keys.digest(self._pepper, token)
        entry = self._source.find(digest) or _NO_KEY
        right = hmac.compare_digest(entry.digest, digest)
        return entry if right and entry.id == api_keys.key_id(token) else None


def lapse() -> Callable[[], bool]:
    """A check for the current request: whether its API key has been revoked, or lost the scope; call it repeatedly."""
    request, principal = context.current(), context.principal()
    stands, scope = request.site.stands, request.scope
    return lambda: not stands(principal, scope)


def still_authorised() -> None:
    """After a wait.

    Raises:
        Problem: 401: the request's API key was revoked meanwhile, or lost the scope.
    """
    if lapse()():
        raise _unauthenticated(UNKNOWN, challenge=_INVALID)


def insufficient(scope: str) -> Problem:
    """The 403 for a principal without a scope."""
    challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
    detail = f"The operation needs the scope {scope}."
    return Problem("insufficient-scope", detail, headers={"WWW-Authenticate": challenge})


@functools.lru_cache(256)
def _forwards(name: str) -> bool:
    """Whether a name of the WSGI environment is a header of proxies."""
    return name in _FORWARDING or name.startswith(_X_FORWARDED)


#: Of the same few peers, request after request.
_is_loopback = functools.lru_cache(256)(is_loopback)


def _local(environ: Mapping[str, object]) -> Principal:
    """Without API keys, only loopback clients are authorised, whatever address the server is bound to.

    The Host and Origin checks reject requests of web pages in a local browser (DNS rebinding, CSRF); the last check
    those that a proxy on this machine forwards, whose peer is loopback for every client.
    """
    peer = str(environ.get("REMOTE_ADDR") or "127.0.0.1")  # a Unix socket has no address
    host = str(environ.get("HTTP_HOST") or "localhost")
    own = f"{environ.get('wsgi.url_scheme')}://{host}"
    checks = {
        PEER: _is_loopback(peer),
        HOST: _is_loopback(_hostname(f"//{host}")),
        ORIGIN: str(environ.get("HTTP_ORIGIN", own)).lower() == own.lower(),
        FORWARDED: not any(map(_forwards, environ)),
    }
    for reason, passed in checks.items():
        if not passed:
            raise _unauthenticated(reason, f"{_LOCAL_ONLY} {_REFUSALS[reason]} Set {PREFIX}API_KEYS.")
    return _LOCAL_PRINCIPAL


def _unauthenticated(reason: str, detail: str | None = None, *, challenge: str = _CHALLENGE) -> Problem:
    """The 401, counted."""
    metrics.HTTP_UNAUTHENTICATED.inc(reason)
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


@functools.lru_cache(256)
def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
