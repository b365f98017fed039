"""The task types that are part of the system: workers run them, no client and no handler submits them."""

from __future__ import annotations

from typing import Any

from dispatch.protocol.schedules import TICK_TYPE
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType


class Tick(Payload):
    """A wake-up of a schedule."""

    definition: str  #: the schedule, as text
    at: int  #: the due time, epoch milliseconds
    leg: int = 0  #: several waits for one due time: it is far ahead, or the first one was lost
    early: bool = False  #: it wakes before the due time, to wait on


def _handled_by_the_worker(_order: Tick, _ctx: Any) -> dict[str, Any]:
    raise NotImplementedError("a worker's runner has its own handlers of internal types")


#: A schedule waits for a due time: `dispatch.schedules`.
TICK = TaskType(
    TICK_TYPE, Tick, _handled_by_the_worker, None, 60.0, "Wake a schedule, and submit what is due.", internal=True
)

#: All of them, by name.
BUILTIN = {TICK.name: TICK}
