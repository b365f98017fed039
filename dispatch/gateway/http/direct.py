"""Frequent operations without Flask: its contexts, routing and response objects cost more than such an operation itself.

The steps are the same ones that Flask runs, in the same order, and so are the responses, byte for byte: a test compares both
ways. Only a request whose path names the operation as it stands is carried out here, without a query and without what an
operation needs Flask for; every other one is Flask's.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from werkzeug.wsgi import ClosingIterator

from dispatch.gateway.http import context
from dispatch.gateway.http.context import Site
from dispatch.gateway.http.operations import Operation
from dispatch.gateway.http.reply import BODILESS, STATUS_LINES, Reply

#: A long poll looks at the connection and the application that Flask has at hand.
_FLASKS = frozenset({"HTTP_PREFER"})

#: One segment of a path, in which nothing is encoded.
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")

#: A Host that Flask's routing reads as a name or an address; it refuses what it can't.
_HOST = re.compile(r"([A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

#: Carries an operation out; called with the arguments of the path.
_Endpoint = Callable[..., Reply]


@functools.lru_cache(256)
def _is_plain(host: str) -> bool:
    return _HOST.fullmatch(host) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class _Route:
    operation: str
    endpoint: _Endpoint
    argument: str  #: of the path; empty without one


class DirectOperations:
    """Carries frequent operations out.

    Args:
        site: of the application.
        error: the response to an exception.
        steps: what follows every response, in this order.
    """

    def __init__(
        self, site: Site, error: Callable[[Exception], Reply], steps: Sequence[Callable[[Reply], None]]
    ) -> None:
        self._site, self._error, self._steps = site, error, steps
        self._exact: dict[tuple[str, str], _Route] = {}
        self._below: dict[tuple[str, str], _Route] = {}

    def add(self, contract: Operation, argument: str, endpoint: _Endpoint) -> None:
        """Carry an operation out here; its path has one parameter at most, at the end.

        Args:
            contract: the operation.
            argument: the endpoint's name of the parameter; empty without one.
            endpoint: what carries it out.
        """
        routes = self._below if argument else self._exact
        routes[contract.method, contract.path.partition("{")[0]] = _Route(contract.id, endpoint, argument)

    def carry_out(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        """Respond to a request, or return None to one that is Flask's.

        Args:
            environ: WSGI's.
            start_response: the same.
        """
        path = environ["PATH_INFO"]
        if environ.get("RAW_URI") != path or environ["QUERY_STRING"] or not _FLASKS.isdisjoint(environ):
            return None
        if not _is_plain(environ.get("HTTP_HOST", "localhost")):
            return None
        method, arguments = environ["REQUEST_METHOD"], {}
        route = self._exact.get((method, path))
        if route is None:
            start, _, last = path.rpartition("/")
            route = self._below.get((method, f"{start}/"))
            if route is None or not _SEGMENT.fullmatch(last):
                return None
            arguments = {route.argument: last}
        return self._respond(route, environ, path, arguments, start_response)

    def _respond(
        self,
        route: _Route,
        environ: Mapping[str, Any],
        path: str,
        arguments: Mapping[str, str],
        start_response: Callable[..., Any],
    ) -> Iterable[bytes]:
        context.begin(self._site, environ, path, route.operation, arguments)
        try:
            reply = self._reply(route, arguments)
            for step in self._steps:
                step(reply)
        finally:
            context.end()
        start_response(STATUS_LINES[reply.status_code], list(reply.headers.items()))
        parts = () if reply.status_code in BODILESS else (reply.body,)
        return ClosingIterator(parts, tuple(reply.closers)) if reply.closers else parts

    def _reply(self, route: _Route, arguments: Mapping[str, str]) -> Reply:
        try:
            return route.endpoint(**arguments)
        except Exception as exc:  # noqa: BLE001 - as Flask: every error has a response
            return self._error(exc)
