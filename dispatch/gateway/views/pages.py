"""``/``, ``/problems`` and ``/problems/{slug}``: pages for people, JSON for programs, by ``Accept``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flask
import markupsafe
from flask import Response

from dispatch import __version__
from dispatch.gateway.contract import response_models
from dispatch.gateway.http import problems
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem, ProblemKind
from dispatch.gateway.http.reply import Reply, json_reply

#: For both forms of a page: a cache keeps them apart.
_CACHED = {"Cache-Control": "public, max-age=300", "Vary": "Accept"}

#: A page loads its style sheet from here, and nothing else; it can't be framed.
_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"}

_QUOTED = re.compile(r"`([^`]+)`")

LINKS: Mapping[str, str] = {
    "/docs": "The API, to read and to try",
    "/openapi.json": "The API as an OpenAPI 3.1 document, for generators",
    "/problems": "Every error, what it means and what to do",
    "/readyz": "Whether this gateway accepts tasks now",
    "/livez": "Whether this gateway runs",
}


class PageViews:
    """Pages about the gateway; no authentication."""

    @operation(
        Operation(
            "GET", "/", "getHome", "About", "What this is, and where to go on",
            (ResponseSpec(200, "Version and links; HTML for browsers.", response_models.HomeModel),),
        )
    )  # fmt: skip
    def home(self) -> Response | Reply:
        """The landing page."""
        page = response_models.HomeModel(
            name="Robot Dispatch",
            version=__version__,
            links=[response_models.LinkModel(href=href, title=title) for href, title in LINKS.items()],
        )
        return _answer(page, "home.html", version=page.version, links=page.links)

    @operation(
        Operation(
            "GET", "/problems", "listProblems", "About", "Every problem type",
            (ResponseSpec(200, "The problem types; HTML for browsers.", response_models.ProblemPagesModel),),
        )
    )  # fmt: skip
    def problems(self) -> Response | Reply:
        """Every problem type."""
        kinds = list(problems.KINDS.values())
        return _answer(
            response_models.ProblemPagesModel(items=list(map(_explained, kinds))), "problems.html", kinds=kinds
        )

    @operation(
        Operation(
            "GET", "/problems/{slug}", "getProblem", "About", "Explain a problem type",
            (ResponseSpec(200, "The explanation; HTML for browsers.", response_models.ProblemPageModel),),
            problems=("not-found",),
        )
    )  # fmt: skip
    def problem(self, slug: str) -> Response | Reply:
        """One problem type, explained."""
        kind = problems.KINDS.get(slug)
        if kind is None:
            raise Problem("not-found", "There is no problem type with that slug.")
        return _answer(_explained(kind), "problem.html", kind=kind)


def install(app: flask.Flask) -> None:
    """Add what the templates use."""
    app.jinja_env.filters["code"] = _code


def _code(text: str) -> markupsafe.Markup:
    """Text in which backticks quote code, as HTML."""
    return markupsafe.Markup(_QUOTED.sub(r"<code>\1</code>", str(markupsafe.escape(text))))  # noqa: S704 - escaped


def _explained(kind: ProblemKind) -> response_models.ProblemPageModel:
    return response_models.ProblemPageModel(
        type=kind.type, title=kind.title, status=kind.status, meaning=kind.meaning, remedy=kind.remedy
    )


def _answer(
    page: response_models.HomeModel | response_models.ProblemPagesModel | response_models.ProblemPageModel,
    template: str,
    **shown: Any,
) -> Response | Reply:
    best = flask.request.accept_mimetypes.best_match(["application/json", "text/html"], "application/json")
    if best == "text/html":
        return Response(flask.render_template(template, **shown), headers={**_CACHED, **_POLICY}, mimetype="text/html")
    return json_reply(page.model_dump(by_alias=True), headers=_CACHED)
