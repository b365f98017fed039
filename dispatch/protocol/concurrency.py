"""Concurrency keys, and limits of task types: how many of the tasks that share one may run at once. Pure.

A key's name is part of names in Redis and of URLs. One that a task type makes is ``robot-7``; one that a client gives is its
own, ``<principal>:<key>``, so that no client can hold up another; a type's limit is ``max_running:<type>``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from dispatch.protocol.message import CONCURRENCY_KEY, Message
from dispatch.protocol.rates import Rate, RateLimit

#: What a client may give as a key.
CLIENTS = r"[A-Za-z0-9._~-]{1,128}"

#: Characters of a name that a task type makes; a longer one ends in its digest.
LONGEST = 160

#: Tasks of one key at once, at most.
MAX_LIMIT = 1_000

#: A cycle's first fence: no cycle has so many copies.
_CYCLE = 10_000_000


class KeyLimit(NamedTuple):
    """A key of a task, and how many tasks may hold it."""

    name: str
    limit: int

    @property
    def held_by(self) -> str:
        """As a task shows it that waits for it."""
        return self.name if self.name.startswith("max_running:") else f"key:{self.name}"


#: What a delivery may have to take before it is claimed.
Limit = KeyLimit | RateLimit


@dataclasses.dataclass(frozen=True, slots=True)
class TypeLimits:
    """The limits of a task type."""

    limit: int = 1  #: tasks with one concurrency key at once
    max_running: int | None = None  #: tasks of the type at once; None: any number
    rate: Rate | None = None  #: its runs that begin in a time; None: any number


def name_of(value: object) -> str:
    """The name of a key that a task type makes, from any value; different for different texts."""
    quoted = urllib.parse.quote(str(value).replace("~", "%7E"), safe="").replace("%", "~")
    if len(quoted) <= LONGEST:
        return quoted
    return f"{quoted[: LONGEST - 65]}~{hashlib.sha256(quoted.encode()).hexdigest()}"


def clients_name(principal: str, key: str) -> str:
    """The name of a key that a client gives."""
    return f"{name_of(principal)}:{key}"


def keys_of(message: Message, limits: Mapping[str, TypeLimits]) -> tuple[Limit, ...]:
    """What a copy has to take before it may run, in this order: the rate last, since it is used up even where a key is taken.

    Args:
        message: the copy.
        limits: of the types that have any.
    """
    own, of_type = message.headers.get(CONCURRENCY_KEY), limits.get(message.type)
    if own is None and of_type is None:
        return ()
    keys: list[Limit] = []
    if isinstance(own, str) and own:
        keys.append(KeyLimit(own, of_type.limit if of_type else 1))
    if of_type is not None and of_type.max_running is not None:
        keys.append(KeyLimit(f"max_running:{message.type}", of_type.max_running))
    if of_type is not None and of_type.rate is not None:
        keys.append(RateLimit(message.type, of_type.rate))
    return tuple(keys)


def fence_of(cycle: int, seq: int) -> int:
    """The copies of a task in their order, as one number."""
    return cycle * _CYCLE + seq


def end_of(cycle: int) -> int:
    """A fence above those of all copies of a cycle, and below the next one's."""
    return (cycle + 1) * _CYCLE - 1
