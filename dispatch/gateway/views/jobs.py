"""``/v1/jobs``: a verb on every task that a filter matches, carried out by the workers. For operators."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dispatch.config import api_keys as keys
from dispatch.control.jobs import end_of
from dispatch.deadletters.bulk import BulkRedrive, BulkRedrives
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import auth, context, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.protocol import ids
from dispatch.protocol.audit import BEGIN, AuditEntry, job_target
from dispatch.protocol.jobs import BulkJob, JobState, JobVerb
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.jobs import Jobs
from dispatch.telemetry import logger

log = logger(__name__)

_RETRY = 60  #: seconds after which a job may have ended
_COUNTING = 2.0  #: seconds to count at most

#: Why an operator's request has stopped a job.
_REQUESTED = "requested"


class JobViews:
    """The operations on jobs.

    Args:
        jobs: the jobs.
        bulk: the bulk redrives that are not done.
        audit: takes the entry of a job's end; see `dispatch.store.audit.AuditLog.add`.
    """

    def __init__(self, jobs: Jobs, bulk: BulkRedrives, audit: Callable[[AuditEntry], object]) -> None:
        self._audit = audit
        self._jobs = jobs
        self._bulk = bulk

    @operation(
        Operation(
            "POST", "/v1/jobs", "startJob", "Operators", "Cancel, retry now, redrive or discard many tasks",
            (
                ResponseSpec(202, "The workers carry it out.", response_models.JobModel, ("Location",)),
                ResponseSpec(200, "A dry run: only counted.", response_models.JobCountModel),
            ),
            scope=keys.TASKS_CONTROL,
            or_scope=keys.DEADLETTERS_WRITE,
            audited=True,
            description="`cancel` and `retry-now` need `tasks:control`, `redrive` and `discard` `deadletters:write`. The job goes on when the "
            "gateway or a worker dies, until it is done or stopped. `cancel` and `discard` need a filter that has something.",
            body=request_models.JobBody,
            problems=("too-many-jobs",),
        )
    )  # fmt: skip
    def start(self) -> Reply:
        """Count, or have the workers begin."""
        order = validation.parse(request_models.JobBody, validation.read_object())
        job, request = made(order), context.current()
        if order.dry_run:
            _note(job, dry_run=True)
            request.idle = "dry-run"
            matched, complete = count(self._jobs, job)
            return json_reply({"matched": matched, "complete": complete})
        begin(self._jobs, job)
        return json_reply(job.to_json(), 202, {"Location": f"/v1/jobs/{job.id}"})

    @operation(
        Operation(
            "GET", "/v1/jobs", "listJobs", "Operators", "List jobs, newest first",
            (ResponseSpec(200, "Every job, and the bulk redrives of dead letters that are not done.", response_models.JobListModel, ("Cache-Control",)),),
            scope=keys.DEADLETTERS_READ,
            or_scope=keys.TASKS_CONTROL,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Every job that runs, or has ended within a day."""
        jobs, bulk = [job.to_json() for job in self._jobs.all()], [show(one) for one in self._bulk.all()]
        return json_reply({"items": [*jobs, *bulk]})

    @operation(
        Operation(
            "GET", "/v1/jobs/{jobId}", "getJob", "Operators", "Get a job",
            (ResponseSpec(200, "How far it is.", response_models.JobModel, ("Cache-Control",)),),
            scope=keys.DEADLETTERS_READ,
            or_scope=keys.TASKS_CONTROL,
            problems=("job-not-found",),
        )
    )  # fmt: skip
    def get(self, job_id: str) -> Reply:
        """One job."""
        return json_reply(find(self._jobs, self._bulk, job_id))

    @operation(
        Operation(
            "POST", "/v1/jobs/{jobId}/stop", "stopJob", "Operators", "Stop a job",
            (ResponseSpec(200, "It is stopped: at most the task in hand is still acted on.", response_models.JobModel),),
            scope=keys.DEADLETTERS_WRITE,
            or_scope=keys.TASKS_CONTROL,
            audited=True,
            description="What has been done stays done.",
            problems=("job-not-found", "job-finished"),
        )
    )  # fmt: skip
    def stop(self, job_id: str) -> Reply:
        """Stop one."""
        return json_reply(stop(self._jobs, self._bulk, job_id, self._audit))


def made(order: request_models.JobBody) -> BulkJob:
    """The job that the principal of the current request asks for, not started.

    Raises:
        Problem: 403; 422, the verb needs a filter that has something.
    """
    permit(order.verb)
    return BulkJob(
        ids.new_task_id(), order.verb, _filter(order), order.limit, order.rate_per_second, context.principal().id,
        int(time.time() * 1_000), order.canary,
    )  # fmt: skip


def count(jobs: Jobs, job: BulkJob) -> tuple[int, bool]:
    """How many tasks a job would take now, and whether that is all; see `Jobs.count`."""
    return jobs.count(job, _COUNTING)


def begin(jobs: Jobs, job: BulkJob) -> None:
    """Have the workers carry a job out; with its audit entry.

    Raises:
        Problem: 429, too many run.
    """
    _note(job, dry_run=False)
    if not jobs.add(job):
        raise Problem("too-many-jobs", retry_after=_RETRY)
    context.current().phase = BEGIN


def _note(job: BulkJob, *, dry_run: bool) -> None:
    request = context.current()
    request.target = job_target(job)
    about = {"limit": job.limit, "ratePerSecond": job.rate, "dryRun": dry_run, "canary": job.canary}
    request.details = {**request.details, **about}


def find(jobs: Jobs, bulk: BulkRedrives, job_id: str) -> dict[str, Any]:
    """A job, or a bulk redrive that is not done, as the API shows it.

    Raises:
        Problem: 404.
    """
    if (job := jobs.get(job_id)) is not None:
        return job.to_json()
    return show(_redrive(bulk, job_id))


def stop(jobs: Jobs, bulk: BulkRedrives, job_id: str, audit: Callable[[AuditEntry], object]) -> dict[str, Any]:
    """Stop a job, or a bulk redrive, for the principal of the current request; with its audit entry.

    Args:
        jobs: the jobs.
        bulk: the bulk redrives that are not done.
        job_id: which.
        audit: takes the entry of a job's end; see `dispatch.store.audit.AuditLog.add`.

    Raises:
        Problem: 403, 404, 409.
    """
    context.current().target = job_id
    job = jobs.get(job_id)
    if job is None:
        return show(_stop_bulk(bulk, job_id), JobState.STOPPED)
    permit(job.verb)
    if not jobs.stop(job, _REQUESTED):
        raise Problem("job-finished")
    log.info("job stopped", job_id=job_id, by=context.principal().id)
    stopped = jobs.get(job_id) or job
    audit(end_of(stopped))
    return stopped.to_json()


def _stop_bulk(bulk: BulkRedrives, job_id: str) -> BulkRedrive:
    _redrive(bulk, job_id)
    permit(JobVerb.REDRIVE)
    stopped = bulk.stop(job_id)
    if stopped is None:
        raise Problem("job-finished")
    log.info("bulk redrive stopped", job_id=job_id, by=context.principal().id)
    return stopped


def _redrive(bulk: BulkRedrives, job_id: str) -> BulkRedrive:
    found = next((one for one in bulk.all() if one.id == job_id), None)
    if found is None:
        raise Problem("job-not-found")
    return found


def permit(verb: JobVerb) -> None:
    """Raises Problem: 403, the principal may stop and start no such job."""
    scope = keys.DEADLETTERS_WRITE if verb.for_dead_letters else keys.TASKS_CONTROL
    if scope not in context.principal().scopes:
        raise auth.insufficient(scope)


def _filter(order: request_models.JobBody) -> TaskFilter:
    given = order.filter
    if order.verb in (JobVerb.CANCEL, JobVerb.DISCARD) and not given.model_dump(exclude_defaults=True):
        text = f"{order.verb.value} needs a filter that has something"
        raise Problem("validation-error", errors=[FieldError("/filter", text, "missing")])
    return TaskFilter(
        principal=given.principal,
        type=given.type,
        status=given.status,
        state=given.state,
        error_type=given.error_type,
        error_fingerprint=given.fingerprint,
        labels=given.labels,
        since=given.since,
        until=given.until,
    )


def show(bulk: BulkRedrive, state: JobState = JobState.RUNNING) -> dict[str, Any]:
    """A bulk redrive as the API shows it: among jobs."""
    issued = ids.issued_at(bulk.id)
    created = None if issued is None else ids.timestamp(int(issued * 1_000))
    unknown = dict.fromkeys(
        ("reason", "matched", "matchedAll", "left", "done", "failed", "passedOver", "canaryTaskId", "finishedAt")
    )
    return {
        "jobId": bulk.id, "verb": JobVerb.REDRIVE.value, "filter": bulk.filter.to_json(), "limit": bulk.limit,
        "ratePerSecond": bulk.rate, "canary": False, "requestedBy": bulk.by, "state": state.value, **unknown, "createdAt": created,
    }  # fmt: skip
