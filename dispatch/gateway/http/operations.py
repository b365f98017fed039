"""An operation of the API: its contract beside its code.

A view method carries an `Operation`. `register` makes a Flask route of it that checks the scope first, and
`dispatch.gateway.contract.openapi` makes the document from the same data, so the two cannot differ.
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

#: Counts a request of a principal; returns response headers or raises `Problem`: `dispatch.gateway.admission.quota.Quota.spend`.
Spend = Callable[[str], Mapping[str, str]]

_templates: dict[str, str] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseSpec:
    """A successful response."""

    status: int
    description: str
    model: Any = None  #: a pydantic model, or a type that pydantic accepts; None without a body
    headers: tuple[str, ...] = ()  #: names in `dispatch.gateway.contract.openapi.RESPONSE_HEADERS`
    media_type: str = "application/json"
    also: str = ""  #: another media type of the same response, by Accept


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """The contract of an operation."""

    method: str
    path: str  #: as in OpenAPI, e.g. ``/v1/tasks/{taskId}``
    id: str  #: operationId
    tag: str
    summary: str
    responses: tuple[ResponseSpec, ...]
    scope: str | None = None  #: None: no authentication
    description: str = ""
    body: Any = None  #: pydantic model of the request body
    body_required: bool = True
    query: type[pydantic.BaseModel] | None = None
    headers: tuple[str, ...] = ()  #: names in `dispatch.gateway.contract.openapi.REQUEST_HEADERS`
    problems: tuple[str, ...] = ()  #: slugs besides those that `openapi.slugs` adds


View = TypeVar("View", bound=Callable[..., Response])


def operation(contract: Operation) -> Callable[[View], View]:
    """Attach a contract to a view method."""

    def mark(view: View) -> View:
        view.operation = contract  # type: ignore[attr-defined]
        return view

    return mark


def contracts(group: type) -> Iterator[tuple[str, Operation]]:
    """The contracts of a class of views, by method name, in source order."""
    for name, attribute in vars(group).items():
        contract = getattr(attribute, "operation", None)
        if contract is not None:
            yield name, contract


def register(app: flask.Flask, views: Sequence[object], keyring: Keyring, spend: Spend) -> None:
    """Add the routes to the application.

    Args:
        app: the application.
        views: objects whose methods are decorated with `operation`.
        keyring: authorises requests to operations that have a scope.
        spend: counts an authorised request; its headers are added to every response.
    """
    for group in views:
        for name, contract in contracts(type(group)):
            view = getattr(group, name)
            rule = _PARAMETER.sub(lambda match: f"<{_snake(match[1])}>", contract.path)
            endpoint = view if contract.scope is None else _authorised(view, contract.scope, keyring, spend)
            _templates[contract.id] = contract.path
            app.add_url_rule(rule, contract.id, endpoint, methods=[contract.method])


def template(endpoint: str) -> str | None:
    """An operation's path template by its id; None for any other endpoint."""
    return _templates.get(endpoint)


def _authorised(view: Callable[..., Response], scope: str, keyring: Keyring, spend: Spend) -> Callable[..., Response]:
    @functools.wraps(view)
    def endpoint(**arguments: Any) -> Response:
        request_context = context.current()
        request_context.principal = keyring.authorise(scope)
        request_context.quota = spend(request_context.principal.id)
        return view(**arguments)

    return endpoint


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda match: f"_{match[1].lower()}", name)
