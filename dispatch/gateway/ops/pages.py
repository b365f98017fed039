"""A page of the console: its path and rights beside its code; and what lets a request in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import flask

from dispatch.config import type_scopes
from dispatch.gateway.http import auth, context
from dispatch.gateway.http.operations import Meter
from dispatch.gateway.ops.door import Door, Visitor

View = TypeVar("View", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """The route of a view and what it needs."""

    name: str  #: of the endpoint, ``ops.<name>``
    path: str  #: below ``/ops``, as Flask writes them
    scope: str | None = None  #: of the API's operation of the same purpose; None: any API key
    or_scope: str = ""  #: opens it as well
    methods: tuple[str, ...] = ("GET",)
    verb: str = ""  #: that operation's id, where requests are recorded in the audit log


def page(name: str, path: str, scope: str | None = None, or_scope: str = "") -> Callable[[View], View]:
    """Mark a method as the view of a page; arguments as of `Rule`."""

    def mark(view: View) -> View:
        view.rule = Rule(name, path, scope, or_scope)  # type: ignore[attr-defined]
        return view

    return mark


def rules(pages: object) -> Iterator[tuple[Rule, Callable[..., Any]]]:
    """The views of an object, each with its rule, in source order."""
    for name, attribute in vars(type(pages)).items():
        if (rule := getattr(attribute, "rule", None)) is not None:
            yield rule, getattr(pages, name)


def visitor() -> Visitor:
    """Who has sent the current request."""
    found: Visitor = flask.g.visitor
    return found


def may(scope: str, or_scope: str = "") -> bool:
    """Whether the current visitor has a scope."""
    granted = visitor().principal.scopes
    return type_scopes.permits(granted, scope) or or_scope in granted


class Guarded:
    """Adds views to the blueprint, each behind the checks of the session, the scope and the quota.

    Args:
        blueprint: of the console.
        door: lets requests in.
        meter: counts them, as those to the API.
    """

    def __init__(self, blueprint: flask.Blueprint, door: Door, meter: Meter) -> None:
        self._blueprint, self._door, self._meter = blueprint, door, meter

    def add(self, rule: Rule, view: Callable[..., Any]) -> None:
        """Add one."""

        @functools.wraps(view)
        def guarded(**arguments: Any) -> Any:
            flask.g.visitor = found = self._door.enter()
            request = context.current()
            request.operation, request.scope = rule.verb or f"ops.{rule.name}", rule.scope or ""
            request.audited = bool(rule.verb) and flask.request.method == "POST"
            if request.audited:
                request.details = {"via": "console"}
            granted = found.principal.scopes
            if rule.scope is not None and not type_scopes.permits(granted, rule.scope) and rule.or_scope not in granted:
                raise auth.insufficient(rule.scope)
            request.quota = self._meter.spend(found.principal.id)
            return view(**arguments)

        self._blueprint.add_url_rule(rule.path or "", rule.name, guarded, methods=list(rule.methods))
