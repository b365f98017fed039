"""An operation of the API: its contract beside its code.

A view method carries an `Operation`; `register` makes a Flask route of it that asks for the scope first,
and `dispatch.gateway.contract.openapi` makes the document of the same data, so that they can't disagree.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import flask
import pydantic
from flask import Response

from dispatch.gateway.http import context
from dispatch.gateway.http.auth import Keyring

_PARAMETER = re.compile(r"\{(\w+)\}")

#: Counts a request of a principal: headers for its answer, or a `Problem`; `dispatch.gateway.admission.quota.Quota.spend` does.
Spend = Callable[[str], Mapping[str, str]]

_templates: dict[str, str] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseSpec:
    """A successful answer."""

    status: int
    description: str
    model: Any = None  #: a pydantic model, or a type that pydantic understands; None for no body
    headers: tuple[str, ...] = ()  #: names in `dispatch.gateway.contract.openapi.RESPONSE_HEADERS`
    media_type: str = "application/json"
    also: str = ""  #: another media type of the same answer, by Accept


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """What clients may rely on."""

    method: str
    path: str  #: as in OpenAPI, e.g. ``/v1/tasks/{taskId}``
    id: str  #: operationId
    tag: str
    summary: str
    answers: tuple[ResponseSpec, ...]
    scope: str | None = None  #: None: anybody may
    description: str = ""
    body: Any = None  #: pydantic model of the request body
    body_required: bool = True
    query: type[pydantic.BaseModel] | None = None
    headers: tuple[str, ...] = ()  #: names in `dispatch.gateway.contract.openapi.REQUEST_HEADERS`
    problems: tuple[str, ...] = ()  #: slugs besides those that every operation of its kind has


View = TypeVar("View", bound=Callable[..., Response])


def operation(contract: Operation) -> Callable[[View], View]:
    """Mark a view method with its contract."""

    def mark(view: View) -> View:
        view.operation = contract  # type: ignore[attr-defined]
        return view

    return mark


def contracts(group: type) -> Iterator[tuple[str, Operation]]:
    """The contracts of a class of views, by the names of its methods, in the order they are written."""
    for name, written in vars(group).items():
        contract = getattr(written, "operation", None)
        if contract is not None:
            yield name, contract


def register(app: flask.Flask, views: Sequence[object], keyring: Keyring, spend: Spend) -> None:
    """Make the routes.

    Args:
        app: to add them to.
        views: objects whose methods are marked with `operation`.
        keyring: asked before every operation that has a scope.
        spend: counts the request after that; its headers go with the answer, whatever it is.
    """
    for group in views:
        for name, contract in contracts(type(group)):
            view = getattr(group, name)
            rule = _PARAMETER.sub(lambda match: f"<{_snake(match[1])}>", contract.path)
            endpoint = view if contract.scope is None else _guarded(view, contract.scope, keyring, spend)
            _templates[contract.id] = contract.path
            app.add_url_rule(rule, contract.id, endpoint, methods=[contract.method])


def template(endpoint: str) -> str | None:
    """An operation's path as OpenAPI has it, by its id; None for what is no operation."""
    return _templates.get(endpoint)


def _guarded(view: Callable[..., Response], scope: str, keyring: Keyring, spend: Spend) -> Callable[..., Response]:
    @functools.wraps(view)
    def endpoint(**arguments: Any) -> Response:
        here = context.current()
        here.principal = keyring.authorise(scope)
        here.quota = spend(here.principal.id)
        return view(**arguments)

    return endpoint


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda match: f"_{match[1].lower()}", name)
