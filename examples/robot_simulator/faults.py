"""Faults to inject, set through ``/control`` or by a robot's serial number.

A `Fault` changes HTTP responses; a `FaultJob` changes how a robot executes orders. Both are used up in the order in which
they were added.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import pydantic
from pydantic import Field
from pydantic.alias_generators import to_camel

#: Endpoints that a fault applies to.
Endpoint = Literal["token", "orders", "commands", "robots", "any"]

#: Maximum of pending faults or jobs.
_MAX_PENDING = 1_000


class _Rule(pydantic.BaseModel):
    """Base of the bodies of ``/control``; camelCase in JSON."""

    model_config = pydantic.ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    robot: str | None = None  #: only for this robot
    times: int | None = Field(1, ge=1)  #: number of uses; null: until removed
    after: int = Field(0, ge=0)  #: matching requests to skip first


class Fault(_Rule):
    """A fault of HTTP responses; the effects combine, latency first."""

    match: Endpoint = "any"
    latency_seconds: float = Field(0, ge=0, le=60, allow_inf_nan=False)
    status: int | None = Field(None, ge=300, le=599)  #: respond with this error
    retry_after: int | str | None = None  #: the header: seconds, or any text
    garbled: bool = False  #: respond 200 with a truncated document
    drop: Literal["before", "after"] | None = None  #: close the connection before or after the view runs


class FaultJob(_Rule):
    """How the next orders are executed."""

    seconds: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)  #: duration of the work
    outcome: Literal["SUCCEEDED", "FAILED", "ABORTED"] = "SUCCEEDED"
    at_percent: int = Field(50, ge=0, le=99)  #: progress at which it fails or is aborted
    #: What the vendor estimates instead of the seconds left, however long the robot works.
    estimate_seconds: float | None = Field(None, ge=0, le=86_400, allow_inf_nan=False)
    #: ``early``: when the order is accepted, and again at its end.
    callback: Literal["once", "twice", "never", "early"] = "once"


_T = TypeVar("_T", bound=_Rule)


@dataclasses.dataclass
class _PendingRule(Generic[_T]):
    rule: _T
    after: int
    times: int | None


class FaultQueue(Generic[_T]):
    """Pending faults or jobs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_PendingRule[_T]] = []

    def add(self, rule: _T) -> None:
        """Add a rule; the oldest is removed above `_MAX_PENDING`."""
        with self._lock:
            self._pending = [*self._pending, _PendingRule(rule, rule.after, rule.times)][-_MAX_PENDING:]

    def take(self, matches: Callable[[_T], bool]) -> _T | None:
        """Use the first matching rule once.

        Args:
            matches: whether a rule applies to the current request.

        Returns:
            The rule; None without a match, or while its `after` is not used up.
        """
        with self._lock:
            pending = next((each for each in self._pending if matches(each.rule)), None)
            if pending is None:
                return None
            if pending.after:
                pending.after -= 1
                return None
            if pending.times is not None:
                pending.times -= 1
                self._pending = [each for each in self._pending if each.times != 0]
            return pending.rule

    def pending(self) -> list[_T]:
        """The pending rules, with their remaining uses."""
        with self._lock:
            return [each.rule.model_copy(update={"times": each.times, "after": each.after}) for each in self._pending]

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._pending.clear()


# --- serial numbers ------------------------------------------------------------------------------
#: ``SN-<EFFECT>`` always, ``SN-<EFFECT>-<n>`` for the first n orders with one Idempotency-Key.
_MAGIC = re.compile(r"SN-([A-Z]+)(?:-([0-9]{1,6}))?")

#: Effects on the response to an order.
FAULTS = {
    "FLAKY": Fault(status=500),
    "BROKEN": Fault(status=500),
    "BUSY": Fault(status=429, retry_after=1),
    "DOWN": Fault(status=503, retry_after=1),
    "REFUSE": Fault(status=422),
    "GARBLED": Fault(garbled=True),
    "DROP": Fault(drop="before"),
    "LOST": Fault(drop="after"),
    "HANG": Fault(latency_seconds=30),
}

#: Effects on the execution of an order.
JOBS = {
    "STUCK": FaultJob(outcome="FAILED"),
    "ABORT": FaultJob(outcome="ABORTED"),
    "SLOW": FaultJob(seconds=60),
}

_Effect = TypeVar("_Effect")


def by_serial(effects: dict[str, _Effect], robot: str, nth: int) -> _Effect | None:
    """The effect of a robot's serial number.

    Args:
        effects: `FAULTS` or `JOBS`.
        robot: serial number.
        nth: number of the order with its Idempotency-Key, 1-based.

    Returns:
        The effect; None for an ordinary robot, or after its first n orders.
    """
    match = _MAGIC.fullmatch(robot)
    if match is None or (match[2] is not None and nth > int(match[2])):
        return None
    return effects.get(match[1])
