"""A session of the console: what its cookie holds, how long it lasts, and the token that its forms carry. Pure.

The cookie names the session and, by its fingerprint, the API key that began it; the key's scopes are looked up at each request. It
is signed with a key that is derived from the pepper of the API keys, so all processes of all gateways read each other's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
import secrets

#: What each MAC is for; without it, the MAC of one thing could pass for another's.
_COOKIE, _FORM = "console cookie", "console form"

_ID = r"[A-Za-z0-9_-]{22}"
_TEXT = re.compile(rf"({_ID})\.([0-9a-f]{{0,12}})\.(\d{{1,12}})\.(\d{{1,12}})\.([0-9a-f]{{64}})")


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session; times are epoch seconds."""

    id: str  #: 128 random bits, new at each sign-in
    key: str  #: fingerprint of the API key; empty before a sign-in, and where there are no API keys
    began: int
    until: int  #: after which its cookie is not good any more


class Sessions:
    """Makes and reads sessions.

    Args:
        secret: of the signatures; empty where there are no API keys: a session then is no evidence of anything.
        idle: seconds without a click after which a session is over.
        longest: seconds after which it is over in any case.
    """

    def __init__(self, secret: str, *, idle: float, longest: float) -> None:
        self._secret = secret.encode()
        self._idle, self._longest = int(idle), int(longest)

    def new(self, key: str, now: float) -> Session:
        """A session that begins.

        Args:
            key: fingerprint of the API key.
            now: epoch seconds.
        """
        return Session(secrets.token_urlsafe(16), key, int(now), int(now) + min(self._idle, self._longest))

    def read(self, text: str | None, now: float) -> Session | None:
        """The session of a cookie; None without one, or when it was not made here, was altered, or is over.

        Args:
            text: the cookie.
            now: epoch seconds.
        """
        match = _TEXT.fullmatch(text or "")
        if match is None or not hmac.compare_digest(match[5], self._mac(_COOKIE, match[0][: match.start(5) - 1])):
            return None
        session = Session(match[1], match[2], int(match[3]), int(match[4]))
        return session if session.began <= now + self._idle and now < session.until else None

    def write(self, session: Session) -> str:
        """The cookie of a session."""
        text = f"{session.id}.{session.key}.{session.began}.{session.until}"
        return f"{text}.{self._mac(_COOKIE, text)}"

    def renewed(self, session: Session, now: float) -> Session | None:
        """The session with its time begun anew by a click; None while that would gain little, or nothing."""
        until = min(int(now) + self._idle, session.began + self._longest)
        return dataclasses.replace(session, until=until) if until - session.until > self._idle // 4 else None

    def token(self, session: Session) -> str:
        """What a form must carry: a page of another site, which cannot read the console's, does not have it."""
        return self._mac(_FORM, session.id)

    def fits(self, session: Session, token: str) -> bool:
        """Whether a form was made for a session."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()
