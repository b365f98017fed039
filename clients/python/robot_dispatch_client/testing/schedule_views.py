"""The fake's operations on schedules: none is ever due by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from robot_dispatch_client.testing.records import now
from robot_dispatch_client.testing.replies import Refusal, body_of, reply
from robot_dispatch_client.testing.task_views import accepted

if TYPE_CHECKING:
    from robot_dispatch_client.testing.fake import FakeDispatch


def schedules(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    """``GET /v1/schedules``."""
    return reply({"items": [fake.schedules[name] for name in sorted(fake.schedules)]})


def get(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``GET /v1/schedules/{name}``."""
    return _shown(_find(fake, name))


def put(fake: FakeDispatch, request: httpx.Request, name: str) -> httpx.Response:
    """``PUT /v1/schedules/{name}``."""
    given, before = body_of(request), fake.schedules.get(name)
    if before is not None and request.headers.get("if-none-match") == "*":
        raise Refusal("schedule-exists")
    if request.headers.get("if-match") not in {None, f'"{before and before["revision"]}"'}:
        raise Refusal("schedule-changed")
    usual = {
        "options": {},
        "timezone": "UTC",
        "overlap": "skip",
        "catchUp": "last",
        "paused": False,
        "jitterSeconds": 0,
    }
    first: dict[str, Any] = {
        "principal": "local", "nextRuns": [], "lastRun": None, "fired": 0, "skipped": 0, "missed": 0, "error": None,
        "waitsAs": None, "createdAt": now(), "revision": 0,
    }  # fmt: skip
    known = before or first
    fake.schedules[name] = {**known, **usual, **given, "name": name}
    return _changed(fake.schedules[name], 200 if before else 201)


def delete(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``DELETE /v1/schedules/{name}``."""
    _find(fake, name)
    del fake.schedules[name]
    return httpx.Response(204)


def pause(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``POST /v1/schedules/{name}/pause``."""
    schedule = _find(fake, name)
    schedule["paused"] = True
    return _changed(schedule)


def resume(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``POST /v1/schedules/{name}/resume``."""
    schedule = _find(fake, name)
    schedule["paused"] = False
    return _changed(schedule)


def run_now(fake: FakeDispatch, request: httpx.Request, name: str) -> httpx.Response:
    """``POST /v1/schedules/{name}/run-now``."""
    schedule = _find(fake, name)
    body = {member: schedule[member] for member in ("type", "payload", "options")}
    task, _ = accepted(fake, body, request.headers.get("idempotency-key"), request)
    return reply(task.to_json(), 202, {"Location": f"/v1/tasks/{task.task_id}"})


def _find(fake: FakeDispatch, name: str) -> dict[str, Any]:
    if name not in fake.schedules:
        raise Refusal("schedule-not-found")
    return fake.schedules[name]


def _changed(schedule: dict[str, Any], status: int = 200) -> httpx.Response:
    schedule |= {"revision": schedule["revision"] + 1, "updatedAt": now()}
    return _shown(schedule, status)


def _shown(schedule: dict[str, Any], status: int = 200) -> httpx.Response:
    return reply(schedule, status, {"ETag": f'"{schedule["revision"]}"'})
