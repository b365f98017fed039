"""How a verb is written once and is a verb of both clients: a pure description, which each client performs in its own way.

A description is a method that returns what is to be done: a `Call` (one operation), a `Flow` (several, with pauses), or
`Pages` (a list that is read as it is needed). The client turns it into a function with the same arguments: of `Client` it
blocks and returns the result, of `AsyncClient` it returns an awaitable, and of pages an iterator of its own kind.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from robot_dispatch_client.calls import Call
from robot_dispatch_client.flows import Flow, Setting
from robot_dispatch_client.models import Page

if TYPE_CHECKING:
    from robot_dispatch_client.aio import InLoop
    from robot_dispatch_client.client import Blocking

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Pages(Generic[T]):
    """A list that is read page by page.

    Args:
        page: the call for the page of a cursor; None for the first.
    """

    page: Callable[[str | None], Call[Page[T]]]


class Verbs:
    """Base of the classes of verbs: what a description may use of its client."""

    _setting: Setting


class _Described:
    """A description in the place of a method.

    Args:
        describe: it; its first argument is the client.
    """

    def __init__(self, describe: Callable[..., Any]) -> None:
        functools.update_wrapper(self, describe)
        self.describe = describe

    def __call__(self, client: Any, *args: Any, **kwargs: Any) -> Any:
        """As a function of the class: ``Client.get(client, task_id)``."""
        return self.__get__(client)(*args, **kwargs)

    def __get__(self, client: Any, owner: type | None = None) -> Any:
        return self if client is None else client._verb(self.describe.__get__(client))  # noqa: SLF001 - the other half


class Verb(_Described, Generic[P, T]):
    """A verb with one result."""

    @overload
    def __get__(self, client: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: InLoop, owner: type | None = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        """The verb of a client."""
        return super().__get__(client, owner)


class PagedVerb(_Described, Generic[P, T]):
    """A verb whose results come one by one."""

    @overload
    def __get__(self, client: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type | None = None) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: InLoop, owner: type | None = None) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        """The verb of a client."""
        return self if client is None else client._paged_verb(self.describe.__get__(client))  # noqa: SLF001 - the other half


def verb(describe: Callable[Concatenate[Any, P], Call[T]]) -> Verb[P, T]:
    """A verb of one operation."""
    return Verb(describe)


def flow_verb(describe: Callable[Concatenate[Any, P], Flow[T]]) -> Verb[P, T]:
    """A verb of several operations."""
    return Verb(describe)


def paged_verb(describe: Callable[Concatenate[Any, P], Pages[T]]) -> PagedVerb[P, T]:
    """A verb that lists."""
    return PagedVerb(describe)
