"""``/v1/schedules``: tasks that are submitted again and again."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from dispatch.config import api_keys as keys
from dispatch.config import type_scopes
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.contract import response_models, schedule_models
from dispatch.gateway.http import auth, context, headers, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import task_access
from dispatch.protocol import cron
from dispatch.protocol.ids import timestamp
from dispatch.protocol.schedules import Schedule
from dispatch.schedules.service import Expected, ScheduleService
from dispatch.store.schedules import ScheduleEntry
from dispatch.submission.submitter import Submission
from dispatch.tasktypes import masking
from dispatch.tasktypes.registry import TaskType

_REVISION = re.compile(r'"(\d{1,16})"')


class ScheduleViews:
    """The operations on schedules.

    Args:
        service: the verbs.
        types: the task types, by name.
        guard: refuses what is to run now while the work queue is full.
        allowance: whether a principal may submit a task.
    """

    def __init__(
        self,
        service: ScheduleService,
        types: Mapping[str, TaskType],
        guard: Guard,
        allowance: Callable[[str], Allowance],
    ) -> None:
        self._service = service
        self._types = types
        self._guard = guard
        self._allowance = allowance

    @operation(
        Operation(
            "GET", "/v1/schedules", "listSchedules", "Schedules", "List schedules, by name",
            (ResponseSpec(200, "All of them.", schedule_models.ScheduleListModel, ("Cache-Control",)),),
            scope=keys.TASKS_READ,
            query=schedule_models.ScheduleQuery,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """The schedules of a principal, or of all."""
        principal = task_access.whose(validation.read_query(schedule_models.ScheduleQuery).principal)
        return json_reply({"items": [self.shown(entry) for entry in self._service.all(principal)]})

    @operation(
        Operation(
            "GET", "/v1/schedules/{name}", "getSchedule", "Schedules", "Get a schedule",
            (ResponseSpec(200, "As it is now.", schedule_models.ScheduleModel, ("ETag", "Cache-Control")),),
            scope=keys.TASKS_READ,
            problems=("schedule-not-found",),
        )
    )  # fmt: skip
    def get(self, name: str) -> Reply:
        """One schedule."""
        return self._reply(self._service.get(name, whose()))

    @operation(
        Operation(
            "PUT", "/v1/schedules/{name}", "putSchedule", "Schedules", "Create or change a schedule",
            (
                ResponseSpec(200, "It is as requested.", schedule_models.ScheduleModel, ("ETag",)),
                ResponseSpec(201, "It was created.", schedule_models.ScheduleModel, ("ETag",)),
            ),
            scope=keys.SCHEDULES_WRITE,
            audited=True,
            description="Needs `tasks:write` for its task type as well. The same request again changes nothing. With `If-Match` only "
            "the revision that the client has seen is changed; with `If-None-Match: *` none is. What is due meanwhile is decided by one "
            "of the two revisions, never by both.",
            body=schedule_models.ScheduleBody,
            headers=("If-Match", "If-None-Match"),
            problems=("schedule-exists", "schedule-changed", "schedule-unconfirmed", "too-many-schedules", "unknown-task-type"),
        )
    )  # fmt: skip
    def put(self, name: str) -> Reply:
        """Create or change one."""
        wanted = self._read(name)
        entry, created = self._service.put(wanted, _expected())
        return self._reply(entry, 201 if created else 200)

    @operation(
        Operation(
            "DELETE", "/v1/schedules/{name}", "deleteSchedule", "Schedules", "Delete a schedule",
            (ResponseSpec(204, "It submits nothing more. Tasks that it has submitted go on."),),
            scope=keys.SCHEDULES_WRITE,
            audited=True,
            problems=("schedule-not-found", "schedule-changed"),
        )
    )  # fmt: skip
    def delete(self, name: str) -> Reply:
        """Delete one."""
        self._service.delete(name, whose())
        return Reply(status=204)

    @operation(
        Operation(
            "POST", "/v1/schedules/{name}/pause", "pauseSchedule", "Schedules", "Pause a schedule",
            (ResponseSpec(200, "It submits nothing until it is resumed.", schedule_models.ScheduleModel, ("ETag",)),),
            scope=keys.SCHEDULES_WRITE,
            audited=True,
            problems=("schedule-not-found", "schedule-changed"),
        )
    )  # fmt: skip
    def pause(self, name: str) -> Reply:
        """Pause one."""
        return self._reply(self._service.pause(name, whose()))

    @operation(
        Operation(
            "POST", "/v1/schedules/{name}/resume", "resumeSchedule", "Schedules", "Resume a schedule",
            (ResponseSpec(200, "It goes on with its next due time.", schedule_models.ScheduleModel, ("ETag",)),),
            scope=keys.SCHEDULES_WRITE,
            audited=True,
            description="Due times of the pause are not made up for.",
            problems=("schedule-not-found", "schedule-changed", "schedule-unconfirmed"),
        )
    )  # fmt: skip
    def resume(self, name: str) -> Reply:
        """Resume one."""
        return self._reply(self._service.resume(name, whose()))

    @operation(
        Operation(
            "POST", "/v1/schedules/{name}/run-now", "runScheduleNow", "Schedules", "Submit a schedule's task now",
            (ResponseSpec(202, "Accepted, as by `POST /v1/tasks`.", response_models.TaskModel, ("Location", "Idempotent-Replayed")),),
            scope=keys.SCHEDULES_WRITE,
            audited=True,
            description="Also of a paused one, and whether or not another of its tasks is alive. Its due times stay as they are.",
            headers=("Idempotency-Key",),
            problems=(
                "schedule-not-found", "invalid-idempotency-key", "idempotency-key-in-progress", "idempotency-key-reused",
                "unknown-task-type", "queue-depth-exceeded", "broker-unavailable", "publish-unroutable", "publish-unconfirmed",
            ),
        )
    )  # fmt: skip
    def run_now(self, name: str) -> Reply:
        """Submit its task."""
        accepted = self._service.run_now(name, whose(), self.submission)
        body = task_access.shown(accepted.record)
        replayed = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
        return json_reply(body, 202, {"Location": body["statusUrl"], **replayed})

    # --- the steps -------------------------------------------------------------------------------
    def _read(self, name: str) -> Schedule:
        _check_name(name)
        raw = validation.read_body()
        body = validation.parse(schedule_models.ScheduleBody, validation.parse_object(raw), text=raw)
        return self.made(name, body)

    def made(self, name: str, body: schedule_models.ScheduleBody) -> Schedule:
        """The schedule that the principal of the current request asks for.

        Raises:
            Problem: 403, 422.
        """
        _check_name(name)
        task_type = self._types.get(body.type)
        if task_type is None:
            raise Problem(
                "unknown-task-type", errors=[FieldError("/type", "There is no such type.", "unknown_task_type")]
            )
        principal = context.principal()
        if not type_scopes.permits_type(principal.scopes, keys.TASKS_WRITE, task_type.name):
            raise auth.insufficient(f"{keys.TASKS_WRITE}:{task_type.name}")
        payload = validation.parse(task_type.payload, body.payload, "/payload")
        return Schedule(
            name=name,
            principal=principal.id,
            type=task_type.name,
            payload=payload.model_dump(mode="json", by_alias=True, exclude_unset=True),
            cron=body.cron,
            timezone=body.timezone,
            overlap=body.overlap,
            catch_up=body.catch_up,
            jitter=body.jitter_seconds,
            labels=body.options.labels,
            deadline=body.options.deadline_seconds or 0,
            paused=body.paused,
        )

    def submission(self, schedule: Schedule) -> Submission:
        """The submission of a schedule's task by the current request.

        Raises:
            Problem: 400, 422, 429.
        """
        task_type = self._types.get(schedule.type)
        if task_type is None:
            raise Problem("unknown-task-type")
        guard = self._guard.of(schedule.type)
        refusal = guard.refusal() if guard.full() else self._allowance(schedule.principal).refusal
        if refusal is not None:
            raise refusal
        request = context.current()
        try:
            key = headers.idempotency_key(request.header("HTTP_IDEMPOTENCY_KEY"))
        except headers.InvalidIdempotencyKey as exc:
            raise Problem("invalid-idempotency-key", str(exc)) from exc
        return Submission(
            principal=schedule.principal,
            type=task_type,
            payload=dict(schedule.payload),
            fingerprint=f"run-now {schedule.name}",
            idempotency_key=key,
            request_id=request.request_id,
            traceparent=request.traceparent,
        )

    def _reply(self, entry: ScheduleEntry, status: int = 200) -> Reply:
        return json_reply(self.shown(entry), status, {"ETag": f'"{entry.revision}"'})

    def shown(self, entry: ScheduleEntry) -> dict[str, Any]:
        """A schedule as the API shows it."""
        schedule = entry.schedule
        assert schedule is not None  # noqa: S101 - the service shows none that was deleted
        task_type = self._types.get(schedule.type)
        payload = masking.masked(task_type.payload, schedule.payload) if task_type else masking.closed(schedule.payload)
        last = {"at": timestamp(entry.fired_at), "taskId": entry.fired_task} if entry.fired_task else None
        deadline = {"deadlineSeconds": schedule.deadline} if schedule.deadline else {}
        return {
            "name": schedule.name, "type": schedule.type, "payload": payload.value,
            "options": {"labels": dict(schedule.labels), **deadline},
            "cron": schedule.cron, "timezone": schedule.timezone, "overlap": schedule.overlap.value,
            "catchUp": schedule.catch_up.value, "paused": schedule.paused, "jitterSeconds": schedule.jitter,
            "principal": schedule.principal, "nextRuns": _next_runs(schedule), "lastRun": last,
            "fired": entry.fired, "skipped": entry.skipped, "missed": entry.missed, "error": entry.error or None,
            "waitsAs": entry.tick, "revision": entry.revision,
            "createdAt": timestamp(schedule.created_at), "updatedAt": timestamp(schedule.updated_at),
        }  # fmt: skip


def _check_name(name: str) -> None:
    if not schedule_models.is_name(name):
        text = "A schedule's name has 1 to 63 of a-z, 0-9, '.', '_', '-', and begins and ends with a letter or digit"
        raise validation.invalid(FieldError("/name", text, "invalid_name"))


def _next_runs(schedule: Schedule) -> list[str | None]:
    if schedule.paused:
        return []
    return due_times(schedule.cron, schedule.timezone)


def due_times(expression: str, zone: str) -> list[str | None]:
    """The next due times of a schedule."""
    times = cron.times_after(expression, zone, int(time.time() * 1_000))
    return [timestamp(at) for at in itertools.islice(times, schedule_models.NEXT_RUNS)]


def whose() -> str | None:
    """Whose schedules the current request may touch: operators see those of all."""
    principal = context.principal()
    return None if keys.TASKS_READ_ALL in principal.scopes else principal.id


def _expected() -> Expected:
    """What the current request expects of the schedule that it changes."""
    request = context.current()
    given, absent = request.header("HTTP_IF_MATCH"), request.header("HTTP_IF_NONE_MATCH")
    revision = None
    if given is not None:
        match = _REVISION.fullmatch(given.strip())
        revision = int(match[1]) if match else -1  # no revision of ours
    return Expected(revision, absent is not None and absent.strip() == "*")
