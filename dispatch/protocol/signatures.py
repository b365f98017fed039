"""Signatures of messages: the right to publish to our exchanges is no right to act as the gateway or a worker. Pure.

A signature is an HMAC-SHA256 over what a forger could profit from: which task it is and whose, which copy of it, when it
was accepted and expires, its deadline, its labels, and the body. It covers nothing that the broker adds or that changes on the way to the DLQ, so a
message that the broker itself dead-letters stays authentic, and one that is dead-lettered as it came becomes no more
authentic than it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re
from typing import Any

from dispatch.protocol.message import (
    ACCEPTED_AT,
    ATTEMPT,
    CHECKPOINT,
    CONCURRENCY_KEY,
    CYCLE,
    DEADLINE,
    DEADLINE_AT,
    EFFECT_KEY,
    LABELS,
    PARENT_ID,
    PRINCIPAL,
    SEQ,
    SIGNATURE,
    STEP,
    STEP_AT,
    TOO_LARGE,
    WAKES_AT,
    WEBHOOK,
    Message,
)

#: Characters of a secret at least: `openssl rand -hex 32` makes 64.
MIN_SECRET = 32

#: A key's id, which is in the header in clear.
_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")

#: The headers that are signed, beside content type, content encoding and the body's digest.
_SIGNED = ("id", "task", PRINCIPAL, CYCLE, SEQ, ATTEMPT, ACCEPTED_AT, "eta", "expires")

#: Headers that only some messages have.
_SIGNED_IF_THERE = (
    WAKES_AT, LABELS, DEADLINE, DEADLINE_AT, PARENT_ID, WEBHOOK, STEP, STEP_AT, CHECKPOINT, EFFECT_KEY, CONCURRENCY_KEY,
)  # fmt: skip

#: What the signed text begins with: another text of ours that is signed with the same key is no message.
_PURPOSE = "robot-dispatch message 1"


@dataclasses.dataclass(frozen=True, slots=True)
class MessageKeys:
    """The keys that messages are signed and verified with; without any, nothing is signed and everything passes.

    Args:
        secrets: by key id; the first signs, all verify.
        accept_unsigned: whether a message without a signature passes, while signatures are being introduced.
    """

    secrets: dict[str, bytes] = dataclasses.field(default_factory=dict, repr=False)
    accept_unsigned: bool = False

    @classmethod
    def parse(cls, text: str, *, accept_unsigned: bool = False) -> MessageKeys:
        """Keys as the setting has them.

        Args:
            text: ``<id>:<secret>``, comma-separated; may be empty.
            accept_unsigned: see the class.

        Raises:
            ValueError: what is wrong, without any secret.
        """
        secrets: dict[str, bytes] = {}
        for number, part in enumerate(filter(None, map(str.strip, text.split(","))), 1):
            key_id, colon, secret = part.partition(":")
            if not colon or not _ID.fullmatch(key_id):
                raise ValueError(
                    f"key {number} is not <id>:<secret>, with an id of up to 32 letters, digits, '_', '.', '-'"
                )
            if len(secret) < MIN_SECRET:
                raise ValueError(f"the secret of key {key_id!r} is shorter than {MIN_SECRET} characters")
            if key_id in secrets:
                raise ValueError(f"there are two keys {key_id!r}")
            secrets[key_id] = secret.encode()
        return cls(secrets, accept_unsigned)

    def sign(self, message: Message) -> Message:
        """The message with the first key's signature; without keys, with none: a changed copy must not keep the last one's."""
        if not self.secrets:
            if SIGNATURE not in message.headers:
                return message
            kept = {name: value for name, value in message.headers.items() if name != SIGNATURE}
            return dataclasses.replace(message, headers=kept)  # the delay of a copy that waits stays
        key_id, secret = next(iter(self.secrets.items()))
        headers = {**message.headers, SIGNATURE: f"{key_id}:{_mac(secret, message)}"}
        return dataclasses.replace(message, headers=headers)

    def fault(self, message: Message) -> str:
        """Why a message is not authentic; empty when it is.

        Args:
            message: as it was delivered.
        """
        if not self.secrets:
            return ""
        if TOO_LARGE in message.headers:
            return "only the beginning of its body was kept, so its signature can't be verified"
        signature = message.headers.get(SIGNATURE)
        if signature is None:
            return "" if self.accept_unsigned else "it is not signed"
        key_id, _, mac = signature.partition(":") if isinstance(signature, str) else ("", "", "")
        secret = self.secrets.get(key_id)
        if secret is None:
            return "it is signed with a key that is not in DISPATCH_MESSAGE_KEYS"
        if not hmac.compare_digest(mac.encode("utf-8", "replace"), _mac(secret, message).encode()):
            return "its signature is wrong"
        return ""


#: For processes that neither sign nor verify.
NO_KEYS = MessageKeys()


def _mac(secret: bytes, message: Message) -> str:
    headers = message.headers
    signed = [_PURPOSE, *map(headers.get, _SIGNED), message.content_type, message.content_encoding]
    signed.append(hashlib.sha256(message.body).hexdigest())
    # Each last and with its name, and only where it is there: a message without has the signature that it always had.
    signed += [[name, headers[name]] for name in _SIGNED_IF_THERE if name in headers]
    return hmac.digest(secret, _encoder.encode(signed).encode(), "sha256").hex()


def _foreign(value: Any) -> str:
    """A header of a kind that we never write: whatever it becomes here, no signature of ours has it."""
    return f"{type(value).__name__} {value!r}"


_encoder = json.JSONEncoder(separators=(",", ":"), default=_foreign)
