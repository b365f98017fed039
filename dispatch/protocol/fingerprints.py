"""The fingerprint of an error's message: equal for messages that differ in ids, numbers, quoted text and addresses only. Pure.

A message goes through as words; one that names a particular thing (a digit in it, an address, a long run of hexadecimal digits)
becomes a placeholder, and a list of them becomes one. What is left is lower-cased, cut off and hashed.
"""

from __future__ import annotations

import hashlib
import re

from dispatch.protocol.message import MAX_ERROR

#: Hexadecimal digits of a fingerprint.
LENGTH = 16

#: What a fingerprint is, in a header or a request.
PATTERN = rf"[0-9a-f]{{{LENGTH}}}"

#: Characters of a normalised message that count: what comes later is mostly a list or a quoted document.
SIGNIFICANT = 400

#: In place of what names a particular thing.
_ANY = "<*>"

#: How sealed text begins, see `dispatch.protocol.sealing`: no two are equal.
_SEALED = "sealed:gAAAAA"

_VALID = re.compile(PATTERN)
_QUOTED = re.compile(r'"[^"\n]*"|`[^`\n]*`|“[^”\n]*”|«[^»\n]*»|(?<!\w)\'[^\'\n]*\'(?!\w)')
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
_PART = re.compile(r"[^\s,;:=()\[\]{}<>|]+")
_PARTICULAR = re.compile(r"\d|(?<![0-9a-z])[0-9a-f]{8,}(?![0-9a-z])", re.IGNORECASE)
_LIST = re.compile(r"<\*>(?:[\s:,;]+<\*>)+")


def normalised(text: str) -> str:
    """An error's message without what differs from one case of the error to the next.

    Args:
        text: any text; characters beyond `MAX_ERROR` do not count, as none of them is kept.

    Returns:
        The rest, on one line, in lower case.
    """
    text = _IPV6.sub(_ANY, _QUOTED.sub(_ANY, text[:MAX_ERROR]))
    words = [_ANY if "@" in word or "://" in word else _PART.sub(_part, word) for word in text.split()]
    return _LIST.sub(_ANY, " ".join(words)).lower()[:SIGNIFICANT]


def fingerprint(text: str) -> str:
    """The fingerprint of an error's message."""
    return hashlib.sha256(normalised(text).encode(errors="replace")).hexdigest()[:LENGTH]


def fingerprint_stored(text: str) -> str:
    """That of a message as a record or a header has it; one for all that a release without fingerprints has sealed."""
    return fingerprint("" if text.startswith(_SEALED) else text)


def is_fingerprint(text: str) -> bool:
    """Whether a text has the form of a fingerprint."""
    return _VALID.fullmatch(text) is not None


def _part(match: re.Match[str]) -> str:
    part = match.group()
    return _ANY if _PARTICULAR.search(part) else part
