"""``/ops``: the whole system at a glance, and what needs a hand."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from flask import Response

from dispatch.broker.queue_stats import QueueView
from dispatch.config import api_keys
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.ops import broker_map
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page, visitor
from dispatch.gateway.ops.pulse import Pulse, Reading
from dispatch.protocol import figures
from dispatch.store.history import MINUTE, History

#: Minutes of the charts.
HOUR = 60

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
        history: the last hour.
    """

    def __init__(self, frame: Frame, pulse: Pulse, guard: Guard, history: History) -> None:
        self._frame, self._pulse, self._guard, self._history = frame, pulse, guard, history

    @page("overview", "")
    def index(self) -> Response:
        """The page."""
        reading, scopes = self._pulse.latest(), visitor().principal.scopes
        shown = (
            self.shown(reading, scopes) if reading else {"reading": None, "sees_queues": api_keys.QUEUES_READ in scopes}
        )
        return self._frame.page("overview.html", **shown)

    @page("history", "/history", api_keys.QUEUES_READ)
    def history(self) -> Reply:
        """The last hour, minute by minute, for the charts: a list for each line, and the times of its points."""
        last = int(time.time() // MINUTE)
        minutes = self._history.read(last - HOUR + 1, last)
        return json_reply({"at": [each * MINUTE for each in range(last - HOUR + 1, last + 1)], **lines(minutes)})

    def shown(self, reading: Reading, scopes: Collection[str]) -> Mapping[str, Any]:
        """What the part of the page needs that is live, as far as scopes permit."""
        sees_queues, sees_all = api_keys.QUEUES_READ in scopes, api_keys.TASKS_READ_ALL in scopes
        queues = reading.queues.value or ()
        return {
            "reading": reading,
            "sees_queues": sees_queues,
            "sees_all": sees_all,
            "states": STATES,
            "map": broker_map.draw(queues, reading.workers.value or (), reading.ages.value or {})
            if sees_queues and queues
            else None,
            "concerns": list(concerns(reading, self._guard, sees_queues=sees_queues, sees_all=sees_all)),
        }


def lines(minutes: Sequence[Mapping[str, int]]) -> dict[str, list[float | None]]:
    """The lines of the charts. Latencies in seconds; None in a minute in which nothing ended."""
    quantiles = {"run50": (figures.RUN, 0.5), "run95": (figures.RUN, 0.95), "wait95": (figures.WAIT, 0.95)}
    drawn: dict[str, list[float | None]] = {
        name: [minute.get(name, 0) for minute in minutes] for name in ("succeeded", "failed", "dead")
    }
    for name, (what, share) in quantiles.items():
        drawn[name] = [figures.quantile(minute, what, share) for minute in minutes]
    return drawn


def concerns(reading: Reading, guard: Guard, *, sees_queues: bool, sees_all: bool) -> Iterator[Concern]:
    """What needs a hand, the worst first."""
    for failure in reading.failures.values():
        if failure:
            yield Concern("bad", failure)
    if guard.refuses():
        yield Concern("bad", "The work queue is over its limit: new tasks are refused with 429.", "/ops/queues")
    if sees_queues and reading.workers.value is not None and not reading.workers.value:
        yield Concern("bad", "No worker has a recent heartbeat: nothing runs.", "/ops/workers")
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
            yield Concern(
                "bad", f"{queue.ready:,} messages wait in {queue.name}, which has no consumer.", "/ops/queues"
            )
