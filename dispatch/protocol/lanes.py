"""Lanes of work: several work queues, each for some task types, so that a flood of one kind delays and refuses no other. Pure.

A lane's queue is bound by the routing keys of its types. Everything else goes to the default lane, `robot.task.q`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator

from dispatch.protocol import names

#: The lane of every type that no other lane has.
DEFAULT = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_TYPES = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*(\.\*)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """A work queue of its own for some task types."""

    name: str
    types: tuple[str, ...]  #: names, or ``robot.*``: ``robot``, and every name that begins with ``robot.``

    @property
    def queue(self) -> str:
        """Its queue's name, e.g. ``robot.task.q.bulk``."""
        return names.lane_queue(self.name)

    @property
    def keys(self) -> tuple[str, ...]:
        """The routing keys that its queue is bound by."""
        return tuple(f"{names.routing_key(_stem(each))}{'.#' if _is_prefix(each) else ''}" for each in self.types)

    def covers(self, task_type: str) -> bool:
        """Whether it is the lane of a task type."""
        return any(_covers(each, task_type) for each in self.types)


@dataclasses.dataclass(frozen=True, slots=True)
class Lanes:
    """The lanes beside the default one; none: there is one work queue."""

    lanes: tuple[Lane, ...] = ()

    def __iter__(self) -> Iterator[Lane]:
        return iter(self.lanes)

    def __len__(self) -> int:
        return len(self.lanes)

    def __str__(self) -> str:
        return ";".join(f"{lane.name}={','.join(lane.types)}" for lane in self.lanes)

    @property
    def queues(self) -> dict[str, str]:
        """The work queues by lane, the default one first."""
        return {DEFAULT: names.WORK_QUEUE, **{lane.name: lane.queue for lane in self.lanes}}

    def lane_of(self, task_type: str) -> str:
        """The lane of a task type."""
        return next((lane.name for lane in self.lanes if lane.covers(task_type)), DEFAULT)

    def queue_of(self, task_type: str) -> str:
        """The work queue of a task type."""
        return next((lane.queue for lane in self.lanes if lane.covers(task_type)), names.WORK_QUEUE)

    def lane_with(self, queue: str) -> str | None:
        """The lane that a queue belongs to; None of any other queue, and where there is one work queue."""
        return next((lane for lane, each in self.queues.items() if each == queue), None) if self.lanes else None


#: One work queue for all.
NO_LANES = Lanes()


@dataclasses.dataclass(frozen=True, slots=True)
class LaneLimits:
    """The depth limits of lanes that have their own; all others have that of the default lane."""

    limits: tuple[tuple[str, int], ...] = ()  #: by the lane's name

    def __str__(self) -> str:
        return ";".join(f"{name}={limit}" for name, limit in self.limits)

    def of(self, lane: str | None) -> int | None:
        """A lane's own limit, if it has one."""
        return dict(self.limits).get(lane or "")


#: Every lane has the limit of the default lane.
NO_LIMITS = LaneLimits()


def parse_limits(text: str) -> LaneLimits:
    """Depth limits as the setting has them.

    Args:
        text: ``bulk=50000;robots=500``; may be empty.

    Raises:
        ValueError: what is wrong.
    """
    found: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, limit = (word.strip() for word in part.partition("="))
        if not limit.isascii() or not limit.isdigit() or not int(limit):
            raise ValueError(f"{part!r} is no limit: <lane>=<messages>")
        if name in found:
            raise ValueError(f"lane {name!r} has two limits")
        found[name] = int(limit)
    return LaneLimits(tuple(found.items()))


def parse_lanes(text: str) -> Lanes:
    """Lanes as the setting has them.

    Args:
        text: ``bulk=echo,http.request;robots=robot.*``; may be empty.

    Raises:
        ValueError: what is wrong.
    """
    lanes = tuple(_lane(part) for part in filter(None, map(str.strip, text.split(";"))))
    given = [lane.name for lane in lanes]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise ValueError(f"there are two lanes {', '.join(twice)}")
    patterns = [(lane.name, each) for lane in lanes for each in lane.types]
    for (one, first), (other, second) in itertools.combinations(patterns, 2):
        if _covers(first, _stem(second)) or _covers(second, _stem(first)):
            raise ValueError(f"{first!r} of lane {one} and {second!r} of lane {other} overlap: a task would be in both")
    return Lanes(lanes)


def _lane(text: str) -> Lane:
    name, equals, rest = (part.strip() for part in text.partition("="))
    types = tuple(filter(None, map(str.strip, rest.split(","))))
    if not equals or not types:
        raise ValueError(f"{text!r} is no lane: <name>=<task type>,…")
    if not _NAME.fullmatch(name) or name == DEFAULT:
        raise ValueError(f"{name!r} is no name of a lane: up to 32 of a-z, 0-9 and '-', and not {DEFAULT!r}")
    if wrong := [each for each in types if not _TYPES.fullmatch(each)]:
        raise ValueError(f"{', '.join(wrong)}: neither a task type nor <prefix>.*")
    return Lane(name, types)


def _is_prefix(pattern: str) -> bool:
    return pattern.endswith(".*")


def _stem(pattern: str) -> str:
    return pattern.removesuffix(".*")


def _covers(pattern: str, task_type: str) -> bool:
    stem = _stem(pattern)
    return task_type == stem or (_is_prefix(pattern) and task_type.startswith(f"{stem}."))
