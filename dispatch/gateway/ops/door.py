"""Who is at the console: sign-in with an API key, and the checks of every request.

A request is let in by the session's cookie, and its API key is looked up again: one that was revoked, has lapsed or lost a scope
takes effect with the next request. What changes something must come from a page of the console: the form's token, and what the
browser sends as the request's origin.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import flask
from werkzeug.wrappers import Response as AnyResponse

from dispatch.errors import StoreError
from dispatch.gateway.http import context
from dispatch.gateway.http.auth import Keyring
from dispatch.gateway.http.context import Principal
from dispatch.gateway.http.operations import Meter
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops.session import Session, Sessions
from dispatch.store.console_sessions import EndedSessions

ROOT = "/ops"

#: Names of the cookies; over HTTPS with the prefix that no page without HTTPS can set (RFC 6265bis, 4.1.3.1).
_COOKIE, _ENTRY_COOKIE, _SECURE = "ops", "ops-entry", "__Secure-"

#: A header of the requests by which a page updates itself.
LIVE = "X-Ops-Live"

#: Bytes of a form.
MAX_FORM = 65_536

#: Seconds for which the form of the sign-in is good.
_ENTRY = 3_600

#: Names of operations, in the audit log.
SIGN_IN, SIGN_OUT = "signIn", "signOut"


class SignInNeeded(Exception):
    """The request has no session that is good, and its API key stands; see `Door.enter`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Visitor:
    """Who has sent the current request."""

    principal: Principal
    session: Session
    token: str  #: of forms


class Door:
    """Lets requests in. Thread-safe.

    Args:
        keyring: the API keys.
        sessions: makes and reads sessions.
        ended: the sessions that were ended before their time.
        meter: counts attempts to sign in, by address.
    """

    def __init__(self, keyring: Keyring, sessions: Sessions, ended: EndedSessions, meter: Meter) -> None:
        self._keyring, self._sessions, self._ended, self._meter = keyring, sessions, ended, meter

    @property
    def keyed(self) -> bool:
        """Whether there is anything to sign in with."""
        return self._keyring.keyed

    def enter(self) -> Visitor:
        """Who has sent the current request.

        Raises:
            SignInNeeded: there is no session.
            Problem: 401, where there are no API keys: it is not of this machine; 403, it is forged; 503, without Redis, a form.
        """
        changes = flask.request.method not in ("GET", "HEAD")
        if changes:
            check_origin()
        now = time.time()
        session = self._sessions.read(flask.request.cookies.get(_named(_COOKIE)), now)
        if not self.keyed:
            principal: Principal | None = self._keyring.local()
            session = session if session is not None and not session.key else self._begin("", now)
        else:
            principal = self._keyring.again(session.key) if session is not None and session.key else None
        if session is None or principal is None or self._is_over(session, must_know=changes):
            raise SignInNeeded
        if changes:
            self.check_token(session)
        elif LIVE not in flask.request.headers and (renewed := self._sessions.renewed(session, now)):
            self._set(_COOKIE, renewed)
        context.current().principal = principal
        return Visitor(principal, session, self._sessions.token(session))

    def still(self, visitor: Visitor, scope: str | None) -> Callable[[], bool]:
        """A check, to be called repeatedly: whether a visitor would still be let in, with the scopes that it had or one of them.

        Args:
            visitor: who was let in.
            scope: that it needs; None: none was lost.
        """
        stands, principal, until = context.current().site.stands, visitor.principal, visitor.session.until
        scopes = [scope] if scope else sorted(principal.scopes)
        return lambda: time.time() < until and all(stands(principal, each) for each in scopes)

    def entry(self) -> str:
        """The token for the form of the sign-in, which has a short session of its own."""
        session = self._begin("", time.time(), _ENTRY_COOKIE)
        return self._sessions.token(session)

    def sign_in(self, key: str) -> Principal:
        """Begin a session; it has nothing of any that was before.

        Args:
            key: the API key.

        Returns:
            The principal.

        Raises:
            Problem: 401, 403, 429, 503.
        """
        check_origin()
        session = self._sessions.read(flask.request.cookies.get(_named(_ENTRY_COOKIE)), time.time())
        if session is None:
            raise _forged("The form has lapsed. Try again.")
        self.check_token(session)
        self._meter.spend(f"sign-in:{context.current().environ.get('REMOTE_ADDR') or ''}")
        principal = self._keyring.admit(key)
        context.current().principal = principal
        self._begin(principal.key, time.time())
        self._drop(_ENTRY_COOKIE)
        return principal

    def sign_out(self, visitor: Visitor) -> None:
        """End a session, for every copy of its cookie.

        Raises:
            StoreError: Redis did not take it; the browser's cookie is deleted all the same.
        """
        self._drop(_COOKIE)
        longest = visitor.session.until - time.time() + 60
        self._ended.add(visitor.session.id, longest)

    def check_token(self, session: Session) -> None:
        """Whether the current request's form was made for a session.

        Raises:
            Problem: 403.
        """
        flask.request.max_content_length = MAX_FORM
        if not self._sessions.fits(session, flask.request.form.get("token", "")):
            raise _forged("The form is not of this session. Load the page again, and repeat what you did.")

    def _is_over(self, session: Session, *, must_know: bool) -> bool:
        try:
            return self._ended.has(session.id)
        except StoreError:
            # Without Redis nothing can be changed, and operators must see that it is down.
            if must_know:
                raise
            return False

    def _begin(self, key: str, now: float, cookie: str = _COOKIE) -> Session:
        session = self._sessions.new(key, now)
        self._set(cookie, session)
        return session

    def _set(self, name: str, session: Session) -> None:
        left = min(session.until - int(time.time()), _ENTRY) if name == _ENTRY_COOKIE else None
        set_cookie(name, self._sessions.write(session), left)

    def _drop(self, name: str) -> None:
        set_cookie(name, "", 0)


def set_cookie(name: str, value: str, seconds: int | None) -> None:
    """Have the response to the current request set a cookie for the console's pages alone.

    Args:
        name: without its prefix.
        value: the value.
        seconds: that it lasts; None: until the browser ends.
    """

    def add(response: Any) -> Any:
        response.set_cookie(
            _named(name), value, max_age=seconds, path=ROOT, secure=_is_https(), httponly=True, samesite="Strict"
        )
        return response

    flask.after_this_request(add)


def cookie(name: str) -> str | None:
    """A cookie of the current request that `set_cookie` has set."""
    return flask.request.cookies.get(_named(name))


def check_origin() -> None:
    """Whether the current request comes from a page of this gateway, as far as its browser sends that.

    Raises:
        Problem: 403.
    """
    sent = flask.request.headers
    origin, site = sent.get("Origin"), sent.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc != sent.get("Host")
    ):
        raise _forged("The request comes from another site.")


def to_sign_in() -> AnyResponse:
    """Lead to the sign-in, and back afterwards."""
    request = flask.request
    wanted = (
        request.full_path.removesuffix("?") if request.method == "GET" and "HX-Request" not in request.headers else ""
    )
    to = f"{ROOT}/sign-in" + (f"?next={quote(wanted, safe='/')}" if wanted not in ("", ROOT) else "")
    if "text/event-stream" in request.headers.get(
        "Accept", ""
    ):  # a browser would not understand, and connect again for ever
        return flask.Response("", 204)
    if "HX-Request" in request.headers:  # htmx would put the form into the part of a page
        return flask.Response("", 204, {"HX-Redirect": to})
    return flask.redirect(to, 303)


def way_back(wanted: str) -> str:
    """Where to go after the sign-in: a page of the console, whatever a link to the sign-in has."""
    inside = wanted == ROOT or wanted.startswith((f"{ROOT}/", f"{ROOT}?"))
    plain = (
        wanted.isprintable() and wanted.isascii() and "\\" not in wanted and "//" not in wanted and "/." not in wanted
    )
    return wanted if inside and plain and not wanted.startswith(f"{ROOT}/sign-") else ROOT


def _is_https() -> bool:
    environ = context.current().environ
    return "https" in (environ.get("wsgi.url_scheme"), environ.get("HTTP_X_FORWARDED_PROTO"))


def _named(name: str) -> str:
    return _SECURE + name if _is_https() else name


def _forged(detail: str) -> Problem:
    return Problem("forged-request", detail)
