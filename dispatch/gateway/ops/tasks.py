"""``/ops/tasks``: find tasks by every filter of the API; the filter is the page's URL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import context, validation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops import acts, filtering
from dispatch.gateway.ops.acts import Done, Field, Question
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import may, page, visitor
from dispatch.gateway.views import task_access, task_search
from dispatch.protocol import ids
from dispatch.protocol.record import State, Status
from dispatch.store.index import Page
from dispatch.store.saved_views import MOST, SavedViews
from dispatch.store.tasks import TaskStore

PATH = f"{ROOT}/tasks"

#: The query parameters of the API's list, as the form has them; a page of it is no filter.
FILTERS = (
    "status", "state", "type", "error_type", "request_id", "label", "since", "until", "principal",
)  # fmt: skip

#: Characters of the name of a saved view, and of its query.
MAX_NAME, MAX_QUERY = 60, 2_000

#: Characters of what is looked for.
MAX_FIND = 300

#: Choices of how many tasks a page has.
SIZES = (50, 100, 200)


class TasksPage:
    """The list.

    Args:
        frame: renders it.
        tasks: the records.
        types: names of the task types, for the form.
        views: filters that were given a name.
    """

    def __init__(self, frame: Frame, tasks: TaskStore, types: Iterable[str], views: SavedViews) -> None:
        self._frame, self._tasks, self._types, self._views = frame, tasks, sorted(types), views

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
            "bulk": f"{ROOT}/jobs/new?{urlencode(kept)}" if self._may_act_on_all(given) else "",
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
            "times": filtering.times(),
        }
        saved = self._frame.part(lambda: self._views.all(visitor().principal.id))
        query = urlencode([(name, value) for name, value in given if name in parameters])
        return self._frame.page("tasks.html", **shown, **choices, sees_all=sees_all, saved=saved, query=query)

    @page("find", "/find", api_keys.TASKS_READ)
    def find(self) -> Response:
        """A task by its id; or the list of those with a label, of a type, or of a request."""
        text = flask.request.args.get("q", "").strip()[:MAX_FIND]
        return flask.redirect(self._place_of(text), 303)  # type: ignore[return-value]

    def _place_of(self, text: str) -> str:
        if not text:
            return PATH
        if ids.is_task_id(text) and self._tasks.briefs([text])[0] is not None:
            return f"{PATH}/{quote(text, safe='')}"
        name = "label" if "=" in text else "type" if text in self._types else "requestId"
        return f"{PATH}?{urlencode([(name, text)])}"

    def _may_act_on_all(self, given: Sequence[tuple[str, str]]) -> bool:
        """Whether there are jobs for the filter; those have no request id."""
        filters = {name for name, _ in given} & names_of_query()
        allowed = may(api_keys.TASKS_CONTROL, api_keys.DEADLETTERS_WRITE)
        return (
            allowed
            and bool(filters)
            and "requestId" not in filters
            and "ops.jobs_new" in flask.current_app.view_functions
        )

    def _search(self) -> Page:
        query = validation.read_query(request_models.TaskQuery)
        return task_search.search(self._tasks, query, whose(query.principal, visitor().principal.scopes))


def whose(asked: str | None, scopes: Collection[str]) -> str | None:
    """The principal whose tasks are listed; None for all: without a filter all that the visitor may see."""
    if asked is None and api_keys.TASKS_READ_ALL in scopes:
        return None
    return task_access.whose(asked)


def names_of_query() -> frozenset[str]:
    """The filters' names in the URL, as the API has them."""
    fields = request_models.TaskQuery.model_fields
    return frozenset(fields[name].alias or name for name in FILTERS)


class _OnViews:
    """What the acts on saved views have in common."""

    def __init__(self, views: SavedViews) -> None:
        self._views = views


class SaveView(_OnViews):
    """Give the list's filter a name."""

    rule = acts.rule("save_view", "/views/new", "saveView", api_keys.TASKS_READ)

    def ask(self) -> Question:
        """As in `Act`."""
        query = filter_of(flask.request.args.get("query", ""))
        fields = (
            Field("name", "Name", required=True, attributes={"maxlength": str(MAX_NAME)}),
            Field("query", "", "hidden", value=query),
        )
        facts = [(name, value) for name, value in parse_qsl(query)]
        refusal = "" if query else "There is no filter to save."
        effect = "The filter is listed above your tasks, wherever you sign in with this API key's id."
        return Question("Save this filter?", effect, "Save", None, PATH, facts, fields, refusal=refusal)

    def carry_out(self, form: Mapping[str, str]) -> Done:
        """As in `Act`."""
        name, query = " ".join(form.get("name", "").split()), filter_of(form.get("query", ""))
        context.current().target = name
        if not query or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise Problem("validation-error", f"A view has a filter, and a name of at most {MAX_NAME} characters.")
        if not self._views.put(visitor().principal.id, name, query):
            raise Problem("validation-error", f"There are {MOST} views already. Remove one first.")
        return Done(f"Saved: {name}.", f"{PATH}?{query}")


class DropView(_OnViews):
    """Remove a saved view."""

    rule = acts.rule("drop_view", "/views/drop", "dropView", api_keys.TASKS_READ)

    def ask(self) -> Question:
        """As in `Act`."""
        name = flask.request.args.get("name", "")
        fields = (Field("name", "", "hidden", value=name),)
        return Question("Remove this view?", "No task changes.", "Remove", None, PATH, (("View", name),), fields)

    def carry_out(self, form: Mapping[str, str]) -> Done:
        """As in `Act`."""
        name = form.get("name", "")
        context.current().target = name
        if not self._views.remove(visitor().principal.id, name):
            raise Problem("not-found", "There is no view of that name.")
        return Done(f"Removed: {name}.", PATH)


def filter_of(query: str) -> str:
    """The filters of a query, as the URL has them; nothing else of it."""
    parameters = names_of_query()
    kept = [(name, value) for name, value in parse_qsl(query[:MAX_QUERY]) if name in parameters]
    return urlencode(kept)
