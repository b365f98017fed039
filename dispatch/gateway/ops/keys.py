"""``/ops/keys``: concurrency keys, each a robot as a rule: who holds one, and who waits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import fields
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page
from dispatch.protocol.record import Brief
from dispatch.store.concurrency import ConcurrencyKeys, KeyView
from dispatch.store.tasks import TaskStore


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


class KeysPages:
    """The page.

    Args:
        frame: renders it.
        store: the keys.
        tasks: the records.
    """

    def __init__(self, frame: Frame, store: ConcurrencyKeys, tasks: TaskStore) -> None:
        self._frame, self._store, self._tasks = frame, store, tasks

    @page("keys", "/keys", api_keys.TASKS_CONTROL)
    def index(self) -> Response:
        """The page: the first keys by name."""
        found = self._frame.part(lambda: list(self._keys()))
        return self._frame.page("keys.html", found=found, most=fields.MAX_PAGE)

    def _keys(self) -> Iterator[Key]:
        views = [view for name in self._store.names(fields.MAX_PAGE) if (view := self._store.view(name)) is not None]
        ids = list(dict.fromkeys(each for view in views for each in (*(task for task, _ in view.holders), *view.first)))
        briefs = dict(zip(ids, self._tasks.briefs(ids), strict=True)) if ids else {}
        for view in sorted(views, key=lambda each: (-each.waiting, each.name)):
            holders = [Seat(task_id, briefs[task_id], lapses) for task_id, lapses in view.holders]
            yield Key(view, holders, [Seat(task_id, briefs[task_id]) for task_id in view.first])
