"""``/ops/keys``: concurrency keys, each a robot as a rule: who holds one, and who waits; and the rates of task types."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import fields
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page
from dispatch.gateway.parts import Parts
from dispatch.protocol.record import Brief
from dispatch.store.concurrency import KeyView
from dispatch.store.rates import RateView
from dispatch.tasktypes.registry import rates_of


@dataclasses.dataclass(frozen=True, slots=True)
class Seat:
    """A task at a key."""

    task_id: str
    brief: Brief | None  #: None of a task whose record is gone
    lapses: int | None = None  #: of a holder: when it lets go unless its lease is renewed, epoch milliseconds


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key, and the tasks at it."""

    view: KeyView
    holders: Sequence[Seat]
    first: Sequence[Seat]  #: of those that wait


@dataclasses.dataclass(frozen=True, slots=True)
class PaceView:
    """A rate of a task type, how much of it is used, and who waits for it."""

    view: RateView
    type: str

    @property
    def unit(self) -> str:
        """Its time in words."""
        return {1: "second", 60: "minute", 3_600: "hour"}[self.view.rate.seconds]

    @property
    def percent(self) -> int:
        """How much of it is used."""
        return min(100, round(100 * self.view.begun / self.view.rate.runs))


class KeysPages:
    """The page.

    Args:
        frame: renders it.
        parts: of the application.
    """

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._store, self._rates, self._tasks = frame, parts.concurrency, parts.rates, parts.tasks
        self._limits = rates_of(parts.types)

    @page("keys", "/keys", api_keys.TASKS_CONTROL)
    def index(self) -> Response:
        """The page: the first keys by name, and every rate."""
        found, paces = self._frame.part(lambda: list(self._keys())), self._frame.part(lambda: list(self._paces()))
        return self._frame.page("keys.html", found=found, paces=paces, most=fields.MAX_PAGE)

    def _keys(self) -> Iterator[Key]:
        views = self._store.in_use(fields.MAX_PAGE)
        briefs = self._briefs(each for view in views for each in (*(task for task, _ in view.holders), *view.first))
        for view in sorted(views, key=lambda each: (-each.waiting, each.name)):
            holders = [Seat(task_id, briefs[task_id], lapses) for task_id, lapses in view.holders]
            yield Key(view, holders, [Seat(task_id, briefs[task_id]) for task_id in view.first])

    def _paces(self) -> Iterator[PaceView]:
        for limit in self._limits:
            yield PaceView(self._rates.view(limit), limit.type)

    def _briefs(self, task_ids: Iterable[str]) -> Mapping[str, Brief | None]:
        ids = list(dict.fromkeys(task_ids))
        return dict(zip(ids, self._tasks.briefs(ids), strict=True)) if ids else {}
