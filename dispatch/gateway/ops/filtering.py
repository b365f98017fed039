"""Filters in the URL: what a form sends without a value leaves it, and what is left goes from page to page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlencode

import flask
from werkzeug.wrappers import Response

from dispatch.protocol import ids

#: Times that a filter often begins with: minutes ago, and how that is called.
_AGO = ((15, "15 minutes ago"), (60, "an hour ago"), (240, "4 hours ago"), (1_440, "a day ago"))


def times() -> list[tuple[str, str]]:
    """Times that are offered where a filter takes one, as the API reads them."""
    now = time.time()
    return [(ids.timestamp(int(now - minutes * 60) * 1_000) or "", label) for minutes, label in _AGO]


def given() -> list[tuple[str, str]]:
    """The query parameters of the current request that have a value."""
    return [(name, value) for name, value in flask.request.args.items(multi=True) if value.strip()]


def tidied(path: str) -> Response | None:
    """A redirect to the same page without the empty fields of its form; None where there are none."""
    kept = given()
    if len(kept) == len(list(flask.request.args.items(multi=True))):
        return None
    return flask.redirect(url(path, kept), 303)


def url(path: str, parameters: Sequence[tuple[str, str]]) -> str:
    """A path with parameters, if any."""
    return f"{path}?{urlencode(parameters)}" if parameters else path


def older(path: str, cursor: str | None) -> str:
    """The URL of the page that follows; empty where there is none."""
    return url(path, [*without("cursor"), ("cursor", cursor)]) if cursor else ""


def without(*names: str) -> list[tuple[str, str]]:
    """The current request's parameters but for some."""
    return [(name, value) for name, value in given() if name not in names]
