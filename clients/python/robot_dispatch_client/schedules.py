"""Schedules: tasks that are submitted again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from robot_dispatch_client import models
from robot_dispatch_client.calls import Call, query, reading, segment
from robot_dispatch_client.headers import key_header
from robot_dispatch_client.retries import Repeat
from robot_dispatch_client.submissions import PayloadLike, Seconds, new_key, seconds, to_json

T = TypeVar("T")


class ScheduleOptions(TypedDict, total=False):
    """How a schedule's tasks are submitted."""

    timezone: str  #: an IANA time zone; UTC by default
    overlap: str  #: ``skip`` or ``queue``, while the task before is alive
    catch_up: str  #: ``last`` or ``none``, of due times that were missed
    jitter: Seconds  #: each task is delayed by up to so much
    labels: Mapping[str, str]
    deadline: Seconds  #: of each task
    paused: bool
    revision: int  #: change it only if it still has this one
    create_only: bool  #: change none that exists


class _Performer(Protocol):
    def __call__(self, call: Call[T]) -> T: ...


class _AsyncPerformer(Protocol):
    def __call__(self, call: Call[T]) -> Awaitable[T]: ...


def _listed(principal: str | None) -> Call[Sequence[models.Schedule]]:
    read = reading(models.Page[models.Schedule])
    return Call("GET", "/v1/schedules", lambda response: read(response).items, params=query({"principal": principal}))


def _one(method: str, name: str, verb: str = "", repeat: Repeat = Repeat.SAFE) -> Call[models.Schedule]:
    return Call(method, f"/v1/schedules/{segment(name)}{verb}", reading(models.Schedule), repeat)


def _put(name: str, type: str, payload: PayloadLike, cron: str, given: ScheduleOptions) -> Call[models.Schedule]:
    options = {"labels": given.get("labels"), "deadlineSeconds": seconds(given.get("deadline"))}
    body: dict[str, Any] = {
        "timezone": given.get("timezone"),
        "overlap": given.get("overlap"),
        "catchUp": given.get("catch_up"),
        "jitterSeconds": seconds(given.get("jitter")),
        "paused": given.get("paused"),
        "options": {key: value for key, value in options.items() if value is not None} or None,
    }
    body = {key: value for key, value in body.items() if value is not None}
    content = to_json({"type": type, "payload": payload, "cron": cron, **body})
    headers = {"If-Match": f'"{given["revision"]}"'} if "revision" in given else {}
    headers |= {"If-None-Match": "*"} if given.get("create_only") else {}
    # With a condition the second of two would be refused, because the first changed the schedule.
    repeat = Repeat.UNSENT if headers else Repeat.SAFE
    return Call("PUT", f"/v1/schedules/{segment(name)}", reading(models.Schedule), repeat, (), content, headers)


def _delete(name: str) -> Call[None]:
    return Call("DELETE", f"/v1/schedules/{segment(name)}", lambda _: None)


def _run_now(name: str, key: str | None) -> Call[models.Task]:
    used = key or new_key()
    path = f"/v1/schedules/{segment(name)}/run-now"
    return Call("POST", path, reading(models.Task), Repeat.KEYED, (), None, {"Idempotency-Key": key_header(used)}, used)


class Schedules:
    """The verbs on schedules.

    Args:
        perform: performs a call.
    """

    def __init__(self, perform: _Performer) -> None:
        self._perform = perform

    def all(self, principal: str | None = None) -> Sequence[models.Schedule]:
        """Schedules, by name; with ``*`` those of all principals (scope `tasks:read-all`)."""
        return self._perform(_listed(principal))

    def get(self, name: str) -> models.Schedule:
        """A schedule as it is now."""
        return self._perform(_one("GET", name))

    def put(
        self, name: str, type: str, payload: PayloadLike, cron: str, **options: Unpack[ScheduleOptions]
    ) -> models.Schedule:
        """Create or change a schedule.

        Args:
            name: of the schedule.
            type: of its tasks.
            payload: of its tasks.
            cron: when one is due, e.g. ``0 3 * * *``.
            options: see `ScheduleOptions`.
        """
        return self._perform(_put(name, type, payload, cron, options))

    def delete(self, name: str) -> None:
        """Delete a schedule; the tasks that it has submitted go on."""
        self._perform(_delete(name))

    def pause(self, name: str) -> models.Schedule:
        """Have a schedule submit nothing until it is resumed."""
        return self._perform(_one("POST", name, "/pause"))

    def resume(self, name: str) -> models.Schedule:
        """Have a schedule go on with its next due time."""
        return self._perform(_one("POST", name, "/resume"))

    def run_now(self, name: str, *, idempotency_key: str | None = None) -> models.Task:
        """Submit a schedule's task now, once."""
        return self._perform(_run_now(name, idempotency_key))


class AsyncSchedules:
    """The verbs of `Schedules`, for asyncio.

    Args:
        perform: performs a call.
    """

    def __init__(self, perform: _AsyncPerformer) -> None:
        self._perform = perform

    async def all(self, principal: str | None = None) -> Sequence[models.Schedule]:
        """Schedules, by name; with ``*`` those of all principals (scope `tasks:read-all`)."""
        return await self._perform(_listed(principal))

    async def get(self, name: str) -> models.Schedule:
        """A schedule as it is now."""
        return await self._perform(_one("GET", name))

    async def put(
        self, name: str, type: str, payload: PayloadLike, cron: str, **options: Unpack[ScheduleOptions]
    ) -> models.Schedule:
        """Create or change a schedule.

        Args:
            name: of the schedule.
            type: of its tasks.
            payload: of its tasks.
            cron: when one is due, e.g. ``0 3 * * *``.
            options: see `ScheduleOptions`.
        """
        return await self._perform(_put(name, type, payload, cron, options))

    async def delete(self, name: str) -> None:
        """Delete a schedule; the tasks that it has submitted go on."""
        await self._perform(_delete(name))

    async def pause(self, name: str) -> models.Schedule:
        """Have a schedule submit nothing until it is resumed."""
        return await self._perform(_one("POST", name, "/pause"))

    async def resume(self, name: str) -> models.Schedule:
        """Have a schedule go on with its next due time."""
        return await self._perform(_one("POST", name, "/resume"))

    async def run_now(self, name: str, *, idempotency_key: str | None = None) -> models.Task:
        """Submit a schedule's task now, once."""
        return await self._perform(_run_now(name, idempotency_key))
