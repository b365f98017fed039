"""``/ops/workers``: the workers with a recent heartbeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page, visitor
from dispatch.gateway.ops.pulse import Pulse, Reading


class WorkersPage:
    """The page.

    Args:
        frame: renders it.
        pulse: the readings.
    """

    def __init__(self, frame: Frame, pulse: Pulse) -> None:
        self._frame, self._pulse = frame, pulse

    @page("workers", "/workers", api_keys.QUEUES_READ)
    def index(self) -> Response:
        """The page."""
        reading = self._pulse.latest()
        return self._frame.page(
            "workers.html", **(self.shown(reading, visitor().principal.scopes) if reading else {"reading": None})
        )

    @staticmethod
    def shown(reading: Reading, _scopes: frozenset[str]) -> Mapping[str, Any]:
        """What the part of the page needs that is live."""
        workers = reading.workers.value or ()
        done: dict[str, int] = {}
        for worker in workers:
            for name, count in worker.done.items():
                done[name] = done.get(name, 0) + count
        return {"reading": reading, "done": sorted(done.items(), key=lambda each: -each[1])}
