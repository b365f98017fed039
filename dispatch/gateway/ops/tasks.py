"""``/ops/tasks``: find tasks by every filter of the API; the filter is the page's URL."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlencode

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import models
from dispatch.gateway.http import validation
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page, visitor
from dispatch.gateway.views import task_access, task_search
from dispatch.protocol.record import State, Status
from dispatch.store.index import Page
from dispatch.store.tasks import TaskStore

PATH = f"{ROOT}/tasks"

#: The query parameters of the API's list, as the form has them; a page of it is no filter.
FILTERS = (
    "status", "state", "type", "error_type", "request_id", "label", "since", "until", "principal",
)  # fmt: skip

#: Choices of how many tasks a page has.
SIZES = (50, 100, 200)


class TasksPage:
    """The list.

    Args:
        frame: renders it.
        tasks: the records.
        types: names of the task types, for the form.
    """

    def __init__(self, frame: Frame, tasks: TaskStore, types: Iterable[str]) -> None:
        self._frame, self._tasks, self._types = frame, tasks, sorted(types)

    @page("tasks", "/tasks", api_keys.TASKS_READ)
    def index(self) -> Response:
        """A page of the tasks that match."""
        given = [(name, value) for name, value in flask.request.args.items(multi=True) if value.strip()]
        if len(given) < len(list(flask.request.args.items(multi=True))):  # a form sends its empty fields, too
            return flask.redirect(f"{PATH}?{urlencode(given)}" if given else PATH, 303)  # type: ignore[return-value]
        found = self._frame.part(self._search)
        parameters = names_of_query()
        kept = [(name, value) for name, value in given if name != "cursor"]
        shown: dict[str, Any] = {
            "found": found,
            "given": dict(given) | {"label": flask.request.args.getlist("label")},
            "older": f"{PATH}?{urlencode([*kept, ('cursor', found.value.next)])}"
            if found.value and found.value.next
            else "",
            "newest": f"{PATH}?{urlencode(kept)}" if kept else PATH,
            "filtered": [(name, value) for name, value in given if name in parameters],
            "here_url": flask.request.full_path.removesuffix("?"),
        }
        if "HX-Request" in flask.request.headers:
            return self._frame.fragment("task_rows.html", **shown)
        sees_all = api_keys.TASKS_READ_ALL in visitor().principal.scopes
        choices: dict[str, Any] = {
            "types": self._types,
            "statuses": list(Status),
            "states": list(State),
            "sizes": SIZES,
        }
        return self._frame.page("tasks.html", **shown, **choices, sees_all=sees_all)

    def _search(self) -> Page:
        query = validation.read_query(models.TaskQuery)
        return task_search.search(self._tasks, query, whose(query.principal, visitor().principal.scopes))


def whose(asked: str | None, scopes: Collection[str]) -> str | None:
    """The principal whose tasks are listed; None for all: without a filter all that the visitor may see."""
    if asked is None and api_keys.TASKS_READ_ALL in scopes:
        return None
    return task_access.whose(asked)


def names_of_query() -> frozenset[str]:
    """The filters' names in the URL, as the API has them."""
    fields = models.TaskQuery.model_fields
    return frozenset(fields[name].alias or name for name in FILTERS)
