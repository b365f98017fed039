"""``/ops/schedules``: what is submitted again and again; made, changed, paused, run now, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask
import pydantic
from flask import Response

from dispatch.config import api_keys, type_scopes
from dispatch.gateway.contract import schedule_models
from dispatch.gateway.http import context, validation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.ops import acts, payload_input
from dispatch.gateway.ops.acts import Done, Question
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import Rule, may, page, visitor
from dispatch.gateway.ops.payload_input import PayloadInput
from dispatch.gateway.ops.schema_form import ABSENT
from dispatch.gateway.ops.task import pretty
from dispatch.gateway.parts import Parts
from dispatch.gateway.views.schedules import ScheduleViews, due_times, whose
from dispatch.protocol.schedules import CatchUp, Overlap, Schedule
from dispatch.schedules.service import Expected
from dispatch.store.schedules import ScheduleEntry

PATH = f"{ROOT}/schedules"

#: The inputs of the form besides the payload's, and the members of the body that they are.
FIELDS = {
    "cron": "/cron", "timezone": "/timezone", "overlap": "/overlap", "catchUp": "/catchUp", "jitter": "/jitterSeconds",
    "labels": "/options/labels", "deadline": "/options/deadlineSeconds", "name": "/name",
}  # fmt: skip

_DEFAULTS = {
    "cron": "",
    "timezone": "UTC",
    "overlap": "skip",
    "catchUp": "last",
    "jitter": "0",
    "labels": "",
    "deadline": "",
}


def views_of(parts: Parts) -> ScheduleViews:
    """The API's own."""
    public = {name: kind for name, kind in parts.types.items() if not kind.internal}
    return ScheduleViews(parts.schedules, public, parts.guard, parts.allowance)


class SchedulePages:
    """The pages.

    Args:
        frame: renders them.
        parts: of the application.
    """

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._parts, self._views = frame, parts, views_of(parts)

    @page("schedules", "/schedules", api_keys.TASKS_READ)
    def index(self) -> Response:
        """All that the visitor may see."""
        found = self._frame.part(lambda: [self._views.shown(entry) for entry in self._parts.schedules.all(whose())])
        return self._frame.page("schedules.html", found=found, may_write=may(api_keys.SCHEDULES_WRITE))

    @page("schedules_runs", "/next-runs", api_keys.TASKS_READ)
    def runs(self) -> Response:
        """The next due times of what is filled in: a part of the form."""
        given = flask.request.args.to_dict()
        return self._frame.fragment("schedule_runs.html", runs=runs_of(given))

    @page("schedules_new", "/new-schedule", api_keys.SCHEDULES_WRITE)
    def new(self) -> Response:
        """Which type of task: the form needs its schema."""
        granted = visitor().principal.scopes
        types = [
            (name, kind.summary)
            for name, kind in sorted(self._parts.types.items())
            if not kind.internal and type_scopes.permits_type(granted, api_keys.TASKS_WRITE, name)
        ]
        return self._frame.page("schedule_new.html", types=types)

    @page("schedules_one", "/schedules/<name>", api_keys.TASKS_READ)
    def show(self, name: str) -> Response:
        """One."""
        shown = self._views.shown(self._parts.schedules.get(name, whose()))
        own = shown["principal"] == visitor().principal.id
        return self._frame.page(
            "schedule.html",
            schedule=shown,
            payload=pretty(shown["payload"]),
            may_write=may(api_keys.SCHEDULES_WRITE),
            own=own,
            path=f"{PATH}/{name}",
        )


def runs_of(given: Mapping[str, str]) -> dict[str, Any]:
    """The next due times of what is filled in; or why there are none."""
    expression, zone = given.get("cron", "").strip(), given.get("timezone", "").strip()
    if not expression:
        return {"times": [], "error": ""}
    try:
        checked = _Times.model_validate({"cron": expression, "timezone": zone or "UTC"})
    except pydantic.ValidationError as exc:
        return {"times": [], "error": exc.errors(include_url=False, include_context=False)[0]["msg"]}
    return {"times": due_times(checked.cron, checked.timezone), "error": ""}


class _Times(pydantic.BaseModel):
    cron: schedule_models.Cron
    timezone: schedule_models.Zone


class ScheduleForm:
    """The form of a schedule, which is the question, and the act: to create one, or to change one's own.

    Args:
        frame: renders the page.
        parts: of the application.
    """

    create = Rule(
        "schedules_create", "/new-schedule/<type_name>", api_keys.SCHEDULES_WRITE,
        methods=("GET", "POST"), verb="putSchedule",
    )  # fmt: skip
    change = Rule(
        "schedules_change", "/schedules/<name>/edit", api_keys.SCHEDULES_WRITE,
        methods=("GET", "POST"), verb="putSchedule",
    )  # fmt: skip

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._parts, self._views = frame, parts, views_of(parts)

    def new(self, type_name: str) -> Response:
        """A new one of a type of task."""
        return self._form(type_name, None)

    def edit(self, name: str) -> Response:
        """One that is there."""
        entry = self._parts.schedules.get(name, whose())
        schedule = _of(entry)
        if schedule.principal != visitor().principal.id:
            detail = f"The schedule is {schedule.principal}'s: only its owner can change it. You can pause, run or delete it."
            raise Problem("schedule-exists", detail)
        return self._form(schedule.type, entry)

    def _form(self, type_name: str, entry: ScheduleEntry | None) -> Response:
        task_type = self._parts.types.get(type_name)
        if task_type is None or task_type.internal:
            raise Problem("unknown-task-type")
        former = _of(entry) if entry else None
        payload = PayloadInput(task_type, dict(former.payload) if former else ABSENT)
        if flask.request.method == "GET":
            return self._page(type_name, entry, payload, None)
        given = flask.request.form.to_dict()
        if (grown := payload_input.grown(given)) is not None:
            context.current().audited = False  # nothing is changed
            return self._page(type_name, entry, payload, grown)
        try:
            saved = self._save(type_name, former, payload, given)
        except Problem as problem:
            if not problem.errors and problem.kind.slug not in ("schedule-exists", "schedule-changed"):
                raise
            context.current().problem = problem.kind.slug
            errors = list(problem.errors) or [FieldError("/name", problem.detail, problem.kind.slug)]
            return self._page(type_name, entry, payload, given, errors=errors, status=problem.kind.status)
        return self._frame.done(f"The schedule {saved} is saved.", f"{PATH}/{saved}")

    def _save(self, type_name: str, former: Schedule | None, payload: PayloadInput, given: Mapping[str, str]) -> str:
        name = former.name if former else given.get("name", "").strip()
        context.current().target = name
        value, errors = payload.read(given)
        if errors:
            raise Problem(
                "validation-error", errors=[FieldError(f"/payload{e.pointer}", e.detail, e.code) for e in errors]
            )
        if payload.kept:
            acts.note(secretsKept=payload.kept)
        body = validation.parse(schedule_models.ScheduleBody, _body(type_name, former, given, value))
        if not schedule_models.is_name(name) and not former:
            text = "1 to 63 of a-z, 0-9, '.', '_', '-'; it begins and ends with a letter or digit."
            raise validation.invalid(FieldError("/name", text, "invalid_name"))
        revision = given.get("revision", "")
        seen = int(revision) if revision.isascii() and revision.isdigit() and len(revision) < 17 else -1
        expected = Expected(revision=seen) if former else Expected(absent=True)
        self._parts.schedules.put(self._views.made(name, body), expected)
        return name

    def _page(
        self,
        type_name: str,
        entry: ScheduleEntry | None,
        payload: PayloadInput,
        given: Mapping[str, str] | None,
        *,
        errors: list[FieldError] | None = None,
        status: int = 200,
    ) -> Response:
        there = _filled(_of(entry)) if entry else dict(_DEFAULTS)
        filled = {name: (given or {}).get(name, value) for name, value in there.items()}
        by_field = {name: _first(errors or [], at) for name, at in FIELDS.items()}
        other = [e for e in errors or [] if not e.pointer.startswith(("/payload", *FIELDS.values()))]
        return self._frame.page(
            "schedule_form.html",
            status,
            type=type_name,
            entry=entry,
            schedule=entry and entry.schedule,
            filled=filled | {"name": (given or {}).get("name", "")},
            revision=(given or {}).get("revision", entry.revision if entry else ""),
            errors=by_field,
            other=other,
            failed=bool(errors),
            input=payload.shown(given, payload_input.below(errors or [], "/payload")),
            runs=runs_of(filled),
            overlaps=list(Overlap),
            catch_ups=list(CatchUp),
        )


def _body(type_name: str, former: Schedule | None, given: Mapping[str, str], payload: Any) -> dict[str, Any]:
    """The body of the API's request."""
    jitter, deadline = given.get("jitter", "").strip(), given.get("deadline", "").strip()
    pairs = [line.partition("=") for line in given.get("labels", "").splitlines() if line.strip()]
    options: dict[str, Any] = {"labels": {name.strip(): value.strip() for name, _, value in pairs}}
    if deadline:
        options["deadlineSeconds"] = _whole(deadline)
    return {
        "type": type_name, "payload": payload, "options": options, "cron": given.get("cron", "").strip(),
        "timezone": given.get("timezone", "").strip() or "UTC", "overlap": given.get("overlap", "skip"),
        "catchUp": given.get("catchUp", "last"), "paused": bool(former and former.paused),
        "jitterSeconds": _whole(jitter or "0"),
    }  # fmt: skip


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _filled(schedule: Schedule) -> dict[str, str]:
    labels = "\n".join(f"{name}={value}" for name, value in schedule.labels.items())
    return {
        "cron": schedule.cron, "timezone": schedule.timezone, "overlap": schedule.overlap.value, "catchUp": schedule.catch_up.value,
        "jitter": str(schedule.jitter), "labels": labels, "deadline": str(schedule.deadline or ""),
    }  # fmt: skip


def _first(errors: list[FieldError], at: str) -> str:
    return next((each.detail for each in errors if each.pointer == at or each.pointer.startswith(f"{at}/")), "")


def _of(entry: ScheduleEntry) -> Schedule:
    assert entry.schedule is not None  # noqa: S101 - the service shows none that was deleted
    return entry.schedule


class _OnSchedule:
    """What acts on one schedule have in common."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def question(self, name: str, title: str, effect: str, button: str, **more: Any) -> Question:
        schedule = _of(self._parts.schedules.get(name, whose()))
        facts = (
            ("Schedule", schedule.name), ("Type", schedule.type), ("Cron", f"{schedule.cron} ({schedule.timezone})"),
            ("Owner", schedule.principal),
        )  # fmt: skip
        return Question(title, effect, button, None, f"{PATH}/{name}", facts, **more)


class PauseSchedule(_OnSchedule):
    """Submit nothing more."""

    rule = acts.rule("schedules_pause", "/schedules/<name>/pause", "pauseSchedule", api_keys.SCHEDULES_WRITE)

    def ask(self, name: str) -> Question:
        """As in `Act`."""
        effect = "This one schedule submits nothing until it is resumed. Tasks that it has submitted go on."
        return self.question(name, "Pause this schedule?", effect, "Pause")

    def carry_out(self, form: Mapping[str, str], name: str) -> Done:
        """As in `Act`."""
        del form
        self._parts.schedules.pause(name, whose())
        return Done(f"The schedule {name} is paused.", f"{PATH}/{name}")


class ResumeSchedule(_OnSchedule):
    """Go on."""

    rule = acts.rule("schedules_resume", "/schedules/<name>/resume", "resumeSchedule", api_keys.SCHEDULES_WRITE)

    def ask(self, name: str) -> Question:
        """As in `Act`."""
        effect = "This one schedule goes on with its next due time; those of the pause are not made up for."
        return self.question(name, "Resume this schedule?", effect, "Resume")

    def carry_out(self, form: Mapping[str, str], name: str) -> Done:
        """As in `Act`."""
        del form
        self._parts.schedules.resume(name, whose())
        return Done(f"The schedule {name} goes on.", f"{PATH}/{name}")


class RunSchedule(_OnSchedule):
    """Submit its task now."""

    rule = acts.rule("schedules_run", "/schedules/<name>/run-now", "runScheduleNow", api_keys.SCHEDULES_WRITE)

    def ask(self, name: str) -> Question:
        """As in `Act`."""
        effect = (
            "One task is submitted at once, also while another of its tasks is alive. Its due times stay as they are."
        )
        return self.question(name, "Run this schedule now?", effect, "Submit 1 task")

    def carry_out(self, form: Mapping[str, str], name: str) -> Done:
        """As in `Act`."""
        del form
        accepted = self._parts.schedules.run_now(name, whose(), views_of(self._parts).submission)
        task_id = accepted.record.task_id
        acts.note(taskId=task_id)
        return Done("The task is submitted.", f"{ROOT}/tasks/{task_id}")


class DeleteSchedule(_OnSchedule):
    """Delete one."""

    rule = acts.rule("schedules_delete", "/schedules/<name>/delete", "deleteSchedule", api_keys.SCHEDULES_WRITE)

    def ask(self, name: str) -> Question:
        """As in `Act`."""
        effect = (
            "This one schedule is gone, with its payload, and submits nothing more. Tasks that it has submitted go on."
        )
        return self.question(name, "Delete this schedule?", effect, "Delete for good", grave=True)

    def carry_out(self, form: Mapping[str, str], name: str) -> Done:
        """As in `Act`."""
        del form
        self._parts.schedules.delete(name, whose())
        return Done(f"The schedule {name} is deleted.", PATH)
