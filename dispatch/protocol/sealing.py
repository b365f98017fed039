"""Encryption at rest: what RabbitMQ and Redis keep of a task's payload, result and errors. Pure.

A sealed body is a Fernet token (AES-128-CBC and HMAC-SHA256) in its raw bytes, 58 to 73 more than the body has, and is marked by
its content type. Sealed text, in a field of a record or in a header, is the token in base64 after a prefix. So each reader
sees what is sealed and what is not, whatever the keys are at the moment.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dispatch.errors import DispatchError
from dispatch.protocol.fingerprints import LENGTH, fingerprint, normalised
from dispatch.protocol.message import MAX_ERROR, Message

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

#: The content type of a sealed body. A worker that knows no sealing dead-letters it for its content type, unharmed.
SEALED_TYPE = "application/vnd.robot-dispatch.sealed"

#: In the setting, in place of the first key: nothing is encrypted, and what is encrypted is read.
PLAIN = "plain"

#: How sealed text begins: a token's version and the zeros of its time, so hardly a text that is not sealed.
_PREFIX, _BEGIN = "sealed:", "sealed:gAAAAA"

#: Bytes of an error's message that are sealed: the token of more would be cut off at `MAX_ERROR` characters.
_MAX_ERROR = (MAX_ERROR - len(_PREFIX)) * 3 // 4 - 96

#: What the text begins with whose HMAC is a fingerprint: no token of the same key can be taken for it.
_PURPOSE = b"robot-dispatch fingerprint 1\n"

#: The same for the fingerprint of an error.
_ERROR_PURPOSE = b"robot-dispatch error fingerprint 1\n"

#: In place of a text, and in place of a result, that can't be opened.
UNREADABLE = "(encrypted with a key that is not in DISPATCH_ENCRYPTION_KEYS)"
UNREADABLE_RESULT: Mapping[str, Any] = {"unreadable": UNREADABLE}


class SealError(DispatchError):
    """It can't be opened: its key is not here, or it was changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sealing:
    """Seals and opens; without keys, nothing is sealed and nothing that is sealed is opened.

    Args:
        keys: Fernet's, decoded; the first seals, all open.
        seals: False: nothing is sealed, while keys are being introduced or removed.
    """

    keys: tuple[bytes, ...] = dataclasses.field(default=(), repr=False)
    seals: bool = True
    _cipher: MultiFernet | None = dataclasses.field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.keys:
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - takes 90 ms

            cipher = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in self.keys])
            object.__setattr__(self, "_cipher", cipher)

    @classmethod
    def parse(cls, text: str) -> Sealing:
        """Keys as the setting has them.

        Args:
            text: Fernet keys, comma-separated, perhaps `PLAIN` before them; may be empty.

        Raises:
            ValueError: what is wrong, without any secret.
        """
        parts = list(filter(None, map(str.strip, text.split(","))))
        seals = parts[:1] != [PLAIN]
        keys = tuple(_key(part, number) for number, part in enumerate(parts if seals else parts[1:], 1))
        if not (seals or keys):
            raise ValueError(f"{PLAIN!r} needs a key after it, to read with")
        if len(set(keys)) < len(keys):
            raise ValueError("a key is there twice")
        return cls(keys, seals)

    @property
    def active(self) -> bool:
        """Whether what is written is encrypted."""
        return self.seals and self._cipher is not None

    def seal(self, message: Message) -> Message:
        """The message with its body sealed, as it is made; every copy of it keeps that body."""
        if self._cipher is None or not self.seals:
            return message
        token = self._cipher.encrypt(message.body)
        return dataclasses.replace(
            message, body=base64.urlsafe_b64decode(token), content_type=SEALED_TYPE, content_encoding="binary"
        )

    def open(self, message: Message) -> Message:
        """The message with the body that it was made with; one that is not sealed is returned as it is.

        Raises:
            SealError: it can't be opened.
        """
        if message.content_type != SEALED_TYPE:
            return message
        body = self._opened(base64.urlsafe_b64encode(message.body))
        return dataclasses.replace(message, body=body, content_type="application/json", content_encoding="utf-8")

    def seal_text(self, text: str) -> str:
        """A text of a record or a header, sealed."""
        if self._cipher is None or not self.seals:
            return text
        return f"{_PREFIX}{self._cipher.encrypt(text.encode(errors='replace')).decode()}"

    def seal_error(self, text: str) -> str:
        """An error's message, sealed and no longer than any other one may be: its end is cut off first."""
        if self._cipher is None or not self.seals:
            return text
        return self.seal_text(text.encode(errors="replace")[:_MAX_ERROR].decode(errors="ignore"))

    def error_fingerprint(self, text: str) -> str:
        """The fingerprint of an error's message, before that is sealed.

        With a key it is an HMAC: a digest would confirm a guess at the message. So it changes with the first key.
        """
        if self._cipher is None or not self.seals:
            return fingerprint(text)
        normal = normalised(text).encode(errors="replace")
        return hmac.digest(self.keys[0], _ERROR_PURPOSE + normal, "sha256").hex()[:LENGTH]

    def open_text(self, text: str) -> str:
        """A text of a record or a header, opened where it is sealed; `UNREADABLE` in place of one that can't be."""
        try:
            return self.unsealed(text)
        except SealError:
            return UNREADABLE

    def open_json(self, text: str) -> Any:
        """The same of a result, parsed; `UNREADABLE_RESULT` in place of one that can't be opened."""
        try:
            return json.loads(self.unsealed(text))
        except SealError:
            return dict(UNREADABLE_RESULT)

    def fingerprints(self, digest: str) -> tuple[str, ...]:
        """What an Idempotency-Key may have been reserved with for the same request.

        A digest alone shows, to a reader of Redis, which payloads are equal, and confirms a guess.

        Args:
            digest: of the request.

        Returns:
            First the one to write, then those of other keys, and of before there were any.
        """
        keyed = [hmac.digest(key, _PURPOSE + digest.encode(errors="replace"), "sha256").hex() for key in self.keys]
        return (*keyed, digest) if self.seals else (digest, *keyed)

    def unsealed(self, text: str) -> str:
        """A text of a record or a header, opened where it is sealed.

        Raises:
            SealError: it can't be opened.
        """
        return self._opened(text[len(_PREFIX) :].encode()).decode() if text.startswith(_BEGIN) else text

    def _opened(self, token: bytes) -> bytes:
        if self._cipher is None:
            raise SealError("it is encrypted, and DISPATCH_ENCRYPTION_KEYS is not set")
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - imported with the cipher

        try:
            return self._cipher.decrypt(token)
        except InvalidToken:
            text = "it is encrypted with a key that is not in DISPATCH_ENCRYPTION_KEYS, or was changed since"
            raise SealError(text) from None


#: For processes without keys.
UNSEALED = Sealing()


def _key(text: str, number: int) -> bytes:
    try:
        key = base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError(f"key {number} is no Fernet key: 32 bytes in URL-safe base64")
    return key
