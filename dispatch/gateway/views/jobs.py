"""``/v1/jobs``: the bulk redrives that workers carry out, and a way to stop them. For operators."""

from __future__ import annotations

from typing import Any

from dispatch.config import api_keys as keys
from dispatch.deadletters.bulk import BulkRedrive, BulkRedrives
from dispatch.gateway.contract import models
from dispatch.gateway.http import context
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.protocol import ids
from dispatch.telemetry import logger

log = logger(__name__)


class JobViews:
    """The operations on bulk redrives.

    Args:
        bulk: those that are not done.
    """

    def __init__(self, bulk: BulkRedrives) -> None:
        self._bulk = bulk

    @operation(
        Operation(
            "GET", "/v1/jobs", "listJobs", "Dead letters", "The bulk redrives that are not done",
            (ResponseSpec(200, "Every job, in the order in which the workers take them.", models.JobListModel, ("Cache-Control",)),),
            scope=keys.DEADLETTERS_READ,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Every job that is not done."""
        return json_reply({"items": [show(bulk) for bulk in self._bulk.all()]})

    @operation(
        Operation(
            "POST", "/v1/jobs/{jobId}/stop", "stopJob", "Dead letters", "Stop a bulk redrive",
            (ResponseSpec(200, "It is stopped: at most the dead letter in hand is still sent.", models.JobModel),),
            scope=keys.DEADLETTERS_WRITE,
            audited=True,
            description="What has been sent stays sent.",
            problems=("job-not-found",),
        )
    )  # fmt: skip
    def stop(self, job_id: str) -> Reply:
        """Stop one."""
        context.current().target = job_id
        stopped = self._bulk.stop(job_id)
        if stopped is None:
            raise Problem("job-not-found")
        log.info("bulk redrive stopped", job_id=job_id, by=context.principal().id)
        return json_reply(show(stopped))


def show(bulk: BulkRedrive) -> dict[str, Any]:
    """A job as the API shows it."""
    issued = ids.issued_at(bulk.id)
    created = None if issued is None else ids.timestamp(int(issued * 1_000))
    return {
        "jobId": bulk.id, "verb": "redrive", "filter": bulk.filter.to_json(), "limit": bulk.limit, "ratePerSecond": bulk.rate,
        "requestedBy": bulk.by, "createdAt": created,
    }  # fmt: skip
