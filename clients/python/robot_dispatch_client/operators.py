"""The verbs of operators: jobs, pauses, concurrency keys, the audit log."""

from __future__ import annotations

import datetime as dt
from typing import Any, Unpack

from robot_dispatch_client import filters, flows, models
from robot_dispatch_client.calls import Call, items, nothing, query, reading, segment
from robot_dispatch_client.filters import JobFilters
from robot_dispatch_client.flows import Flow
from robot_dispatch_client.retries import Repeat
from robot_dispatch_client.submissions import moment, to_json
from robot_dispatch_client.verbs import Pages, Verbs, flow_verb, paged_verb, verb


class OperatorVerbs(Verbs):
    """Do something to many tasks; hold tasks; see who holds a key, and who did what."""

    @verb
    def start_job(
        self,
        verb: str,
        *,
        limit: int = 1_000,
        rate_per_second: float = 10.0,
        canary: bool = False,
        **which: Unpack[JobFilters],
    ) -> Call[models.Job]:
        """Have the workers do something to every task that matches; repeated only if it had no effect.

        Args:
            verb: ``cancel``, ``retry-now``, ``redrive`` or ``discard``.
            limit: tasks at most, newest first.
            rate_per_second: tasks a second at most.
            canary: the first task alone, and the others once it has gone well; of ``redrive`` and ``retry-now``.
            which: see `JobFilters`; ``cancel`` and ``discard`` need something.

        Returns:
            The job, which has begun: see `wait_for_job`.
        """
        body = {"verb": verb, "filter": filters.of_jobs(which), "limit": limit, "ratePerSecond": rate_per_second}
        content = to_json({**body, "canary": canary})  # a second one would be another job
        return Call("POST", "/v1/jobs", reading(models.Job), Repeat.UNSENT, (), content)

    @verb
    def count_job(self, verb: str, **which: Unpack[JobFilters]) -> Call[models.JobCount]:
        """Count the tasks that a job would be for, without starting it.

        Args:
            verb: as of `start_job`.
            which: see `JobFilters`.
        """
        content = to_json({"verb": verb, "filter": filters.of_jobs(which), "dryRun": True})
        return Call("POST", "/v1/jobs", reading(models.JobCount), Repeat.SAFE, (), content)

    @verb
    def jobs(self) -> Call[list[models.Job]]:
        """The jobs that run or have ended within a day, newest first, then the bulk redrives that are not done."""
        return items("/v1/jobs", models.Job)

    @verb
    def job(self, job: models.Job | models.BulkRedrive | str) -> Call[models.Job]:
        """How far a job is."""
        return Call("GET", f"/v1/jobs/{segment(_job_id(job))}", reading(models.Job))

    @flow_verb
    def wait_for_job(
        self, job: models.Job | models.BulkRedrive | str, timeout: float | None = None
    ) -> Flow[models.Job]:
        """Wait until a job has ended.

        Args:
            job: it, or its id. A bulk redrive is no longer there when it is done, so it must be given itself.
            timeout: seconds; by default as long as it takes.

        Returns:
            The job, ``done`` or ``stopped``.

        Raises:
            JobTimeout: it has not ended in time; it goes on.
        """
        known = job if isinstance(job, models.Job) else None
        if isinstance(job, models.BulkRedrive):
            known = models.Job(
                job_id=_job_id(job), verb="redrive", limit=job.limit, rate_per_second=job.rate_per_second
            )
        return flows.wait_for_job(_job_id(job), known, timeout, self._setting)

    @verb
    def stop_job(self, job: models.Job | models.BulkRedrive | str) -> Call[models.Job]:
        """Stop a job; what it has done stays done. `JobFinished` if it has ended."""
        return Call("POST", f"/v1/jobs/{segment(_job_id(job))}/stop", reading(models.Job), Repeat.UNSENT)

    @verb
    def pauses(self) -> Call[list[models.Pause]]:
        """What is paused, and how many tasks that holds."""
        return items("/v1/pauses", models.Pause)

    @verb
    def pause(self, what: str, reason: str, until: dt.datetime | None = None) -> Call[models.Pause]:
        """Pause tasks.

        Args:
            what: ``all``, ``type:…``, ``principal:…``, ``key:…`` or ``lane:…``.
            reason: for other operators.
            until: it ends by itself at this time; with a time zone.
        """
        body: dict[str, Any] = {"reason": reason, **({} if until is None else {"until": moment(until)})}
        return Call("PUT", f"/v1/pauses/{segment(what)}", reading(models.Pause), content=to_json(body))

    @verb
    def resume(self, what: str) -> Call[None]:
        """End a pause."""
        return Call("DELETE", f"/v1/pauses/{segment(what)}", nothing)

    @verb
    def keys(self) -> Call[list[models.Key]]:
        """The concurrency keys in use."""
        return items("/v1/keys", models.Key)

    @verb
    def key(self, key: str) -> Call[models.Key]:
        """Who holds a concurrency key, and who waits for it; `KeyNotInUse` where no task does."""
        return Call("GET", f"/v1/keys/{segment(key)}", reading(models.Key))

    @paged_verb
    def audit(
        self, *, verb: str | None = None, principal: str | None = None, page_size: int | None = None
    ) -> Pages[models.AuditEntry]:
        """What operators did, newest first, page by page; `verb` is an operationId, e.g. ``redriveDeadLetter``."""
        given = {"verb": verb, "principal": principal, "limit": page_size}
        read = reading(models.Page[models.AuditEntry])
        return Pages(lambda cursor: Call("GET", "/v1/audit", read, params=query(given, cursor)))


def _job_id(job: models.Job | models.BulkRedrive | str) -> str:
    return job if isinstance(job, str) else job.job_id or ""
