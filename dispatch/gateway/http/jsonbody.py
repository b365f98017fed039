"""JSON request bodies: strict where Python's parser is lenient. Pure.

Rejected, because parsers disagree about it or a later step cannot process it: NaN and Infinity, duplicate names, numbers
beyond 64 bits, lone surrogates (RFC 7493, I-JSON), any encoding but UTF-8 (RFC 8259, 8.1), and nesting deeper than
`MAX_DEPTH`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

MAX_DEPTH = 64  #: levels of nested objects and arrays

_LONGEST_INTEGER = 20  #: characters of a 64-bit integer with its sign


class MalformedJson(ValueError):
    """The body is not interoperable JSON (RFC 7493)."""


def parse(raw: bytes) -> Any:
    """Parse a body.

    Args:
        raw: the bytes received.

    Returns:
        The JSON value.

    Raises:
        MalformedJson: the reason, without a quote of the body.
    """
    try:
        value = _decoder.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise MalformedJson("the body is not UTF-8") from exc
    except json.JSONDecodeError as exc:
        raise MalformedJson(f"{exc.msg} at line {exc.lineno}, column {exc.colno}") from exc
    except RecursionError as exc:
        raise MalformedJson(f"nested deeper than {MAX_DEPTH}") from exc
    # The number of brackets is an upper bound of the depth: sufficient for nearly every body.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(value)
    if b"\\u" in raw:
        _check_surrogates(value)
    return value


def canonical(value: Any) -> bytes:
    """A serialisation independent of spacing and of the order of names."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def fingerprint(method: str, value: Any) -> str:
    """The hash that identifies a request body.

    Args:
        method: of the request.
        value: the body.

    Returns:
        SHA-256 as 64 hex digits.
    """
    return hashlib.sha256(method.encode() + b"\n" + canonical(value)).hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedJson("a name occurs twice in one object")
    return value


def _integer(text: str) -> int:
    if len(text) <= _LONGEST_INTEGER and -(2**63) <= (value := int(text)) < 2**63:
        return value
    raise MalformedJson("an integer does not fit into 64 bits")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise MalformedJson("a number is too large")
    return value


def _constant(text: str) -> NoReturn:
    raise MalformedJson(f"{text} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise MalformedJson(f"nested deeper than {MAX_DEPTH}")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise MalformedJson("a string has half of a surrogate pair") from exc
