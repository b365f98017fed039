"""``/ops``: the whole system at a glance, and what needs a hand."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.ops import broker_map
from dispatch.gateway.ops.concerns import concerns
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
            "concerns": concerns(reading, scopes, refuses=self._guard.refuses()),
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
