"""``/ops``: the whole system at a glance, and what needs a hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from flask import Response

from dispatch.broker.queue_stats import QueueView
from dispatch.config import api_keys
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page, visitor
from dispatch.gateway.ops.pulse import Pulse, Reading

#: The states that the counts begin with, in the order of a task's way.
STATES = (
    "SCHEDULED", "DELAYED", "QUEUED", "RETRY_WAIT", "HELD", "RUNNING", "WAITING", "SUCCEEDED", "DEAD_LETTERED", "EXPIRED",
    "CANCELLED", "REJECTED",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Concern:
    """Something that needs a hand."""

    level: str  #: ``bad`` or ``warn``
    text: str
    href: str = ""  #: where to see more


class OverviewPage:
    """The page.

    Args:
        frame: renders it.
        pulse: the readings.
        guard: whether tasks are refused.
    """

    def __init__(self, frame: Frame, pulse: Pulse, guard: Guard) -> None:
        self._frame, self._pulse, self._guard = frame, pulse, guard

    @page("overview", "")
    def index(self) -> Response:
        """The page."""
        reading, scopes = self._pulse.latest(), visitor().principal.scopes
        return self._frame.page("overview.html", **(self.shown(reading, scopes) if reading else {"reading": None}))

    def shown(self, reading: Reading, scopes: Collection[str]) -> Mapping[str, Any]:
        """What the part of the page needs that is live, as far as scopes permit."""
        sees_queues, sees_all = api_keys.QUEUES_READ in scopes, api_keys.TASKS_READ_ALL in scopes
        queues = reading.queues.value or ()
        return {
            "reading": reading,
            "sees_queues": sees_queues,
            "sees_all": sees_all,
            "states": STATES,
            "work": [queue for queue in queues if queue.role == "work"],
            "busy": [queue for queue in queues if queue.role not in ("delay", "work") or queue.total],
            "delays": [queue for queue in queues if queue.role == "delay"],
            "concerns": list(concerns(reading, self._guard, sees_queues=sees_queues, sees_all=sees_all)),
        }


def concerns(reading: Reading, guard: Guard, *, sees_queues: bool, sees_all: bool) -> Iterator[Concern]:
    """What needs a hand, the worst first."""
    for failure in reading.failures.values():
        if failure:
            yield Concern("bad", failure)
    if guard.refuses():
        yield Concern("bad", "The work queue is over its limit: new tasks are refused with 429.")
    if sees_queues and reading.workers.value is not None and not reading.workers.value:
        yield Concern("bad", "No worker has a recent heartbeat: nothing runs.")
    if sees_queues:
        yield from _queues(reading.queues.value or ())
    if sees_all and reading.counts.value is not None:
        dead = sum(reading.counts.value.dead_letters.values())
        if dead:
            yield Concern(
                "warn",
                f"{dead:,} dead {'letter waits' if dead == 1 else 'letters wait'} for a decision.",
                "/ops/tasks?state=DEAD_LETTERED",
            )
        if held := reading.counts.value.by_state.get("HELD", 0):
            yield Concern("warn", f"{held:,} {'task is' if held == 1 else 'tasks are'} held.", "/ops/tasks?state=HELD")


def _queues(queues: Sequence[QueueView]) -> Iterator[Concern]:
    drifted = [queue for queue in queues if queue.drift]
    if drifted:
        yield Concern(
            "bad",
            f"Drift from the broker map: {drifted[0].drift[0]}"
            + (f" (and {len(drifted) - 1} more)" if len(drifted) > 1 else ""),
        )
    for queue in queues:
        if queue.role == "work" and queue.ready and not queue.consumers:
            yield Concern("bad", f"{queue.ready:,} messages wait in {queue.name}, which has no consumer.")
