"""``/ops/pauses``: what is paused, by whom, why; and the acts that pause and resume, to which other pages lead."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import context, validation
from dispatch.gateway.ops import acts
from dispatch.gateway.ops.acts import Done, Field, Question
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page
from dispatch.gateway.parts import Parts
from dispatch.gateway.views import pauses as pause_views
from dispatch.protocol.pauses import ALL, is_what
from dispatch.protocol.record import State

PATH = f"{ROOT}/pauses"

#: What can be paused, for the form.
KINDS = (
    ("type", "a task type"), ("principal", "a principal"), ("key", "a concurrency key"), ("lane", "a lane"), ("all", "everything"),
)  # fmt: skip

#: How long a pause may last by its form, in minutes.
_DURATIONS = (("", "until it is ended"), ("15", "15 minutes"), ("60", "1 hour"), ("240", "4 hours"), ("1440", "1 day"))


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


class PauseTasks:
    """Pause a lane, a type, a principal, a concurrency key, or everything."""

    rule = acts.rule("pause", "/pauses/new", "pauseTasks", api_keys.TASKS_CONTROL)

    def __init__(self, parts: Parts) -> None:
        self._pauses, self._counts = parts.pauses, parts.counts

    def ask(self) -> Question:
        """As in `Act`."""
        what = _asked()
        effect = "What runs goes on; what would start is held, and uses up no attempt. Of a lane it stays in its queue, where it may expire."
        hint = "all, type:<task type>, principal:<id>, key:<concurrency key> or lane:<lane>"
        fields = (
            Field("what", "What", value=what, hint=hint, required=True, attributes={"maxlength": "310"}),
            Field("reason", "Why, for other operators", required=True, attributes={"maxlength": "500"}),
            Field("minutes", "How long", "select", choices=_DURATIONS),
        )
        former = next((each for each in self._pauses.all() if each.what == what), None)
        facts = [("Paused already", f"by {former.by}: {former.reason}. This replaces it.")] if former else []
        return Question("Pause tasks?", effect, "Pause", self._waiting(what), PATH, facts, fields, grave=True)

    def carry_out(self, form: Mapping[str, str]) -> Done:
        """As in `Act`."""
        minutes, given = form.get("minutes", ""), {"reason": form.get("reason", "")}
        if minutes in dict(_DURATIONS) and minutes:
            given["until"] = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=int(minutes))).isoformat()
        pause = pause_views.begin(
            self._pauses, form.get("what", "").strip(), validation.parse(request_models.PauseBody, given)
        )
        return Done(f"Paused: {pause.what}.", PATH)

    def _waiting(self, what: str) -> int | None:
        """How many tasks it would hold back now, where that is known: those that have not ended and do not run."""
        kind, _, name = what.partition(":")
        if kind not in ("all", "type", "principal") or not is_what(what):
            return None
        by_type = self._counts(name if kind == "principal" else None).by_type
        chosen = [by_type.get(name, {})] if kind == "type" else by_type.values()
        idle = [state for state in State if not state.terminal and state is not State.RUNNING]
        return sum(states.get(state.value, 0) for states in chosen for state in idle)


def _asked() -> str:
    """What the URL of the current request names; empty for nothing."""
    given = flask.request.args
    kind, name = given.get("kind", ""), given.get("name", "").strip()
    return given.get("what", "") or (kind if kind == ALL or not kind else f"{kind}:{name}")


class ResumeTasks:
    """End a pause."""

    rule = acts.rule("resume", "/pauses/<what>/end", "resumeTasks", api_keys.TASKS_CONTROL)

    def __init__(self, parts: Parts) -> None:
        self._pauses, self._held, self._rate = parts.pauses, parts.held, parts.settings.resume_rate

    def ask(self, what: str) -> Question:
        """As in `Act`."""
        paused = next((each for each in self._pauses.all() if each.what == what), None)
        if paused is None:
            return Question("Resume?", "", "Resume", None, PATH, refusal=f"{what} is not paused.")
        facts = (("Paused", what), ("By", paused.by), ("Why", paused.reason))
        effect = f"The workers send what was held to the work queue, at {self._rate:g} tasks a second."
        return Question("End this pause?", effect, "Resume", self._held.counts([what])[what], PATH, facts)

    def carry_out(self, form: Mapping[str, str], what: str) -> Done:
        """As in `Act`."""
        del form
        context.current().target = what
        pause_views.end(self._pauses, what)
        return Done(f"Resumed: {what}.", PATH)
