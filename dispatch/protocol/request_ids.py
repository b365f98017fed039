"""Request ids: the client's own, or ours, which carry their time. Pure.

A task is found by its request id. The client's own is indexed. Ours, which most requests have, costs nothing: it begins with its
time, and the task was accepted within `WINDOW` after it, so that a search reads that part of the list by time.
"""

from __future__ import annotations

import re

import uuid_utils

#: Characters that a request id may have.
PATTERN = r"[A-Za-z0-9._~-]{1,128}"

#: Milliseconds between the making of a request id and the acceptance of its task: no request takes longer.
WINDOW = 5_000

_VALID = re.compile(PATTERN)

#: A UUIDv7 without hyphens.
_DATED = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


def new() -> str:
    """A request id of our own: 32 hex digits that begin with its time."""
    return uuid_utils.uuid7().hex


def is_valid(text: object) -> bool:
    """Whether a text can be a request id."""
    return isinstance(text, str) and _VALID.fullmatch(text) is not None


def made_at(request_id: str) -> int | None:
    """Epoch milliseconds at which a request id as `new` makes it was made; None of any other."""
    return int(request_id[:12], 16) if _DATED.fullmatch(request_id) else None


def needs_index(request_id: str, accepted_at: int) -> bool:
    """Whether a task can't be found by the time in its request id.

    Args:
        request_id: the task's.
        accepted_at: epoch milliseconds.
    """
    made = made_at(request_id)
    return made is None or not made <= accepted_at <= made + WINDOW
