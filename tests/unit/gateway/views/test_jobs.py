import pytest

from dispatch.deadletters.bulk import BulkRedrive
from dispatch.gateway.contract import models
from dispatch.protocol.dead_letters import DeadLetterFilter
from support.gateway_fakes import World, problem

JOB = BulkRedrive(DeadLetterFilter("echo", "boom"), 100, 2.5, "ada")


@pytest.fixture
def client():
    world = World()
    world.dead_letters.jobs.append(JOB)
    return world.client()


def test_jobs_are_listed_with_what_they_redrive_and_for_whom(client):
    (job,) = models.JobListModel.model_validate(client.get("/v1/jobs").json).items

    assert (job.job_id, job.verb, job.filter.error_type, job.limit, job.rate_per_second, job.requested_by) == (
        JOB.id, "redrive", "boom", 100, 2.5, "ada",
    )  # fmt: skip
    assert job.created_at is not None


def test_a_job_is_stopped_once_it_is_known(client):
    stopped = client.post(f"/v1/jobs/{JOB.id}/stop")

    assert (stopped.status_code, stopped.json["jobId"]) == (200, JOB.id)
    problem(client.post("/v1/jobs/no-such-job/stop"), 404, "job-not-found")
