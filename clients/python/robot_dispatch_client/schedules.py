"""Schedules: tasks that are submitted again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from robot_dispatch_client import models
from robot_dispatch_client.calls import Call, items, keyed, nothing, reading, segment
from robot_dispatch_client.retries import Repeat
from robot_dispatch_client.submissions import PayloadLike, Seconds, seconds, to_json
from robot_dispatch_client.verbs import Verbs, verb


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


class ScheduleVerbs(Verbs):
    """The verbs on schedules."""

    @verb
    def all(self, principal: str | None = None) -> Call[list[models.Schedule]]:
        """Schedules, by name; with ``*`` those of all principals (scope `tasks:read-all`)."""
        return items("/v1/schedules", models.Schedule, {"principal": principal})

    @verb
    def get(self, name: str) -> Call[models.Schedule]:
        """A schedule as it is now."""
        return Call("GET", _path(name), reading(models.Schedule))

    @verb
    def put(
        self, name: str, type: str, payload: PayloadLike, cron: str, **options: Unpack[ScheduleOptions]
    ) -> Call[models.Schedule]:
        """Create or change a schedule.

        Args:
            name: of the schedule.
            type: of its tasks.
            payload: of its tasks.
            cron: when one is due, e.g. ``0 3 * * *``.
            options: see `ScheduleOptions`.
        """
        return _put(name, type, payload, cron, options)

    @verb
    def delete(self, name: str) -> Call[None]:
        """Delete a schedule; the tasks that it has submitted go on."""
        return Call("DELETE", _path(name), nothing)

    @verb
    def pause(self, name: str) -> Call[models.Schedule]:
        """Have a schedule submit nothing until it is resumed."""
        return Call("POST", f"{_path(name)}/pause", reading(models.Schedule))

    @verb
    def resume(self, name: str) -> Call[models.Schedule]:
        """Have a schedule go on with its next due time."""
        return Call("POST", f"{_path(name)}/resume", reading(models.Schedule))

    @verb
    def run_now(self, name: str, *, idempotency_key: str | None = None) -> Call[models.Task]:
        """Submit a schedule's task now, once."""
        return keyed(f"{_path(name)}/run-now", reading(models.Task), None, idempotency_key)


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
    return Call("PUT", _path(name), reading(models.Schedule), repeat, (), content, headers)


def _path(name: str) -> str:
    return f"/v1/schedules/{segment(name)}"
