"""``/ops/queues``: every queue and lane; pauses are on a page of their own, and are named here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from dispatch.broker.queue_stats import QueueView
from dispatch.config import api_keys
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page, visitor
from dispatch.gateway.ops.pulse import Pulse, Reading

#: What can be done with all that waits in a group: a scope, a path, what it is called.
_RETRY = (api_keys.TASKS_CONTROL, "/ops/jobs/start?verb=retry-now&state=RETRY_WAIT", "Retry all now")
_REDRIVE = (api_keys.DEADLETTERS_WRITE, "/ops/jobs/start?verb=redrive", "Redrive all dead letters")

#: The groups of the page: a title, the roles of its queues, and that.
GROUPS = (
    ("Work", ("work",), None),
    ("Waiting for the next attempt", ("rung", "lease"), _RETRY),
    ("Held, and dead letters", ("hold", "dead-letters", "dead-tap"), _REDRIVE),
    ("Delay levels", ("delay",), None),
    ("Not in the broker map", ("extra",), None),
)


@dataclasses.dataclass(frozen=True, slots=True)
class QueueGroup:
    """Queues of one purpose."""

    title: str
    queues: Sequence[QueueView]  #: that are shown
    empty: int = 0  #: delay levels that have nothing in them, and are not
    pausable: bool = False  #: they are of lanes, or of the only one
    act: tuple[str, str, str] | None = None  #: on all that waits in them: a scope, a path, what it is called


def group(title: str, queues: Sequence[QueueView], act: tuple[str, str, str] | None = None) -> QueueGroup:
    """Some queues as they are shown: of the delay levels, of which there are many, only those with something in them."""
    shown = [each for each in queues if each.role != "delay" or each.total != 0 or each.drift]
    return QueueGroup(title, shown, len(queues) - len(shown), any(each.role == "work" for each in shown), act)


class QueuesPage:
    """The page.

    Args:
        frame: renders it.
        pulse: the readings.
    """

    def __init__(self, frame: Frame, pulse: Pulse) -> None:
        self._frame, self._pulse = frame, pulse

    @page("queues", "/queues", api_keys.QUEUES_READ)
    def index(self) -> Response:
        """The page."""
        reading = self._pulse.latest()
        shown = self.shown(reading, visitor().principal.scopes) if reading else {"reading": None}
        return self._frame.page("queues.html", **shown)

    @staticmethod
    def shown(reading: Reading, scopes: frozenset[str]) -> Mapping[str, Any]:
        """What the part of the page needs that is live."""
        queues, controls = reading.queues.value or (), api_keys.TASKS_CONTROL in scopes
        found = [
            group(title, [queue for queue in queues if queue.role in roles], act if act and act[0] in scopes else None)
            for title, roles, act in GROUPS
        ]
        paused = [each.what for each in reading.pauses.value or ()] if controls else []
        return {
            "reading": reading,
            "groups": [each for each in found if each.queues or each.empty],
            "ages": reading.ages.value or {},
            "controls": controls,
            "paused": paused,
        }
