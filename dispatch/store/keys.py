"""The names of our Redis keys; ``robot:`` stands for the prefix setting.

The braces are literal: they make all keys of one task share a Redis Cluster slot.
"""

from __future__ import annotations


def task_keys(prefix: str, task_id: str) -> tuple[str, str, str]:
    """``robot:task:{<id>}`` (the record), ``robot:claim:{<id>}`` (the lease), ``robot:hops:{<id>}``."""
    return f"{prefix}task:{{{task_id}}}", f"{prefix}claim:{{{task_id}}}", f"{prefix}hops:{{{task_id}}}"


def idempotency_key(prefix: str, principal: str, key: str) -> str:
    """``robot:idem:<principal>:<key>``: task id and fingerprint of an Idempotency-Key."""
    return f"{prefix}idem:{principal}:{key}"


def rate_key(prefix: str, principal: str) -> str:
    """``robot:rate:<principal>``: when its share of requests will be whole again (epoch milliseconds)."""
    return f"{prefix}rate:{principal}"


def roster_key(prefix: str) -> str:
    """``robot:workers``: each worker's last sign of life, by its name."""
    return f"{prefix}workers"


def index_key(prefix: str, principal: str | None) -> str:
    """``robot:index`` or ``robot:index:<principal>``: task ids by the time they were accepted."""
    return f"{prefix}index" if principal is None else f"{prefix}index:{principal}"


def due_key(prefix: str) -> str:
    """``robot:due``: what the sweeper must look at, and when (epoch seconds)."""
    return f"{prefix}due"


def waiting_key(prefix: str) -> str:
    """``robot:waiting``: task ids by since when they can have been in the work queue (epoch milliseconds)."""
    return f"{prefix}waiting"


def dead_key(prefix: str) -> str:
    """``robot:dead``: dead letters' task ids by the time of their death."""
    return f"{prefix}dead"


def stale_key(prefix: str) -> str:
    """``robot:dead:stale``: task ids whose letters may have to leave the DLQ, each with how often it was marked."""
    return f"{prefix}dead:stale"


def known_key(prefix: str) -> str:
    """``robot:dead:known``: that every letter in the DLQ has its record; gone when Redis has lost its data."""
    return f"{prefix}dead:known"


def walk_key(prefix: str) -> str:
    """``robot:dead:walk``: who walks through the DLQ now."""
    return f"{prefix}dead:walk"


def jobs_key(prefix: str) -> str:
    """``robot:dead:jobs``: redrives of many letters that operators asked for."""
    return f"{prefix}dead:jobs"
