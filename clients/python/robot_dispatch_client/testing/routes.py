"""The operations of the fake."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httpx

from robot_dispatch_client.testing import operator_views, schedule_views, system_views, task_views
from robot_dispatch_client.testing.replies import Refusal, etag

if TYPE_CHECKING:
    from robot_dispatch_client.testing.fake import FakeDispatch

_TASK, _LETTER, _SCHEDULE = r"/v1/tasks/([^/]+)", r"/v1/dead-letters/([^/]+)", r"/v1/schedules/([^/]+)"

#: Method, path, view, and the operationId where it is audited. Of two that match, the first one.
_ROUTES: tuple[tuple[str, str, Callable[..., httpx.Response], str], ...] = (
    ("POST", "/v1/tasks", task_views.submit, ""),
    ("POST", "/v1/tasks/batch", task_views.submit_many, ""),
    ("GET", "/v1/tasks", task_views.find_all, ""),
    ("GET", _TASK, task_views.get, ""),
    ("GET", f"{_TASK}/events", task_views.events, ""),
    ("GET", f"{_TASK}/payload", task_views.payload, ""),
    ("GET", f"{_TASK}/children", task_views.children, ""),
    ("POST", f"{_TASK}/cancel", task_views.cancel, "cancelTask"),
    ("POST", f"{_TASK}/retry-now", task_views.retry_now, "retryTaskNow"),
    ("POST", f"{_TASK}/signals/([^/]+)", task_views.signal, ""),
    ("POST", f"{_TASK}/webhook/redeliver", task_views.redeliver, ""),
    ("GET", "/v1/dead-letters", operator_views.dead_letters, ""),
    ("GET", "/v1/dead-letters/groups", operator_views.groups, ""),
    ("POST", "/v1/dead-letters/redrive", operator_views.redrive_many, "redriveDeadLetters"),
    ("GET", _LETTER, operator_views.dead_letter, ""),
    ("POST", f"{_LETTER}/redrive", operator_views.redrive, "redriveDeadLetter"),
    ("DELETE", _LETTER, operator_views.discard, "discardDeadLetter"),
    ("POST", "/v1/jobs", operator_views.start_job, "startJob"),
    ("GET", "/v1/jobs", operator_views.jobs, ""),
    ("GET", "/v1/jobs/([^/]+)", operator_views.job, ""),
    ("POST", "/v1/jobs/([^/]+)/stop", operator_views.stop_job, "stopJob"),
    ("GET", "/v1/pauses", operator_views.pauses, ""),
    ("PUT", "/v1/pauses/([^/]+)", operator_views.pause, "pauseTasks"),
    ("DELETE", "/v1/pauses/([^/]+)", operator_views.resume, "resumeTasks"),
    ("GET", "/v1/keys", operator_views.keys, ""),
    ("GET", "/v1/keys/([^/]+)", operator_views.key, ""),
    ("GET", "/v1/audit", operator_views.audit, ""),
    ("GET", "/v1/schedules", schedule_views.schedules, ""),
    ("GET", _SCHEDULE, schedule_views.get, ""),
    ("PUT", _SCHEDULE, schedule_views.put, "putSchedule"),
    ("DELETE", _SCHEDULE, schedule_views.delete, "deleteSchedule"),
    ("POST", f"{_SCHEDULE}/pause", schedule_views.pause, "pauseSchedule"),
    ("POST", f"{_SCHEDULE}/resume", schedule_views.resume, "resumeSchedule"),
    ("POST", f"{_SCHEDULE}/run-now", schedule_views.run_now, "runScheduleNow"),
    ("GET", "/v1/task-types", system_views.task_types, ""),
    ("GET", "/v1/task-types/([^/]+)", system_views.task_type, ""),
    ("GET", "/v1/queues", system_views.queues, ""),
    ("GET", "/v1/queues/([^/]+)", system_views.queue, ""),
    ("GET", "/v1/workers", system_views.workers, ""),
    ("GET", "/v1/stats", system_views.stats, ""),
)


def held_for(fake: FakeDispatch, request: httpx.Request) -> float:
    """Seconds for which a poll is held now: as long as its task is as the client has it."""
    wished = re.fullmatch(r"wait=(\d+)", request.headers.get("prefer", ""))
    task = fake.tasks.get(request.url.path.rpartition("/")[2])
    if wished is None or task is None or task.done or request.headers.get("if-none-match") != etag(task):
        return 0.0
    return float(wished[1])


def answer(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """The response to a request."""
    if fake.api_key and request.headers.get("authorization") != f"Bearer {fake.api_key}":
        return Refusal("unauthenticated").response(request)
    verb, result = "", "ok"
    arguments: list[str] = []
    try:
        view, arguments, verb = _route(request)
        response = view(fake, request, *arguments)
    except Refusal as refusal:
        response, result = refusal.response(request), refusal.slug
    if verb:
        operator_views.note(fake, verb, ",".join(arguments), result, request)
    return response


def _route(request: httpx.Request) -> tuple[Callable[..., httpx.Response], list[str], str]:
    path = request.url.raw_path.decode().partition("?")[0]
    allowed = False
    for method, pattern, view, verb in _ROUTES:
        if found := re.fullmatch(pattern, path):
            if method == request.method:
                return view, [unquote(each) for each in found.groups()], verb
            allowed = True
    raise Refusal("method-not-allowed" if allowed else "not-found")
