"""What goes wrong next: told through ``/control``, or by a robot's serial number.

A fault spoils HTTP answers; a `Job` shapes how a robot works. Both are used up one after the other,
first come, first served.
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

#: What a fault can apply to.
Endpoint = Literal["token", "orders", "commands", "robots", "any"]

#: Faults and jobs that can wait to happen.
_MAX_WAITING = 1_000


class _Told(pydantic.BaseModel):
    """Base of what ``/control`` is told; camelCase in JSON."""

    model_config = pydantic.ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    robot: str | None = None  #: only for this robot
    times: int | None = Field(1, ge=1)  #: how often; null until removed
    after: int = Field(0, ge=0)  #: matching requests that pass unharmed before


class Fault(_Told):
    """One way to spoil an answer; the effects add up, latency first."""

    match: Endpoint = "any"
    latency_seconds: float = Field(0, ge=0, le=60, allow_inf_nan=False)
    status: int | None = Field(None, ge=300, le=599)  #: answer with this error
    retry_after: int | str | None = None  #: the header: seconds, or any text
    garbled: bool = False  #: answer 200 with half a document
    drop: Literal["before", "after"] | None = None  #: cut the connection before or after the work is done


class Job(_Told):
    """How the next orders go."""

    seconds: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)  #: how long the robot works
    outcome: Literal["SUCCEEDED", "FAILED", "ABORTED"] = "SUCCEEDED"
    at_percent: int = Field(50, ge=0, le=99)  #: when it fails or is aborted


_T = TypeVar("_T", bound=_Told)


@dataclasses.dataclass
class _Waiting(Generic[_T]):
    told: _T
    after: int
    times: int | None


class Queue(Generic[_T]):
    """Faults or jobs that wait to happen. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[_T]] = []

    def add(self, told: _T) -> None:
        """Let something happen; the oldest is forgotten when too many wait."""
        with self._lock:
            self._waiting = [*self._waiting, _Waiting(told, told.after, told.times)][-_MAX_WAITING:]

    def take(self, matches: Callable[[_T], bool]) -> _T | None:
        """Use up one turn of the first that matches.

        Args:
            matches: whether it applies to what happens now.

        Returns:
            What happens; None when nothing does, or not yet.
        """
        with self._lock:
            waiting = next((one for one in self._waiting if matches(one.told)), None)
            if waiting is None:
                return None
            if waiting.after:
                waiting.after -= 1
                return None
            if waiting.times is not None:
                waiting.times -= 1
                self._waiting = [one for one in self._waiting if one.times != 0]
            return waiting.told

    def left(self) -> list[_T]:
        """What still waits, with the turns left."""
        with self._lock:
            return [one.told.model_copy(update={"times": one.times, "after": one.after}) for one in self._waiting]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._waiting.clear()


# --- serial numbers ------------------------------------------------------------------------------
#: ``SN-<WORD>`` for ever, ``SN-<WORD>-<n>`` for the first n orders with one idempotency key.
_MAGIC = re.compile(r"SN-([A-Z]+)(?:-([0-9]{1,6}))?")

#: Robots whose orders are answered wrongly.
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

#: Robots that take the order and then don't do it right.
JOBS = {
    "STUCK": Job(outcome="FAILED"),
    "ABORT": Job(outcome="ABORTED"),
    "SLOW": Job(seconds=60),
}

_Effect = TypeVar("_Effect")


def by_serial(effects: dict[str, _Effect], robot: str, nth: int) -> _Effect | None:
    """What a robot's serial number asks for.

    Args:
        effects: `FAULTS` or `JOBS`.
        robot: serial number.
        nth: which order of its idempotency key this is, 1-based.

    Returns:
        The effect; None for an ordinary robot, or once its number is used up.
    """
    match = _MAGIC.fullmatch(robot)
    if match is None or (match[2] is not None and nth > int(match[2])):
        return None
    return effects.get(match[1])
