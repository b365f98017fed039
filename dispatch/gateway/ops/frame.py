"""What every page of the console is made with: the frame around it, its parts that may fail, and the headers of its response."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote, unquote

import flask
from flask import Response

from dispatch.broker.management import ManagementUnavailable
from dispatch.errors import DispatchError
from dispatch.gateway.http import context
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops import door, navigation
from dispatch.gateway.ops.door import Visitor

Value = TypeVar("Value")

#: Scripts, styles and connections are the console's own, and none is in a page; nothing frames it, nothing is sent elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_NOTE = "ops-note"  #: cookie: what an act has done, for the page that follows
_NOTE_SECONDS, _NOTE_LONGEST = 30, 300


@dataclasses.dataclass(frozen=True, slots=True)
class Part(Generic[Value]):
    """A part of a page: its value, or why there is none now."""

    value: Value | None
    failure: Problem | None = None


class Frame:
    """Renders pages and parts of them.

    Args:
        translate: the problem that an error is to the client, see `dispatch.gateway.errors.ErrorHandlers.problem`.
        version: of the static files, in their URLs.
    """

    def __init__(self, translate: Callable[[Exception], Problem], version: str) -> None:
        self._translate = translate
        self._version = version

    def part(self, read: Callable[[], Value]) -> Part[Value]:
        """Read what a part of a page shows; a server that does not respond leaves the rest of the page as it is."""
        try:
            return Part(read())
        except (DispatchError, ManagementUnavailable) as exc:
            return Part(None, self.failure(exc))
        except Problem as problem:
            return Part(None, problem)

    def failure(self, exc: Exception) -> Problem:
        """The problem that an error is to an operator at the console."""
        if isinstance(exc, ManagementUnavailable):
            return Problem("broker-unavailable", "RabbitMQ's management API did not respond.", retry_after=2)
        return self._translate(exc)

    def page(self, template: str, status: int = 200, **shown: Any) -> Response:
        """A whole page.

        Args:
            template: below ``templates/ops``.
            status: HTTP status.
            shown: what the template needs besides the frame's own.
        """
        # The page that the act leaves may update itself once more: the note is for the one that follows.
        note = None if door.LIVE in flask.request.headers else door.cookie(_NOTE)
        if note:
            door.set_cookie(_NOTE, "", 0)
        return self._response(template, status, shown | {"note": unquote(note or "")})

    def fragment(self, template: str, status: int = 200, **shown: Any) -> Response:
        """A part of a page, for htmx."""
        return self._response(template, status, shown)

    def error(self, exc: Exception) -> Response:
        """The page, or the part of one, in place of what failed."""
        if isinstance(exc, door.SignInNeeded):
            return door.to_sign_in()  # type: ignore[return-value]
        problem = self.failure(exc)
        context.current().problem = problem.kind.slug
        partly = "HX-Request" in flask.request.headers
        response = (self.fragment if partly else self.page)(
            "error_part.html" if partly else "error.html", problem.kind.status, problem=problem
        )
        response.headers.update(problem.headers)
        return response

    def done(self, message: str, to: str) -> Response:
        """Lead to a page that shows what an act has done (RFC 9110, 15.4.4: reloading it repeats nothing)."""
        door.set_cookie(_NOTE, quote(message[:_NOTE_LONGEST]), _NOTE_SECONDS)
        return flask.redirect(to, 303)  # type: ignore[return-value]

    def _response(self, template: str, status: int, shown: Mapping[str, Any]) -> Response:
        given = {**self.common(flask.g.get("visitor")), **shown}
        html = render(flask.current_app.jinja_env, template, given)
        return Response(html, status, HEADERS, mimetype="text/html")

    def common(self, visitor: Visitor | None) -> dict[str, Any]:
        """What the frame shows."""
        places: Sequence[navigation.Place] = []
        if visitor is not None:
            places = list(navigation.visible(visitor.principal.scopes))
        return {
            "places": places,
            "visitor": visitor,
            "role": visitor and navigation.role(visitor.principal),
            "scopes": visitor.principal.scopes if visitor else frozenset(),
            "here": (flask.request.endpoint or "").removeprefix("ops."),
            "version": self._version,
            "trace_url": context.current().site.trace_url,
        }


def render(environment: Any, template: str, shown: Mapping[str, Any]) -> str:
    """A template with the console's macros at hand as `ui`."""
    text: str = environment.get_template(f"ops/{template}").render(ui=_macros(environment), **shown)
    return text


@functools.lru_cache(4)
def _macros(environment: Any) -> Any:
    """Made once: an import in a template makes them anew at each rendering."""
    return environment.get_template("ops/ui.html").module
