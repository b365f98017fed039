"""Acts: what a visitor changes. Each one asks first: a page, or a dialog on one, has what it will do, to how many, and a button.

The same path asks (GET) and acts (POST, with the form's token). An act has the name and the scope of the API's operation of the same
purpose, under which it is in the audit log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flask
from flask import Response

from dispatch.gateway.http import context
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import Guarded, Rule


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """An input of the question."""

    name: str
    label: str
    kind: str = "text"  #: of HTML's input, or ``checkbox``, ``select``, ``textarea``
    value: str = ""
    hint: str = ""
    choices: Sequence[tuple[str, str]] = ()  #: of a select: value and label
    required: bool = False
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: min, max, maxlength …


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked before an act."""

    title: str
    effect: str  #: what the act does
    button: str
    count: int | None = None  #: how many tasks it concerns
    back: str = "/ops"  #: where to go without the act
    facts: Sequence[tuple[str, str]] = ()  #: about what it concerns
    fields: Sequence[Field] = ()
    hidden: Sequence[tuple[str, str]] = ()  #: inputs that are sent as they are
    grave: bool = False  #: it cannot be undone
    refusal: str = ""  #: why it cannot be done now; there is no button then


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What an act has done."""

    message: str
    to: str  #: the page that shows it


class Act(Protocol):
    """An act."""

    @property
    def rule(self) -> Rule:
        """Its route; `verb` is the operation of the API."""

    @property
    def ask(self) -> Callable[..., Question]:
        """What it will do, by the arguments of its path. Changes nothing."""

    @property
    def carry_out(self) -> Callable[..., Done]:
        """Do it, by the form and the arguments of its path; raises what the services raise."""


def rule(name: str, path: str, verb: str, scope: str, or_scope: str = "") -> Rule:
    """The route of an act; arguments as of `Rule`."""
    return Rule(name, path, scope, or_scope, ("GET", "POST"), verb)


def add(guarded: Guarded, frame: Frame, act: Act) -> None:
    """Add an act to the console."""

    def view(**arguments: Any) -> Response:
        if flask.request.method == "POST":
            done = act.carry_out(flask.request.form, **arguments)
            return frame.done(done.message, done.to)
        question = act.ask(**arguments)
        asked: dict[str, Any] = {"question": question, "action": flask.request.full_path.removesuffix("?")}
        if "HX-Request" in flask.request.headers:
            return frame.fragment("act_dialog.html", **asked)
        return frame.page("act.html", **asked)

    guarded.add(act.rule, view)


def note(**details: Any) -> None:
    """Add to the audit entry of the current act."""
    request = context.current()
    request.details = {**request.details, **details}
