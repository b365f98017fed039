"""Labels: short pairs that a client gives a task, by which it is found. Pure.

On the wire and in the record they are one flat text, ``customer=acme robot=r-7``: sorted, so that the same labels are
the same text, and separated by a space, which neither a key nor a value has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Labels of a task at most.
MAX_LABELS = 8

#: Patterns of a key and of a value, the same in Python and in JSON Schema.
KEY, VALUE = r"[a-z0-9._-]{1,63}", r"[!-~]{1,63}"

_PAIR = re.compile(f"({KEY})=({VALUE})")

#: Characters of the longest text.
_LONGEST = MAX_LABELS * 128 - 1


def written(labels: Mapping[str, str]) -> str:
    """Labels as one text; empty without any."""
    return " ".join(f"{key}={labels[key]}" for key in sorted(labels))


def is_valid(labels: Mapping[str, str]) -> bool:
    """Whether a task can have these labels."""
    return len(labels) <= MAX_LABELS and all(_PAIR.fullmatch(f"{key}={value}") for key, value in labels.items())


def read(text: object) -> dict[str, str]:
    """The inverse of `written`; no labels in what is not exactly such a text, since any client may have sent it."""
    if not isinstance(text, str) or not text or len(text) > _LONGEST:
        return {}
    pairs = [_PAIR.fullmatch(part) for part in text.split(" ")]
    labels = {pair[1]: pair[2] for pair in pairs if pair is not None}
    return labels if len(labels) <= MAX_LABELS and written(labels) == text else {}


def pair(text: str) -> tuple[str, str]:
    """A label as filters have it.

    Args:
        text: ``key=value``; the value may have a ``=``.

    Raises:
        ValueError: it is no label.
    """
    match = _PAIR.fullmatch(text)
    if match is None:
        raise ValueError(
            "a label is key=value: a key of 1-63 of a-z, 0-9, '.', '_', '-', a value of 1-63 visible ASCII"
        )
    return match[1], match[2]
