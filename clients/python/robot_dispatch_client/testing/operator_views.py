"""The fake's operations for operators: dead letters, jobs, pauses, concurrency keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx

from robot_dispatch_client.models import State
from robot_dispatch_client.testing.records import WAITS, FakeJob, FakeTask, new_id, now
from robot_dispatch_client.testing.replies import Refusal, body_of, find, page_of, reply

if TYPE_CHECKING:
    from robot_dispatch_client.testing.fake import FakeDispatch


# --- dead letters ---------------------------------------------------------------------------------
def dead_letters(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``GET /v1/dead-letters``."""
    return page_of(request, [task.letter_json() for task in _letters(fake, request.url.params)])


def dead_letter(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    """``GET /v1/dead-letters/{taskId}``."""
    task = find(fake, task_id)
    if task.state != State.DEAD_LETTERED:
        raise Refusal("task-not-found")
    return reply(task.letter_json() | {"payload": task.payload})


def groups(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``GET /v1/dead-letters/groups``."""
    found: dict[tuple[str, str, str], list[FakeTask]] = {}
    for task in _letters(fake, request.url.params):
        found.setdefault(_cause(task), []).append(task)
    shown = [_group(cause, tasks) for cause, tasks in found.items()]
    shown.sort(key=lambda group: -group["count"])
    grouped = sum(group["count"] for group in shown)
    return reply({"items": shown, "grouped": grouped, "notShown": 0, "complete": True, "next": None})


def redrive(fake: FakeDispatch, request: httpx.Request, task_id: str) -> httpx.Response:
    """``POST /v1/dead-letters/{taskId}/redrive``."""
    task = _dead(fake, task_id)
    given = body_of(request) if request.content else {}
    task.payload = given.get("payload", task.payload)
    task.redrive()
    return reply(task.to_json(), 202)


def redrive_many(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``POST /v1/dead-letters/redrive``."""
    given = body_of(request)
    matched = len(_letters(fake, given.get("filter") or {}))
    shown = {"limit": given.get("limit", 100), "ratePerSecond": given.get("ratePerSecond", 10.0)}
    if given.get("dryRun"):
        return reply({"jobId": None, "matched": matched, **shown, "dryRun": True})
    job = FakeJob("redrive", given.get("filter") or {}, shown["limit"], shown["ratePerSecond"], bulk=True)
    fake.jobs[job.job_id] = job
    return reply({"jobId": job.job_id, "matched": matched, **shown, "dryRun": False}, 202)


def discard(fake: FakeDispatch, _: httpx.Request, task_id: str) -> httpx.Response:
    """``DELETE /v1/dead-letters/{taskId}``."""
    _dead(fake, task_id).become(State.CANCELLED, "discarded", by="local")
    return httpx.Response(204)


def _letters(fake: FakeDispatch, wanted: Mapping[str, Any]) -> list[FakeTask]:
    named = ("type", "errorType", "fingerprint")
    return [
        task for task in fake.tasks.values()
        if task.state == State.DEAD_LETTERED
        and all(wanted.get(name) in {None, cause} for name, cause in zip(named, _cause(task), strict=True))
    ]  # fmt: skip


def _cause(task: FakeTask) -> tuple[str, str, str]:
    return task.type, (task.error or {}).get("type", ""), task.fingerprint or ""


def _group(cause: tuple[str, str, str], tasks: list[FakeTask]) -> dict[str, Any]:
    named = dict(zip(("type", "errorType", "fingerprint"), cause, strict=True))
    times = sorted(task.finished_at or task.created_at for task in tasks)
    example = (tasks[-1].error or {}).get("detail", "")
    return {
        **named, "count": len(tasks), "firstAt": times[0], "lastAt": times[-1], "exampleTaskId": tasks[-1].task_id,
        "exampleError": example, "filter": named,
    }  # fmt: skip


def _dead(fake: FakeDispatch, task_id: str) -> FakeTask:
    task = find(fake, task_id)
    if task.state != State.DEAD_LETTERED:
        raise Refusal("task-not-dead", members={"state": task.state})
    return task


# --- jobs -----------------------------------------------------------------------------------------
def start_job(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``POST /v1/jobs``: it is carried out at the next request."""
    given = body_of(request)
    job = FakeJob(
        given.get("verb", ""), given.get("filter") or {}, given.get("limit", 1_000), given.get("ratePerSecond", 10.0),
        canary=bool(given.get("canary")),
    )  # fmt: skip
    if job.verb not in _VERBS or (job.verb in {"cancel", "discard"} and not job.filter):
        pointer = "/filter" if job.verb in _VERBS else "/verb"
        error = {"pointer": pointer, "detail": "Input should be valid", "code": "invalid"}
        raise Refusal("validation-error", "The request is not valid.", members={"errors": [error]})
    if given.get("dryRun"):
        return reply({"matched": len(_matching(fake, job)), "complete": True})
    fake.jobs[job.job_id] = job
    return reply(job.to_json(), 202, {"Location": f"/v1/jobs/{job.job_id}"})


def jobs(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    """``GET /v1/jobs``."""
    return reply({"items": [job.to_json() for job in reversed(fake.jobs.values())]})


def job(fake: FakeDispatch, _: httpx.Request, job_id: str) -> httpx.Response:
    """``GET /v1/jobs/{jobId}``."""
    return reply(_job(fake, job_id).to_json())


def stop_job(fake: FakeDispatch, _: httpx.Request, job_id: str) -> httpx.Response:
    """``POST /v1/jobs/{jobId}/stop``."""
    found = _job(fake, job_id)
    if found.state != "running":
        raise Refusal("job-finished")
    found.end("stopped", "requested")
    return reply(found.to_json())


def work_on_jobs(fake: FakeDispatch) -> None:
    """Carry out those that run; a bulk redrive is gone afterwards."""
    for found in [each for each in fake.jobs.values() if each.state == "running"]:
        for task in _matching(fake, found)[: found.limit]:
            _VERBS[found.verb](task)
            found.done += 1
        found.end("done")
        if found.bulk:
            del fake.jobs[found.job_id]


def _job(fake: FakeDispatch, job_id: str) -> FakeJob:
    if job_id not in fake.jobs:
        raise Refusal("job-not-found")
    return fake.jobs[job_id]


def _matching(fake: FakeDispatch, job: FakeJob) -> list[FakeTask]:
    """The newest first; of a bulk redrive, which walks through the queue, the oldest."""
    found = [task for task in fake.tasks.values() if _ALLOWED[job.verb](task) and _matches(task, job.filter)]
    return found if job.bulk else found[::-1]


def _matches(task: FakeTask, wanted: Mapping[str, Any]) -> bool:
    shown = task.to_json()
    of_error = {"errorType": (task.error or {}).get("type"), "fingerprint": task.fingerprint}
    named = {"type": task.type, "status": shown["status"], "state": task.state, "principal": "local", **of_error}
    return (
        all(wanted.get(name) in {None, value} for name, value in named.items())
        and (wanted.get("labels") or {}).items() <= shown["labels"].items()
        and (wanted.get("since") or "") <= task.created_at
        and (wanted.get("until") is None or task.created_at < wanted["until"])
    )


_VERBS: Mapping[str, Callable[[FakeTask], None]] = {
    "cancel": lambda task: task.become(State.CANCELLED, "cancelled", by="local"),
    "retry-now": lambda task: task.become(State.QUEUED, "sent-now", by="local", queue="robot.task.q"),
    "redrive": FakeTask.redrive,
    "discard": lambda task: task.become(State.CANCELLED, "discarded", by="local"),
}
_ALLOWED: Mapping[str, Callable[[FakeTask], bool]] = {
    "cancel": lambda task: not task.done,
    "retry-now": lambda task: task.state in WAITS,
    "redrive": lambda task: task.state == State.DEAD_LETTERED,
    "discard": lambda task: task.state == State.DEAD_LETTERED,
}


# --- pauses and keys ------------------------------------------------------------------------------
def pauses(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    """``GET /v1/pauses``."""
    return reply({"items": [_pause_json(fake, what) for what in fake.pauses]})


def pause(fake: FakeDispatch, request: httpx.Request, what: str) -> httpx.Response:
    """``PUT /v1/pauses/{what}``."""
    given = body_of(request)
    fake.pauses[what] = {"reason": given.get("reason", ""), "by": "local", "at": now(), "until": given.get("until")}
    hold(fake)
    return reply(_pause_json(fake, what))


def resume(fake: FakeDispatch, _: httpx.Request, what: str) -> httpx.Response:
    """``DELETE /v1/pauses/{what}``."""
    if fake.pauses.pop(what, None) is None:
        raise Refusal("pause-not-found")
    hold(fake)
    return httpx.Response(204)


def hold(fake: FakeDispatch) -> None:
    """Hold what is paused, release what is not any more."""
    for what in [what for what, pause in fake.pauses.items() if pause["until"] and pause["until"] <= now()]:
        del fake.pauses[what]
    for task in fake.tasks.values():
        held = next((what for what in fake.pauses if what in task.pausable), None)
        if task.state == State.QUEUED and held is not None:
            task.held_by = held
            task.become(State.HELD, "held", heldBy=held, queue="robot.hold.q")
        elif task.state == State.HELD and held is None:
            task.held_by, before = None, task.held_by
            task.become(State.QUEUED, "released", heldBy=before)


def _pause_json(fake: FakeDispatch, what: str) -> dict[str, Any]:
    held = sum(task.held_by == what for task in fake.tasks.values())
    return {"what": what, **fake.pauses[what], "held": held}


def keys(fake: FakeDispatch, _: httpx.Request) -> httpx.Response:
    """``GET /v1/keys``."""
    named = sorted({task.concurrency_key for task in fake.tasks.values() if task.concurrency_key})
    return reply({"items": [shown for key in named if (shown := _key(fake, key))["holders"]]})


def key(fake: FakeDispatch, _: httpx.Request, name: str) -> httpx.Response:
    """``GET /v1/keys/{key}``."""
    shown = _key(fake, name)
    if not shown["holders"] and not shown["waiting"]:
        raise Refusal("key-not-in-use")
    return reply(shown)


def _key(fake: FakeDispatch, key: str) -> dict[str, Any]:
    tasks = [task for task in fake.tasks.values() if task.concurrency_key == key]
    holders = [{"taskId": task.task_id, "lapsesAt": now()} for task in tasks if task.state == State.RUNNING]
    waiting = [task.task_id for task in tasks if task.state == State.QUEUED]
    return {
        "key": key,
        "limit": 1,
        "holders": holders,
        "waiting": len(waiting),
        "next": waiting[:10],
        "perSeconds": None,
        "begun": None,
    }


# --- what operators did ---------------------------------------------------------------------------
def audit(fake: FakeDispatch, request: httpx.Request) -> httpx.Response:
    """``GET /v1/audit``."""
    wanted = {name: request.url.params.get(name) for name in ("verb", "principal")}
    return page_of(
        request,
        [entry for entry in fake.audited if all(value in {None, entry[name]} for name, value in wanted.items())],
    )


def note(fake: FakeDispatch, verb: str, target: str, result: str, request: httpx.Request) -> None:
    """Add an entry to the audit log.

    Args:
        fake: the API.
        verb: the operationId.
        target: what it was done to.
        result: ``ok``, or the slug of the problem.
        request: that it came with.
    """
    fake.audited.append({
        "id": new_id(), "at": now(), "principal": "local", "keyId": None, "client": None, "verb": verb, "target": target,
        "phase": None, "result": result, "requestId": request.headers.get("x-request-id"), "details": {},
    })  # fmt: skip
