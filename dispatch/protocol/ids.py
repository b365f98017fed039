"""Task ids, times and trace ids, as text."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import re
import secrets
import uuid

import uuid_utils

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


_TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


#: Epoch milliseconds of the last day that has a date.
_LAST = 253_402_300_799_000


def new_task_id() -> str:
    """A UUIDv7: carries its time, which distinguishes an expired record from an unknown id."""
    return str(uuid_utils.uuid7())


def derived_id(millis: int, *parts: str | int) -> str:
    """A UUIDv7 that the same arguments always yield: what is submitted again under it is the same task.

    Args:
        millis: epoch milliseconds that it carries.
        parts: what it is derived from.
    """
    digest = hashlib.sha256(json.dumps(["robot-dispatch derived id 1", *parts]).encode()).digest()
    random = int.from_bytes(digest[:10])
    fields = (min(max(millis, 0), (1 << 48) - 1) << 16) | (7 << 12) | (random & 0xFFF)
    return str(uuid.UUID(int=(fields << 64) | (0b10 << 62) | (random >> 12 & ((1 << 62) - 1))))


def is_task_id(text: object) -> bool:
    """Whether the text can be a task id in a key, a header and a URL (ours are UUIDv7; others' may differ)."""
    return isinstance(text, str) and _is_task_id(text)


@functools.lru_cache(256)  # asked for several times in each step of a task
def _is_task_id(text: str) -> bool:
    return _TASK_ID.fullmatch(text) is not None


def issued_at(task_id: str) -> float | None:
    """Epoch seconds at which a UUIDv7 was made; None when it isn't one."""
    return int(task_id.replace("-", "")[:12], 16) / 1_000 if _UUID7.fullmatch(task_id) else None


def timestamp(millis: int | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and ``Z``, from epoch milliseconds; the nearest that has a date."""
    return None if millis is None else _timestamp(millis)


@functools.lru_cache(256)  # a record has the same one several times, and is read again and again
def _timestamp(millis: int) -> str:
    moment = dt.datetime.fromtimestamp(min(max(millis, 0), _LAST) / 1_000, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@functools.lru_cache(256)  # asked for several times in each request
def trace_id(traceparent: str | None) -> str | None:
    """The 32 hex digits of a W3C ``traceparent``; None when it isn't valid."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match and match[1]


def child_traceparent(traceparent: str | None) -> str:
    """Continue a trace, or start one when there is none or it is invalid.

    Returns:
        A ``traceparent`` with the same trace id and a fresh span id (W3C Trace Context, level 1).
    """
    match = _TRACEPARENT.fullmatch(traceparent or "")
    trace, flags = (match[1], match[3]) if match else (secrets.token_hex(16), "01")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"
