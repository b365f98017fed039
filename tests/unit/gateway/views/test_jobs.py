"""Jobs over HTTP: who may start which, what is counted, listed and stopped."""

import dataclasses

import pytest

from dispatch.config import api_keys
from dispatch.deadletters.bulk import BulkRedrive
from dispatch.gateway.contract import response_models
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.jobs import JobState, JobVerb
from dispatch.protocol.task_filter import TaskFilter
from support.cases import each
from support.gateway_fakes import World, problem

PEPPER = "pepper"
BULK = BulkRedrive(DeadLetterFilter("echo", "boom"), 100, 2.5, "ada")


@pytest.fixture
def world():
    world = World()
    world.dead_letters.jobs.append(BULK)
    return world


@pytest.fixture
def client(world):
    return world.client()


def _start(client, **body):
    return client.post("/v1/jobs", json={"verb": "cancel", "filter": {"type": "greet"}, **body})


def test_a_job_is_stored_with_what_it_does_to_which_tasks(client, world):
    answer = _start(
        client,
        filter={
            "type": "greet", "status": "PENDING", "state": "RETRY_WAIT", "errorType": "boom", "principal": "shop",
            "labels": {"customer": "acme"}, "since": "2026-11-24T02:36:00Z", "until": "2026-11-24T03:36:00Z",
        },
        limit=5, ratePerSecond=0.5, canary=True,
    )  # fmt: skip
    (job,) = world.jobs.held.values()
    shown = response_models.JobModel.model_validate(answer.json)

    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{job.id}")
    assert job.filter == TaskFilter(
        "shop", "greet", "PENDING", "RETRY_WAIT", "boom",
        labels={"customer": "acme"}, since=1_795_487_760_000, until=1_795_491_360_000,
    )  # fmt: skip
    assert (job.verb, job.limit, job.rate, job.canary, job.by) == (JobVerb.CANCEL, 5, 0.5, True, "local")
    assert (shown.state, shown.filter["since"]) == (JobState.RUNNING, "2026-11-24T02:36:00.000Z")
    assert [(one.verb, one.phase) for one in world.audit.entries] == [("startJob", "begin")]
    assert world.audit.entries[0].target.startswith("cancel type=greet status=PENDING")


def test_a_dry_run_counts_and_starts_nothing(client, world):
    answer = _start(client, dryRun=True)

    assert (answer.status_code, answer.json) == (200, {"matched": 7, "complete": True})
    assert world.jobs.held == {}


@each("verb", ["cancel", "discard"])
def test_what_ends_tasks_for_good_needs_a_filter(client, world, verb):
    problem(_start(client, verb=verb, filter={}), 422, "validation-error")
    problem(_start(client, verb=verb, filter={"labels": {}}), 422, "validation-error")

    assert world.jobs.held == {}


@each(
    "body",
    [
        {"verb": "delete"},
        {"limit": 0},
        {"ratePerSecond": 0},
        {"filter": {"colour": "red"}},
        {"filter": {"since": "now"}},
    ],
)
def test_what_is_no_job_is_refused(client, world, body):
    problem(_start(client, **body), 422, "validation-error")

    assert world.jobs.held == {}


def test_too_many_jobs_are_refused(client, world):
    world.jobs.room = False

    problem(_start(client), 429, "too-many-jobs")


def test_jobs_are_listed_and_read_beside_the_bulk_redrives_of_dead_letters(client):
    started = _start(client).json
    items = response_models.JobListModel.model_validate(client.get("/v1/jobs").json).items
    bulk = client.get(f"/v1/jobs/{BULK.id}").json

    assert [one.job_id for one in items] == [started["jobId"], BULK.id]
    assert client.get(f"/v1/jobs/{started['jobId']}").json == started
    assert (bulk["verb"], bulk["filter"]["errorType"], bulk["done"]) == ("redrive", "boom", None)
    problem(client.get("/v1/jobs/no-such-job"), 404, "job-not-found")


def test_a_job_is_stopped_once(client):
    job_id = _start(client).json["jobId"]
    stopped = client.post(f"/v1/jobs/{job_id}/stop")
    bulk = client.post(f"/v1/jobs/{BULK.id}/stop")

    assert (stopped.status_code, stopped.json["state"], stopped.json["reason"]) == (200, "stopped", "requested")
    assert (bulk.status_code, bulk.json["state"]) == (200, "stopped")
    problem(client.post(f"/v1/jobs/{job_id}/stop"), 409, "job-finished")
    problem(client.post("/v1/jobs/no-such-job/stop"), 404, "job-not-found")


@each(
    ("scope", "verb", "status"),
    [
        (api_keys.TASKS_CONTROL, "cancel", 202), (api_keys.TASKS_CONTROL, "retry-now", 202),
        (api_keys.TASKS_CONTROL, "redrive", 403), (api_keys.TASKS_CONTROL, "discard", 403),
        (api_keys.DEADLETTERS_WRITE, "cancel", 403), (api_keys.DEADLETTERS_WRITE, "retry-now", 403),
        (api_keys.DEADLETTERS_WRITE, "redrive", 202), (api_keys.DEADLETTERS_WRITE, "discard", 202),
    ],
)  # fmt: skip
def test_a_verb_needs_its_scope_to_be_started_and_to_be_stopped(scope, verb, status):
    text = api_keys.token("shop", api_keys.new_secret())
    entry = api_keys.ApiKey("shop", api_keys.digest(PEPPER, text), frozenset({scope}))
    world = World(options={"api_keys": (str(entry),), "api_key_pepper": PEPPER})
    client, headers = world.client(), {"Authorization": f"Bearer {text}"}
    started = client.post("/v1/jobs", json={"verb": verb, "filter": {"type": "greet"}}, headers=headers)
    other = World().client().post("/v1/jobs", json={"verb": verb, "filter": {"type": "greet"}}).json
    job = dataclasses.replace(
        next(iter(world.jobs.held.values())) if world.jobs.held else _job(verb), id=other["jobId"]
    )
    world.jobs.held[job.id] = job
    stopped = client.post(f"/v1/jobs/{job.id}/stop", headers=headers)

    assert started.status_code == status
    assert stopped.status_code == (200 if status == 202 else 403)


def _job(verb):
    world = World()
    world.client().post("/v1/jobs", json={"verb": verb, "filter": {"type": "greet"}})
    return next(iter(world.jobs.held.values()))
