"""Callback tokens: what lets another system signal one task, without an API key, until they expire. Pure.

A token is a text that names task, signal and expiry, and its HMAC. Its URL permits that signal of that task, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hmac

from dispatch.errors import DispatchError
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.waits import is_signal

#: Characters of a secret at least: `openssl rand -hex 32` makes 64.
MIN_SECRET = 32

#: Characters of a token at most: a task's id has 128, a signal's name 64.
MAX_TOKEN = 400

#: What the text begins with whose HMAC is in a token: another text of ours that is signed with the same secret is none.
_PURPOSE = b"robot-dispatch callback 1\n"

#: Bytes of the HMAC that a token has.
_MAC = 24


class InvalidToken(DispatchError):
    """It is no token of ours."""


class ExpiredToken(DispatchError):
    """Its time is over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Callback:
    """What a token stands for."""

    task_id: str
    signal: str
    expires_at: int  #: epoch seconds


@dataclasses.dataclass(frozen=True, slots=True)
class CallbackSecrets:
    """The secrets that tokens are made and verified with.

    Args:
        secrets: the first makes, all verify; none: there are no tokens.
    """

    secrets: tuple[bytes, ...] = dataclasses.field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> CallbackSecrets:
        """Secrets as the setting has them.

        Args:
            text: comma-separated; may be empty.

        Raises:
            ValueError: what is wrong, without any secret.
        """
        secrets = [part.encode() for part in map(str.strip, text.split(",")) if part]
        for number, secret in enumerate(secrets, 1):
            if len(secret) < MIN_SECRET:
                raise ValueError(f"secret {number} is shorter than {MIN_SECRET} characters")
        return cls(tuple(secrets))

    def token(self, callback: Callback) -> str:
        """A token, which a URL can have as it is.

        Raises:
            ValueError: there is no secret.
        """
        if not self.secrets:
            raise ValueError("there is no secret to make a token with")
        text = f"{callback.expires_at}\n{callback.signal}\n{callback.task_id}".encode()
        return f"{_encoded(text)}.{_encoded(_mac(self.secrets[0], text))}"

    def read(self, token: str, now: float) -> Callback:
        """What a token stands for.

        Args:
            token: as it came.
            now: epoch seconds.

        Raises:
            InvalidToken: none of the secrets made it.
            ExpiredToken: its time is over.
        """
        text, mac = _split(token)
        # Each secret costs the same time, whichever is right.
        right = [hmac.compare_digest(_mac(secret, text), mac) for secret in self.secrets]
        if not any(right):
            raise InvalidToken
        expires, signal, task_id = text.decode().split("\n")
        if now >= int(expires):
            raise ExpiredToken
        if not (is_signal(signal) and is_task_id(task_id)):
            raise InvalidToken
        return Callback(task_id, signal, int(expires))


def _split(token: str) -> tuple[bytes, bytes]:
    text, dot, mac = token.partition(".")
    if not dot or len(token) > MAX_TOKEN or not token.isascii():
        raise InvalidToken
    try:
        return _decoded(text), _decoded(mac)
    except (ValueError, binascii.Error) as exc:
        raise InvalidToken from exc


def _mac(secret: bytes, text: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + text, "sha256")[:_MAC]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


@dataclasses.dataclass(frozen=True, slots=True)
class CallbackUrls:
    """Makes callback URLs.

    Args:
        secrets: of the tokens.
        base: at which other systems reach the gateway.
    """

    secrets: CallbackSecrets = dataclasses.field(default_factory=CallbackSecrets)
    base: str = ""

    def url(self, callback: Callback) -> str | None:
        """A URL; None where there are no callbacks."""
        configured = self.secrets.secrets and self.base
        return f"{self.base}/v1/callbacks/{self.secrets.token(callback)}" if configured else None
