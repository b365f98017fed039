"""``/ops/pauses``: what is paused, by whom, why. The acts are in `dispatch.gateway.ops.queues`."""

from __future__ import annotations

from typing import Any

from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page
from dispatch.gateway.parts import Parts

PATH = f"{ROOT}/pauses"

#: What can be paused, for the form.
KINDS = (
    ("type", "a task type"), ("principal", "a principal"), ("key", "a concurrency key"), ("lane", "a lane"), ("all", "everything"),
)  # fmt: skip


class PausePages:
    """The page.

    Args:
        frame: renders it.
        parts: of the application.
    """

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._parts = frame, parts

    @page("pauses", "/pauses", api_keys.TASKS_CONTROL)
    def index(self) -> Response:
        """Every pause."""
        types = sorted(name for name, kind in self._parts.types.items() if not kind.internal)
        return self._frame.page("pauses.html", found=self._frame.part(self._all), kinds=KINDS, types=types)

    def _all(self) -> list[dict[str, Any]]:
        found = self._parts.pauses.all()
        held = self._parts.held.counts([each.what for each in found])
        return [{**each.to_json(), "held": held[each.what]} for each in found]
