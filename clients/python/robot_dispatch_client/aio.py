"""The client for programs with an event loop (asyncio)."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Self, TypeVar

import httpx

from robot_dispatch_client import connection, flows, models
from robot_dispatch_client.calls import Call
from robot_dispatch_client.dead_letters import DeadLetterVerbs
from robot_dispatch_client.errors import DispatchError
from robot_dispatch_client.flows import Flow, Following, Send, Setting, Sleep
from robot_dispatch_client.operators import OperatorVerbs
from robot_dispatch_client.retries import RetryPolicy
from robot_dispatch_client.schedules import ScheduleVerbs
from robot_dispatch_client.system import SystemVerbs
from robot_dispatch_client.tasks import TaskVerbs, id_of
from robot_dispatch_client.verbs import Pages

P = ParamSpec("P")
T = TypeVar("T")


class InLoop:
    """Performs what verbs describe, in an event loop.

    Args:
        http: sends the requests.
        setting: of the client.
    """

    def __init__(self, http: httpx.AsyncClient, setting: Setting) -> None:
        self._http = http
        self._setting = setting

    def _verb(self, describe: Callable[P, Call[T] | Flow[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(describe)
        async def perform(*args: P.args, **kwargs: P.kwargs) -> T:
            described = describe(*args, **kwargs)
            return await self._run(
                flows.perform(described, self._setting) if isinstance(described, Call) else described
            )

        return perform

    def _paged_verb(self, describe: Callable[P, Pages[T]]) -> Callable[P, AsyncIterator[T]]:
        @functools.wraps(describe)
        def items(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
            return self._items(describe(*args, **kwargs))

        return items

    async def _items(self, pages: Pages[T]) -> AsyncIterator[T]:
        cursor = None
        while True:
            found = await self._run(flows.perform(pages.page(cursor), self._setting))
            for item in found.items:
                yield item
            if found.next is None or found.next == cursor:
                return
            cursor = found.next

    async def _run(self, flow: Flow[T]) -> T:
        answer: httpx.Response | None = None
        failure: httpx.RequestError | None = None
        while True:
            try:
                step = flow.send(answer) if failure is None else flow.throw(failure)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = failure = None
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                continue
            try:
                answer = await self._http.send(connection.request(self._http, step))
            except httpx.RequestError as exc:
                failure = exc


class AsyncSchedules(InLoop, ScheduleVerbs):
    """The verbs on schedules."""


class AsyncClient(InLoop, TaskVerbs, DeadLetterVerbs, OperatorVerbs, SystemVerbs):
    """A client of the API for asyncio: the verbs of `Client`. Close it, or use it as an async context manager.

    Every verb raises `ApiError` where the API refuses, and `ConnectionFailed` where no response comes; what may be repeated has
    been by then, for as long as `retry` allows.

    Args:
        url: the API's address; `ROBOT_DISPATCH_URL` by default.
        api_key: `ROBOT_DISPATCH_API_KEY` by default.
        retry: how long a call is tried; a minute by default.
        timeout: seconds for one try.
        context: headers for each request, e.g. ``traceparent`` and ``X-Request-Id`` of the work at hand.
        verify: how the server's certificate is checked: as of `httpx.AsyncClient`.
        trust_env: use proxies and certificates of the environment.
        transport: instead of the network, e.g. that of `testing.FakeDispatch`.

    Raises:
        ValueError: there is no usable address, or the API key can't be one.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: float = 10.0,
        context: Callable[[], Mapping[str, str]] | None = None,
        verify: Any = True,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._target = connection.Target(url, api_key)
        http = httpx.AsyncClient(
            base_url=self._target.url, auth=self._target.auth, headers={"User-Agent": connection.USER_AGENT},
            verify=verify, trust_env=trust_env, transport=transport, follow_redirects=False,
        )  # fmt: skip
        super().__init__(http, connection.setting(retry, timeout, context))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._target)!r})"

    @property
    def schedules(self) -> AsyncSchedules:
        """The verbs on schedules."""
        return AsyncSchedules(self._http, self._setting)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def stream(self, task: models.Task | str, after: int = 0) -> AsyncIterator[models.Event]:
        """Follow a task's hops as they happen, over reconnections, until it has ended.

        Args:
            task: it, or its id.
            after: `seq` of the last hop that is known.

        Yields:
            Each hop once.
        """
        following = Following(id_of(task), after, self._setting)
        while True:
            failure: DispatchError | None = None
            try:
                async with self._stream(following.request()) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    if not response.is_success:
                        await response.aread()
                    failure = following.opened(response)
                    if failure is None:
                        async for piece in response.aiter_bytes():
                            for hop in following.feed(piece):
                                yield hop
            except httpx.RequestError as exc:
                failure = flows.no_response(exc)
            await asyncio.sleep(following.pause(failure))

    def _stream(self, step: Send) -> _AsyncStream:
        return _AsyncStream(self._http, connection.request(self._http, step, stream=True))


class _AsyncStream:
    """A response that is read piece by piece, and closed however its reader ends."""

    def __init__(self, http: httpx.AsyncClient, request: httpx.Request) -> None:
        self._http = http
        self._request = request

    async def __aenter__(self) -> httpx.Response:
        self._response = await self._http.send(self._request, stream=True)
        return self._response

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()
