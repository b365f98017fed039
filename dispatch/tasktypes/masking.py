"""A payload as operators may see it: without its secrets. Pure.

Secret is what its type declares so (`dispatch.tasktypes.Secret`, or ``writeOnly`` in the schema), whatever has a name that
secrets have, at any depth, and what looks like a secret inside a text: credentials in a URL, a header's line, a token, a private
key. A declared or named secret is hidden wherever else it occurs, too.

Texts come from clients and may have hundreds of thousands of characters: no pattern here repeats what another part of it repeats.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dispatch.protocol.message import Message
from dispatch.protocol.sealing import SealError, Sealing
from dispatch.tasktypes.payload import Payload, secret_places
from dispatch.tasktypes.registry import TaskType

#: In place of a secret of any length.
MASK = "[secret]"

#: What a name contains that a secret has; compared without case and punctuation: ``X-Api-Key``, ``accessToken``.
SUSPICIOUS = (
    "authorization", "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "apikey", "accesskey",
    "privatekey", "credential", "cookie", "sessionid", "bearer",
)  # fmt: skip

#: Names of the two parts of a pair, as in a list of headers.
_NAMES, _VALUES = ("name", "key", "header", "field"), ("value", "val", "content")

#: Characters of a secret that is hidden elsewhere at least, and how many of them are: each costs one search.
_SHORTEST, _MOST_TEXTS = 4, 100

_PUNCTUATION = re.compile(r"[^a-z0-9]+")

_IN_TEXTS = (
    (re.compile(r"://[^/?#@\s]{1,512}@"), f"://{MASK}@"),
    (re.compile(r"((?:cookie|authorization)[\"']?[ \t]{0,8}:)[^\r\n]+", re.IGNORECASE), rf"\1 {MASK}"),
    (
        re.compile(
            r"((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|sessionid)"
            r"[\w.-]{0,40}[\"']?[ \t]{0,8}[=:][ \t]{0,8}[\"']?)[^\s&;,\"']+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b((?:bearer|basic)[ \t]{1,8})[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL), MASK),
)


@dataclasses.dataclass(frozen=True, slots=True)
class MaskedPayload:
    """A payload without its secrets."""

    value: Any
    places: list[str]  #: JSON Pointers to what is masked, wholly or in part
    texts: tuple[str, ...] = dataclasses.field(default=(), repr=False)  #: secrets, the longest first

    @property
    def changed(self) -> bool:
        """Whether anything is masked."""
        return bool(self.places)


def masked(model: type[Payload] | None, payload: Any) -> MaskedPayload:
    """Mask a payload.

    Args:
        model: its type's; None of a type that is not known here, whose declared secrets are not known either.
        payload: JSON-like, valid or not; it stays as it is.
    """
    try:
        declared = set(secret_places(model, payload)) if model else set()
        work = _Masking(declared)
        value = work.mask(payload, ())
        texts = tuple(sorted(work.texts, key=len, reverse=True))
        shown = _without(value, (), texts, work.places) if texts else value
        return MaskedPayload(shown, sorted({_hidden(place, texts) for place in work.places}), texts)  # names, too
    except RecursionError:  # a text with a document in a text with a document …
        return MaskedPayload(MASK, [""])


def closed(payload: Any) -> MaskedPayload:
    """A payload of which nothing but its form is shown: of a type that is not known here."""
    places = [_pointer(path) for path in _leaves(payload, ())]
    return MaskedPayload(_all_masked(payload), places)


def shown_payload(message: Message, known: TaskType | None, sealing: Sealing) -> MaskedPayload:
    """What a client sent, without its secrets; None in its place when it can't be decoded (no key, or no message of ours).

    Args:
        message: as accepted.
        known: its task type; None of a type that is not known here: then no value is shown.
        sealing: opens a sealed payload.
    """
    try:
        (payload, *_), *_ = json.loads(sealing.open(message).body)
    except (ValueError, LookupError, TypeError, RecursionError, SealError):
        return MaskedPayload(None, [])
    return masked(known.payload, payload) if known else closed(payload)


def masks_in(payload: Any) -> list[str]:
    """JSON Pointers to what has a `MASK` in it: a payload that was copied from where it is shown, without its secrets."""
    found: list[str] = []
    for path in _leaves(payload, ()):
        value = payload
        for part in path:
            value = value[part]
        if MASK in str(value) or any(MASK in str(part) for part in path):
            found.append(_pointer(path))
    return found


@functools.lru_cache(4_096)
def is_suspicious(name: str) -> bool:
    """Whether a name is one that secrets have."""
    plain = _PUNCTUATION.sub("", name.lower())
    return any(word in plain for word in SUSPICIOUS)


class _Masking:
    def __init__(self, declared: set[tuple[Any, ...]]) -> None:
        self._declared = declared
        self.places: set[str] = set()
        self.texts: set[str] = set()  #: secrets, to be hidden elsewhere

    def mask(self, value: Any, path: tuple[Any, ...]) -> Any:
        if path in self._declared:
            return self._secret(value, path)
        if isinstance(value, Mapping):
            named = _named_value(value)
            return {
                name: self._secret(member, (*path, name))
                if name == named or (isinstance(name, str) and len(name) <= 512 and is_suspicious(name))
                else self.mask(member, (*path, name))
                for name, member in value.items()
            }
        if isinstance(value, list):
            pair = len(value) == 2 and isinstance(value[0], str) and len(value[0]) <= 512 and is_suspicious(value[0])
            return [
                self._secret(item, (*path, number))
                if pair and number and isinstance(item, str)
                else self.mask(item, (*path, number))
                for number, item in enumerate(value)
            ]
        return self._text(value, path) if isinstance(value, str) else value

    def _secret(self, value: Any, path: tuple[Any, ...]) -> Any:
        if value is None or isinstance(value, bool) or value in ("", [], {}):
            return value  # there is none
        self.places.add(_pointer(path))
        for text in _texts(value):
            if len(self.texts) < _MOST_TEXTS and len(text) >= _SHORTEST:
                self.texts.add(text)
        return MASK

    def _text(self, text: str, path: tuple[Any, ...]) -> str:
        inner = _document(text)
        if inner is not None:
            before = len(self.places)
            shown = self.mask(inner, path)
            changed = len(self.places) > before
            return json.dumps(shown, ensure_ascii=False) if changed else text
        shown = text
        for pattern, replacement in _IN_TEXTS:
            shown = pattern.sub(replacement, shown)
        if shown != text:
            self.places.add(_pointer(path))
        return shown


def _named_value(value: Mapping[Any, Any]) -> str | None:
    """The member with the value of a pair like ``{"name": "Authorization", "value": "…"}``, where the name is a secret's."""
    by_name = {str(name).lower(): name for name in value} if len(value) <= 8 else {}
    given = next((value[by_name[each]] for each in _NAMES if each in by_name), None)
    if not isinstance(given, str) or len(given) > 512 or not is_suspicious(given):
        return None
    return next((by_name[each] for each in _VALUES if each in by_name), None)


def _document(text: str) -> Any:
    """The object or list that a text is the JSON of; None of any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _without(value: Any, path: tuple[Any, ...], texts: tuple[str, ...], places: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            _hidden(str(name), texts): _without(member, (*path, name), texts, places) for name, member in value.items()
        }
    if isinstance(value, list):
        return [_without(item, (*path, number), texts, places) for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    shown = _hidden(value, texts)
    if shown != value:
        places.add(_pointer(path))
    return shown


def _hidden(text: str, texts: tuple[str, ...]) -> str:
    if text == MASK:
        return text
    for each in texts:
        text = text.replace(each, MASK)
    return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for child in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(child)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path
    else:
        for name, child in children:
            yield from _leaves(child, (*path, name))


def _all_masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _all_masked(member) for name, member in value.items()}
    return [_all_masked(item) for item in value] if isinstance(value, list) else MASK


def _pointer(path: tuple[Any, ...]) -> str:
    """A JSON Pointer (RFC 6901, 3)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
