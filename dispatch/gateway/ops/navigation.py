"""The pages of the console, in the order in which they are listed, and the parts of the system that a principal sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from dispatch.config import api_keys, type_scopes
from dispatch.gateway.http.context import Principal


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation."""

    name: str  #: of the page's endpoint, ``ops.<name>``
    title: str
    path: str  #: below ``/ops``
    scope: str | None  #: that the page needs; None: any API key
    key: str  #: that leads there, after ``g``
    or_scope: str = ""  #: opens it as well


#: A page that is listed here must have a view of that name; `console` refuses to start otherwise.
PLACES: tuple[Place, ...] = (
    Place("overview", "Overview", "", None, "o"),
    Place("tasks", "Tasks", "/tasks", api_keys.TASKS_READ, "t"),
    Place("dead_letters", "Dead letters", "/dead-letters", api_keys.DEADLETTERS_READ, "d"),
    Place("jobs", "Jobs", "/jobs", api_keys.DEADLETTERS_READ, "b", api_keys.TASKS_CONTROL),
    Place("queues", "Queues", "/queues", api_keys.QUEUES_READ, "q"),
    Place("keys", "Robots and keys", "/keys", api_keys.TASKS_CONTROL, "r"),
    Place("workers", "Workers", "/workers", api_keys.QUEUES_READ, "w"),
    Place("pauses", "Pauses", "/pauses", api_keys.TASKS_CONTROL, "p"),
    Place("schedules", "Schedules", "/schedules", api_keys.TASKS_READ, "s"),
    Place("audit", "Audit", "/audit", api_keys.AUDIT_READ, "a"),
)

#: Roles by the scopes that make them; the first that fits is shown beside the principal. Rights follow from scopes alone.
_ROLES = (
    ("admin", frozenset({api_keys.AUDIT_READ, api_keys.TASKS_CONTROL, api_keys.DEADLETTERS_WRITE})),
    ("operator", frozenset({api_keys.TASKS_CONTROL})),
    ("operator", frozenset({api_keys.DEADLETTERS_WRITE})),
)


def visible(scopes: Collection[str]) -> Iterator[Place]:
    """The pages that scopes open."""
    return (
        place
        for place in PLACES
        if place.scope is None or type_scopes.permits(scopes, place.scope) or place.or_scope in scopes
    )


def role(principal: Principal) -> str:
    """How a principal's rights are called."""
    return next((name for name, scopes in _ROLES if scopes <= principal.scopes), "viewer")
