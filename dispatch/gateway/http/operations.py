"""An operation of the API: its contract beside its code.

A view method carries an `Operation`. `register` makes a Flask route of it, after the check of the scope, and
`dispatch.gateway.contract.openapi` makes the document from the same data, so the two cannot differ.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import flask
import pydantic
from flask import Response

from dispatch.gateway.http import context
from dispatch.gateway.http.auth import Keyring
from dispatch.gateway.http.context import Charge
from dispatch.gateway.http.reply import Reply

_PARAMETER = re.compile(r"\{(\w+)\}")


class Meter(Protocol):
    """Counts requests of principals; implemented by `dispatch.gateway.admission.quota`."""

    def spend(self, principal: str) -> Mapping[str, str]:
        """Count a request; returns response headers, or raises `Problem`."""

    def charge(self, principal: str, *, reads: bool) -> Charge | None:
        """What counts a request later, as a part of another wait; None where it has to be counted first.

        Args:
            principal: whose it is.
            reads: the request changes nothing: it may be refused after it was carried out.
        """


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
    or_scope: str = ""  #: opens it as well
    description: str = ""
    body: Any = None  #: pydantic model of the request body
    body_required: bool = True
    query: type[pydantic.BaseModel] | None = None
    headers: tuple[str, ...] = ()  #: names in `dispatch.gateway.contract.openapi.REQUEST_HEADERS`
    problems: tuple[str, ...] = ()  #: slugs besides those that `openapi.slugs` adds
    audited: bool = False  #: an operator's verb: each request has an entry in the audit log
    direct: bool = False  #: frequent: carried out without Flask, where nothing of the request needs it


View = TypeVar("View", bound=Callable[..., Response | Reply])


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


def endpoints(group: object, keyring: Keyring, meter: Meter) -> Iterator[tuple[Operation, Callable[..., Any]]]:
    """The operations of an object, each with what carries it out: the checks of its scope and of the quota, then the view.

    Args:
        group: its methods are decorated with `operation`.
        keyring: authorises requests to operations that have a scope.
        meter: counts an authorised request; its headers are added to every response.
    """
    for name, contract in contracts(type(group)):
        view = getattr(group, name)
        yield contract, view if contract.scope is None else _authorised(view, contract, keyring, meter)


def register(app: flask.Flask, contract: Operation, endpoint: Callable[..., Any]) -> str:
    """Add the route of an operation to the application; returns the name of the endpoint's last argument, or an empty one."""
    rule = _PARAMETER.sub(lambda match: f"<{_snake(match[1])}>", contract.path)
    _templates[contract.id] = contract.path
    app.add_url_rule(rule, contract.id, endpoint, methods=[contract.method])
    names = _PARAMETER.findall(contract.path)
    return _snake(names[-1]) if names else ""


def template(endpoint: str) -> str | None:
    """An operation's path template by its id; None for any other endpoint."""
    return _templates.get(endpoint)


def _authorised(view: Callable[..., Any], contract: Operation, keyring: Keyring, meter: Meter) -> Callable[..., Any]:
    scope = contract.scope or ""

    @functools.wraps(view)
    def endpoint(**arguments: Any) -> Any:
        request_context = context.current()
        request_context.operation, request_context.scope = contract.id, scope
        request_context.audited = contract.audited
        request_context.principal = keyring.authorise(scope, contract.or_scope)
        who = request_context.principal.id
        charge = meter.charge(who, reads=contract.method == "GET") if contract.direct else None
        if charge is None:
            request_context.quota = meter.spend(who)
            return view(**arguments)
        request_context.charge = charge
        try:
            reply = view(**arguments)
        except Exception:
            request_context.quota = _counted(charge, meter, who)
            raise
        request_context.quota = _counted(charge, meter, who)
        return reply

    return endpoint


def _counted(charge: Charge, meter: Meter, principal: str) -> Mapping[str, str]:
    """The headers of a request's quota. One that never came to Redis is counted here; a quota that is used up comes before all else."""
    return charge.headers if charge.sent else meter.spend(principal)


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda match: f"_{match[1].lower()}", name)
